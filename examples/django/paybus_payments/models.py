"""What is on its way to paybus, how far the project has followed it, and the payment that does not run ahead."""

from __future__ import annotations

import uuid
from decimal import Decimal

from django.db import models, transaction
from django.utils import timezone
from payments import PaymentStatus
from payments.core import provider_factory


class Outgoing(models.Model):
    """A command, stored in the transaction that wants it, and sent after that by `paybus_publish`.

    Not `transaction.on_commit`: a process that dies right after the commit would lose the command."""

    #: With the payment and the source it names the command: the same again is the same command.
    command_id = models.CharField(max_length=255, unique=True)
    variant = models.CharField(max_length=64)
    body = models.JSONField()
    created = models.DateTimeField(auto_now_add=True)
    sent = models.DateTimeField(null=True, db_index=True)
    #: The operation that it is at paybus, by its events; the gateway knows it by this id, too.
    operation = models.UUIDField(null=True)
    #: How far it is: in_progress, pending, unknown, or, for good, succeeded, failed or rejected.
    state = models.CharField(max_length=16, blank=True, default="")


class Followed(models.Model):
    """How far a payment has followed paybus."""

    token = models.CharField(max_length=36, primary_key=True)
    #: The number of the last event that was applied.
    number = models.BigIntegerField(default=0)
    #: How many of the project's commands were answered without any change: what is asked then is another command.
    answers = models.BigIntegerField(default=0)


class Reached(models.Model):
    """Up to which position no event of a variant is missing. One that stands still while events come is not whole."""

    #: paybus's name of it.
    variant = models.CharField(max_length=64, primary_key=True)
    position = models.BigIntegerField()
    modified = models.DateTimeField(default=timezone.now)


class Applied(models.Model):
    """An event that was applied, behind the position that was reached. Goes when that moves past it."""

    position = models.BigIntegerField(primary_key=True)
    variant = models.CharField(max_length=64)


def amount_text(amount: Decimal) -> str:
    """An amount as paybus takes it: never rounded, and without zeros at the end, which JPY must not have."""
    return f"{Decimal(amount).normalize():f}"


class PaybusMixin:
    """For the project's payment: `class Payment(PaybusMixin, BasePayment)`.

    django-payments writes what it asked for at once. With paybus the answer comes later, as an event: until then nothing
    of the row changes. Payments of other variants are as ever."""

    def get_metadata(self) -> dict[str, str]:
        """Texts that every event of the payment is to have, such as the order's number. To be overridden."""
        return {}

    def _paybus(self):
        from .provider import PaybusProvider

        provider = provider_factory(self.variant, self)
        return provider if isinstance(provider, PaybusProvider) else None

    def capture(self, amount: Decimal | None = None) -> None:
        self._ask("capture", [PaymentStatus.PREAUTH], super().capture, amount)

    def refund(self, amount: Decimal | None = None, key: str | None = None) -> Outgoing | None:
        """Each call is a refund of its own; with the `key` of an earlier one, it is that one asked for again."""
        return self._ask("refund", [PaymentStatus.CONFIRMED], super().refund, amount, key or str(uuid.uuid4()))

    def release(self) -> None:
        self._ask("release", [PaymentStatus.PREAUTH], super().release)

    def cancel(self) -> None:
        self._ask("cancel", [PaymentStatus.WAITING, PaymentStatus.INPUT], super().cancel)

    def _ask(self, what: str, allowed, otherwise, amount: Decimal | None = None, key: str | None = None):
        provider = self._paybus()
        if provider is None:
            return otherwise(*([] if amount is None else [amount]))
        with transaction.atomic():
            # The status as it is now, and not as somebody read it a while ago.
            current = type(self)._default_manager.select_for_update().get(pk=self.pk)
            # What was asked for before may have changed the payment since.
            if not Outgoing.objects.filter(command_id=provider.command_id(current, what, key)).exists():
                if current.status not in allowed:
                    raise ValueError(f"A payment that is {current.status} cannot be asked for {what}.")
                if what == "refund" and amount is not None and amount > current.captured_amount:
                    raise ValueError("Refund amount can not be greater then captured amount")
            return provider.ask(current, what, {} if amount is None else {"amount": amount_text(amount)}, key)
