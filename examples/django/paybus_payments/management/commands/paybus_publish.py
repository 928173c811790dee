import time

from django.core.management.base import BaseCommand
from django.db import close_old_connections

from paybus_payments.bus import publish, publisher


class Command(BaseCommand):
    help = "Sends commands to paybus as they are stored. Runs until it is ended; two of them do no harm."

    def handle(self, *args, **options) -> None:
        through = publisher()
        while True:
            close_old_connections()
            if publish(through) == 0:
                time.sleep(0.2)
