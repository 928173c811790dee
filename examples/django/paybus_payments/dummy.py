"""paybus's test gateway: a form asks for one of its tokens, as a shop's own page would for a card."""

from __future__ import annotations

from typing import Any

from django import forms
from payments.forms import PaymentForm

from .provider import PaybusProvider


class TokenForm(PaymentForm):
    token = forms.CharField(initial="tok_approved")


class PaybusDummyProvider(PaybusProvider):
    """`("paybus_payments.dummy.PaybusDummyProvider", {"variant": "test"})` in `PAYMENT_VARIANTS`."""

    form_class = TokenForm

    def process(self, payment, data) -> dict[str, Any]:
        # Nothing else: `dummy` refuses fields that it does not know, `return_url` too.
        return {"token": data["token"]}
