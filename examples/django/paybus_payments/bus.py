"""Commands go out of the project's database, events come into it."""

from __future__ import annotations

import json
import logging
from decimal import Decimal

from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.dispatch import Signal
from django.utils import timezone
from payments import PaymentStatus, get_payment_model

from .models import Applied, Followed, Outgoing, Reached
from .paybus_client import Event, NotSent, Publisher, Seen, Subscriber, Unknown

log = logging.getLogger(__name__)

#: What the project asked for was rejected or failed, and the payment is as it was: `sender` is the payment's class,
#: `payment` the row, `event` the whole event, with `code` and `message`.
command_failed = Signal()

#: The states of an operation that are for good.
ENDED = ["succeeded", "failed", "rejected"]

COPIED = ["transaction_id", "captured_amount", "fraud_status", "fraud_message", "extra_data", "modified"]


def publisher() -> Publisher:
    return Publisher(settings.PAYBUS["url"], settings.PAYBUS.get("prefix", "paybus"))


def publish(through: Publisher) -> int:
    """Sends what is unsent, in order, and tells how much went out. What stays is sent at the next call."""
    sent = 0
    for outgoing in Outgoing.objects.filter(sent=None).order_by("id")[:100]:
        try:
            through.send(outgoing.variant, outgoing.body)
        except (NotSent, Unknown) as error:
            # The same once more is the same command.
            log.warning("%s is not sent yet: %s", outgoing.command_id, error)
            break
        Outgoing.objects.filter(pk=outgoing.pk).update(sent=timezone.now())
        sent += 1
    return sent


def subscriber() -> Subscriber:
    url, name = settings.PAYBUS["url"], settings.PAYBUS["name"]
    prefix, declares = settings.PAYBUS.get("prefix", "paybus"), settings.PAYBUS.get("declares", True)
    return Subscriber(
        url,
        name,
        Books(),
        prefix=prefix,
        declares=declares,
        positions=Positions(),
        seen=SeenPositions(),
        # Of what an event changes, its number and its position.
        transaction=transaction.atomic,
    )


class Books:
    """The project's payments, as the store of a subscriber. Events of other projects' payments are passed over."""

    def last(self, payment: str) -> int:
        return Followed.objects.filter(token=payment).values_list("number", flat=True).first() or 0

    def apply(self, event: Event, number: int | None) -> None:
        # The change and its number are stored together, or not at all.
        with transaction.atomic():
            payment = get_payment_model().objects.select_for_update().filter(token=event["subject"]).first()
            if number is not None:
                Followed.objects.update_or_create(token=event["subject"], defaults={"number": number})
            if payment is None:
                return
            is_news = follow_command(event)
            if number is not None:
                follow(payment, event["data"]["payment"])
            elif is_news and event["data"].get("command", {}).get("answer"):
                answer(payment, event)


class Positions:
    """Up to where nothing is missing, in the project's database."""

    def position(self, variant: str) -> int:
        return Reached.objects.filter(variant=variant).values_list("position", flat=True).first() or 0

    def reached(self, variant: str, position: int) -> None:
        Reached.objects.get_or_create(variant=variant, defaults={"position": position})
        # Never back: during a deployment there may be two processes.
        behind = Reached.objects.filter(variant=variant, position__lt=position)
        behind.update(position=position, modified=timezone.now())


class SeenPositions(Seen):
    """What was applied behind that, in the project's database: a process that begins anew need not ask for it."""

    def add(self, variant: str, position: int) -> None:
        Applied.objects.bulk_create([Applied(position=position, variant=variant)], ignore_conflicts=True)

    def count(self, variant: str, after: int, to: int) -> int:
        return Applied.objects.filter(variant=variant, position__gt=after, position__lte=to).count()

    def drop(self, variant: str, to: int) -> None:
        Applied.objects.filter(variant=variant, position__lte=to).delete()


def is_ours(command: dict) -> bool:
    return command["source"] == settings.PAYBUS["source"]


def follow_command(event: Event) -> bool:
    """Notes on one of the project's commands which operation it is, and how far that is.

    False where it had its answer before: events without a number may come again, also a `command.delayed` after it."""
    command, operation = event["data"].get("command"), event["data"].get("operation")
    if command is None or not is_ours(command):
        return True
    commands = Outgoing.objects.filter(command_id=command["id"])
    if commands.filter(state__in=ENDED).exists():
        return False
    if operation is not None:
        commands.update(operation=operation["id"], state=operation["state"])
    elif command["final"] and event["type"].startswith("command."):
        # No operation: it was rejected before it could be one, or it is a `payment.sync`.
        commands.update(state=event["type"].removeprefix("command."))
    return True


def follow(payment, told: dict) -> None:
    """Takes over the payment as paybus tells it; the status last, with the signal that the project waits for."""
    payment.transaction_id = told["transaction_id"]
    payment.captured_amount = Decimal(told["captured_amount"])
    payment.fraud_status, payment.fraud_message = told["fraud_status"], told["fraud_message"]
    extra = json.loads(payment.extra_data or "{}") | told["extra_data"]
    extra |= {"redirect_url": told.get("redirect_url"), "paid_in_full": told.get("paid_in_full", False)}
    payment.extra_data = json.dumps(extra)
    payment.save(update_fields=COPIED)
    if payment.status != told["status"]:
        payment.change_status(told["status"], told["message"])


def answer(payment, event: Event) -> None:
    """A command was answered, and the payment is as it was."""
    data = event["data"]
    followed = Followed.objects.get_or_create(token=payment.token)[0]
    # What others were answered, a catch-up too, is not what the project asked for.
    if not is_ours(data["command"]):
        return
    # After an answer, a second click is another command.
    Followed.objects.filter(token=payment.token).update(answers=F("answers") + 1)
    if event["type"] not in ("command.rejected", "command.failed"):
        return
    if data["command"]["type"] == "payment.create" and event["type"] == "command.rejected":
        # There is no such payment at paybus; and nothing else would ever be told of it.
        is_unknown = followed.number == 0 and data["code"] not in ("already_exists", "id_reused")
        if payment.status == PaymentStatus.WAITING and is_unknown:
            payment.change_status(PaymentStatus.ERROR, data["message"])
    command_failed.send(sender=type(payment), payment=payment, event=event)
