import signal

from django.core.management.base import BaseCommand

from paybus_payments.bus import subscriber


class Command(BaseCommand):
    help = "Lets the payments follow paybus's events. Runs until SIGTERM; one of them is enough, and keeps the order."

    def handle(self, *args, **options) -> None:
        following = subscriber()
        signal.signal(signal.SIGTERM, lambda *_: following.stop())
        following.run()
