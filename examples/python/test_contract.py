"""What the types of paybus_contract hold. mypy is the test: an ignore that ignores nothing is an error."""

import json
import unittest
from importlib.resources import files

from paybus_contract import (
    Amount,
    Command,
    Event,
    PaymentCreateCommand,
    PaymentCreateCommandData,
    PaymentRefundCommand,
    PaymentSyncCommand,
)

PAYMENT = "0192f0c1-7c5e-7000-8000-0000000000aa"

DATA: PaymentCreateCommandData = {"variant": "cards", "total": "12.50", "currency": "EUR", "metadata": {"order": "1021"}}

GOOD: list[Command] = [
    {
        "specversion": "1.0",
        "type": "payment.create",
        "source": "shop",
        "id": "1",
        "subject": PAYMENT,
        "time": "2026-11-22T12:00:00Z",
        "correlationid": None,
        "data": {**DATA, "process": {"payment_method": "pm_card_visa", "nested": [{}]}},
    },
    {"specversion": "1.0", "type": "payment.sync", "source": "shop", "id": "1", "subject": PAYMENT},
    {"specversion": "1.0", "type": "events.resend", "source": "shop", "id": "1", "data": {"after": "0"}},
]

NUMBER: Amount = 12.5  # type: ignore[assignment]
CURRENCY: PaymentCreateCommandData = {**DATA, "currency": "eur"}  # type: ignore[typeddict-item]
FIELD: PaymentCreateCommandData = {**DATA, "meta_data": {}}  # type: ignore[typeddict-unknown-key]
TOTAL: PaymentCreateCommandData = {"variant": "cards", "currency": "EUR"}  # type: ignore[typeddict-item]
# A refund of all is asked for by an empty object, and not by leaving it out.
ALL: PaymentRefundCommand = {  # type: ignore[typeddict-item]
    "specversion": "1.0", "type": "payment.refund", "source": "shop", "id": "1", "subject": PAYMENT,
}
ATTRIBUTE: PaymentSyncCommand = {  # type: ignore[typeddict-unknown-key]
    "specversion": "1.0", "type": "payment.sync", "source": "shop", "id": "1", "subject": PAYMENT, "correlationId": "1",
}
KIND: PaymentCreateCommand = {
    "specversion": "1.0", "source": "shop", "id": "1", "subject": PAYMENT, "data": DATA,
    "type": "payment.refund",  # type: ignore[typeddict-item]
}


def told(event: Event) -> str:
    if event["type"] == "payment.status_changed":
        payment = event["data"]["payment"]
        payment["captured_amount"] * 1.0  # type: ignore[operator]
        return payment["status"]
    if event["type"] == "command.rejected":
        # A code of tomorrow is a text.
        return "no" if event["data"]["code"] == "not_allowed" else event["data"]["code"].upper()
    return event["sequence"]  # type: ignore[typeddict-item]


class Package(unittest.TestCase):
    def test_the_schemas_and_the_table_of_codes_are_in_the_package(self) -> None:
        package = files("paybus_contract")
        schema = json.loads((package / "commands/payment.create.json").read_text())
        self.assertEqual(schema["title"], "payment.create command")
        codes = json.loads((package / "codes.json").read_text())
        self.assertIn("not_allowed", [entry["code"] for entry in codes])
