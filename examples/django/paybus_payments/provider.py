"""The provider: it hands payments to paybus, and sends the customer where the payment stands."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.http import HttpResponse, HttpResponseRedirect
from payments import PaymentStatus, RedirectNeeded
from payments.core import BasicProvider
from payments.forms import PaymentForm

from .models import Followed, Outgoing, amount_text

#: Seconds until a customer whose payment is under way looks again.
LOOK_AGAIN = 2


class PaybusProvider(BasicProvider):
    """`("paybus_payments.provider.PaybusProvider", {"variant": "cards"})` in `PAYMENT_VARIANTS`.

    `variant` is paybus's name of the gateway, `process` what goes with every payment in the gateway's own object.
    `capture` says whether payments are captured at once; left out, the variant's own `capture` at paybus decides."""

    #: A `PaymentForm` that the customer fills in before the payment is handed over; None where nothing is to be asked.
    form_class: type[PaymentForm] | None = None

    def __init__(self, variant: str, process: dict[str, Any] | None = None, capture: bool | None = None) -> None:
        super().__init__(capture=capture)
        self._variant, self._process = variant, process or {}

    def process(self, payment, data) -> dict[str, Any]:
        """The gateway's own object, such as the token that the checkout's page got for the card. To be overridden."""
        process = self._process | {"return_url": self.get_return_url(payment, {"back": "1"})}
        if data and data.get("payment_method"):
            process["payment_method"] = data["payment_method"]
        return process

    def get_form(self, payment, data=None):
        """Hands the payment over, once for each attempt, and sends the customer on.

        Returns the form where there is one, until it is filled in."""
        with transaction.atomic():
            current = type(payment)._default_manager.select_for_update().get(pk=payment.pk)
            if current.status in (PaymentStatus.WAITING, PaymentStatus.REJECTED, PaymentStatus.ERROR):
                if self.form_class is not None:
                    form = self.form_class(data=data, hidden_inputs=False, provider=self, payment=current)
                    if not form.is_valid():
                        return form
                    data = form.cleaned_data
                self._hand_over(current, data)
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

    def command_id(self, payment, what: str, key: str | None = None) -> str:
        """Named after its key, or else after where the payment stands: asked twice before it is answered, it is one."""
        if key is None:
            stands = Followed.objects.filter(token=payment.token).first() or Followed()
            key = f"{stands.number}.{stands.answers}"
        return f"{payment.token}/{what}/{key}"

    def ask(self, payment, what: str, data: dict[str, Any], key: str | None = None) -> Outgoing:
        """Asks paybus for something, in the caller's transaction.

        Raises ValueError where a command of this name has other data."""
        queued = self._queue(payment, f"payment.{what}", self.command_id(payment, what, key), data)
        if queued.body["data"] != data:
            raise ValueError(f"This {what} was asked for with other data: {queued.body['data']}")
        return queued

    def capture(self, payment, amount=None):
        needs_mixin("capture")

    def refund(self, payment, amount=None):
        needs_mixin("refund")

    def release(self, payment):
        needs_mixin("release")

    def cancel(self, payment):
        needs_mixin("cancel")

    def _hand_over(self, payment, data) -> None:
        if not Followed.objects.filter(token=payment.token, number__gt=0).exists():
            # paybus does not know the payment yet, or has rejected it.
            self._create(payment, data)
        elif payment.status != PaymentStatus.WAITING:
            try:
                self.ask(payment, "process", {"process": self.process(payment, data)})
            except ValueError:
                pass  # Sent twice with different data: the first attempt is under way, and decides.

    def _create(self, payment, data) -> None:
        names = ["description", "billing_first_name", "billing_last_name", "billing_address_1", "billing_address_2"]
        names += ["billing_city", "billing_postcode", "billing_country_code", "billing_country_area", "billing_email"]
        order = {name: getattr(payment, name) for name in names}
        order |= {"variant": self._variant, "currency": payment.currency, "metadata": payment.get_metadata()}
        order |= {name: amount_text(getattr(payment, name)) for name in ("total", "tax", "delivery")}
        if self._capture is not None:
            order["capture"] = self._capture
        if payment.customer_ip_address:
            order["customer_ip_address"] = payment.customer_ip_address
        if payment.billing_phone:
            order["billing_phone"] = str(payment.billing_phone)
        order = {name: value for name, value in order.items() if value not in ("", {})}
        order["process"] = self.process(payment, data)
        self._queue(payment, "payment.create", self.command_id(payment, "create"), order)

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
