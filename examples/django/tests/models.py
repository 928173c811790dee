from django.db.models import CharField, DecimalField
from payments.models import BasePayment

from paybus_payments.models import PaybusMixin
from paybus_payments.provider import PaybusProvider


class Cards(PaybusProvider):
    def process(self, payment, data):
        """What the dummy gateway is to do."""
        return dict(data or {})


def money() -> DecimalField:
    """Wide enough for KWD, which has three decimals, and for VND."""
    return DecimalField(max_digits=15, decimal_places=3, default="0.0")


class Payment(PaybusMixin, BasePayment):
    order = CharField(max_length=40, default="1021")
    total, delivery, tax, captured_amount = money(), money(), money(), money()

    class Meta:
        app_label = "tests"

    def get_metadata(self) -> dict[str, str]:
        return {"order": self.order}

    def get_success_url(self) -> str:
        return "https://shop.example/thanks"

    def get_failure_url(self) -> str:
        return "https://shop.example/sorry"
