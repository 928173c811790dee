from payments.models import BasePayment

from paybus_payments.models import PaybusMixin
from paybus_payments.provider import PaybusProvider


class Cards(PaybusProvider):
    def process(self, payment, data):
        """What the dummy gateway is to do."""
        return dict(data or {})


class Payment(PaybusMixin, BasePayment):
    class Meta:
        app_label = "tests"

    def get_success_url(self) -> str:
        return "https://shop.example/thanks"

    def get_failure_url(self) -> str:
        return "https://shop.example/sorry"
