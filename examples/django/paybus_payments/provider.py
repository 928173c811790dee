"""The provider: it hands payments to paybus, and sends the customer where the payment stands."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.http import HttpResponse, HttpResponseRedirect
from payments import PaymentStatus, RedirectNeeded
from payments.core import BasicProvider

from .models import Followed, Outgoing

#: Seconds until a customer whose payment is under way looks again.
LOOK_AGAIN = 2


class PaybusProvider(BasicProvider):
    """`("paybus_payments.provider.PaybusProvider", {"variant": "cards"})` in `PAYMENT_VARIANTS`.

    `variant` is paybus's name of the gateway, `process` what goes with every payment in the gateway's own object."""

    def __init__(self, variant: str, process: dict[str, Any] | None = None, capture: bool = True) -> None:
        super().__init__(capture=capture)
        self._variant, self._process = variant, process or {}

    def process(self, payment, data) -> dict[str, Any]:
        """The gateway's own object, such as the token that the checkout's page got for the card. To be overridden."""
        process = self._process | {"return_url": self.get_return_url(payment, {"back": "1"})}
        if data and data.get("payment_method"):
            process["payment_method"] = data["payment_method"]
        return process

    def get_form(self, payment, data=None):
        """Hands the payment over, once for each attempt, and sends the customer on."""
        with transaction.atomic():
            current = type(payment)._default_manager.select_for_update().get(pk=payment.pk)
            if current.status == PaymentStatus.WAITING:
                self._create(current, data)
            elif current.status in (PaymentStatus.REJECTED, PaymentStatus.ERROR):
                try:
                    self.ask(current, "process", {"process": self.process(current, data)})
                except ValueError:
                    pass  # Sent twice with different data: the first attempt is under way, and decides.
        raise RedirectNeeded(self._redirect_url(current) or self.get_return_url(payment))

    def process_data(self, payment, request):
        """Where customers come back to, and where they wait."""
        payment.refresh_from_db()
        if payment.status in (PaymentStatus.CONFIRMED, PaymentStatus.PREAUTH, PaymentStatus.REFUNDED):
            return HttpResponseRedirect(payment.get_success_url())
        if payment.status in (PaymentStatus.REJECTED, PaymentStatus.ERROR, PaymentStatus.CANCELLED):
            return HttpResponseRedirect(payment.get_failure_url())
        if url := self._redirect_url(payment):
            if "back" not in request.GET:
                return HttpResponseRedirect(url)
            # What the customer has done there, the gateway knows.
            with transaction.atomic():
                self.ask(payment, "sync", {})
        return HttpResponse("Your payment is under way.", headers={"Refresh": str(LOOK_AGAIN)})

    def ask(self, payment, what: str, data: dict[str, Any]) -> None:
        """Asks paybus for something, in the caller's transaction.

        Named after where the payment stands: asked twice before there is an answer, it is asked once.

        Raises ValueError where something else of the kind is still to be answered."""
        stands = Followed.objects.filter(token=payment.token).first() or Followed()
        command_id = f"{payment.token}/{what}/{stands.number}.{stands.answers}"
        queued = self._queue(payment, f"payment.{what}", command_id, data)
        if queued.body["data"] != data:
            raise ValueError(f"Another {what} of this payment is under way; wait until it is answered.")

    def capture(self, payment, amount=None):
        needs_mixin("capture")

    def refund(self, payment, amount=None):
        needs_mixin("refund")

    def release(self, payment):
        needs_mixin("release")

    def cancel(self, payment):
        needs_mixin("cancel")

    def _create(self, payment, data) -> None:
        names = ["description", "billing_first_name", "billing_last_name", "billing_address_1", "billing_address_2"]
        names += ["billing_city", "billing_postcode", "billing_country_code", "billing_country_area", "billing_email"]
        order = {name: getattr(payment, name) for name in names}
        order |= {"variant": self._variant, "currency": payment.currency, "capture": self._capture}
        order |= {name: f"{getattr(payment, name):.2f}" for name in ("total", "tax", "delivery")}
        if payment.customer_ip_address:
            order["customer_ip_address"] = payment.customer_ip_address
        if payment.billing_phone:
            order["billing_phone"] = str(payment.billing_phone)
        order = {name: value for name, value in order.items() if value != ""}
        order["process"] = self.process(payment, data)
        self._queue(payment, "payment.create", f"{payment.token}/create", order)

    def _queue(self, payment, kind: str, command_id: str, data: dict[str, Any]) -> Outgoing:
        body = {
            "specversion": "1.0",
            "type": kind,
            "source": settings.PAYBUS["source"],
            "id": command_id,
            # django-payments gives every payment a UUID of its own.
            "subject": payment.token,
            "data": data,
        }
        defaults = {"variant": self._variant, "body": body}
        return Outgoing.objects.get_or_create(command_id=command_id, defaults=defaults)[0]

    @staticmethod
    def _redirect_url(payment) -> str | None:
        return getattr(payment.attrs, "redirect_url", None) if payment.status == PaymentStatus.INPUT else None


def needs_mixin(what: str):
    """django-payments would write the outcome before there is one."""
    raise ImproperlyConfigured(f"payment.{what}(): add paybus_payments.models.PaybusMixin to the payment's bases")
