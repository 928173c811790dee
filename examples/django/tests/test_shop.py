"""A shop on django-payments, with a real worker, broker and database. Run by ../check."""

import json
import time
import unittest
import uuid
from decimal import Decimal
from typing import Callable
from unittest import mock

import django
import psycopg
from django.conf import settings

from tests.testing import DATABASE, Lossy, Worker, create_database

for name in (settings.NAME, f"{settings.NAME}_shop"):
    create_database(name)
django.setup()

from django.core.exceptions import ImproperlyConfigured  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.test import Client, RequestFactory  # noqa: E402
from django.utils import timezone  # noqa: E402
from payments import RedirectNeeded  # noqa: E402
from payments.signals import status_changed  # noqa: E402

from paybus_payments import bus  # noqa: E402
from paybus_payments.bus import command_failed, publish, publisher, subscriber  # noqa: E402
from paybus_payments.models import Applied, Followed, Outgoing, Reached  # noqa: E402
from paybus_payments.paybus_client import Subscriber, command  # noqa: E402
from tests.models import Cards, Payment  # noqa: E402


class LossySubscriber(Lossy, Subscriber):
    pass


class Following(unittest.TestCase):
    """What is stored of an event, without a worker. Of a variant of its own."""

    @classmethod
    def setUpClass(cls) -> None:
        call_command("migrate", run_syncdb=True, verbosity=0)

    def setUp(self) -> None:
        self.variant, self.channel = f"v{uuid.uuid4().hex[:10]}", mock.Mock()
        # No other test has these positions.
        self.start = uuid.uuid4().int % 10**18
        Reached.objects.create(variant=self.variant, position=self.start)
        self.payment = Payment.objects.create(variant="cards", total=Decimal("120.00"), currency="EUR")
        # paybus knows none of it, and another test compares.
        self.addCleanup(self.payment.delete)
        self.addCleanup(Followed.objects.filter(token=self.payment.token).delete)

    def deliver(self, following: Subscriber, event: dict, position: int | None = None, page: str | None = None) -> None:
        """From a page, where that is given: by its own queue, and under the id of the command that asked."""
        method = mock.Mock(routing_key=following.replies if page else f"{self.variant}.{event['type']}")
        headers = None if position is None else {"paybus-position": position}
        properties = mock.Mock(headers=headers, correlation_id=page)
        following._on_event(self.channel, method, properties, json.dumps(event).encode())

    def confirmed(self) -> dict:
        paid = {"status": "confirmed", "captured_amount": "120.00", "transaction_id": "t-1", "message": ""}
        paid |= {"fraud_status": "unknown", "fraud_message": "", "extra_data": {}}
        named = {"id": str(uuid.uuid4()), "type": "payment.status_changed", "subject": self.payment.token}
        return named | {"sequence": "1", "data": {"payment": paid}}

    def declined(self, refund: Outgoing) -> dict:
        command = {"source": "shop", "id": refund.command_id, "type": "payment.refund", "final": True, "answer": True}
        operation = {"id": str(uuid.uuid4()), "state": "failed"}
        named = {"id": str(uuid.uuid4()), "type": "command.failed", "subject": self.payment.token}
        return named | {"data": {"code": "declined", "attempts": 1, "command": command, "operation": operation}}

    def asked(self) -> dict:
        """The page that was asked for."""
        self.channel.basic_publish.assert_called_once()
        _, key, body, *_ = self.channel.basic_publish.call_args.args
        self.assertEqual(key, f"{self.variant}.events.resend")
        return json.loads(body)

    def sent(self, page: str, to: int, events: int) -> dict:
        """The answer behind a page of so many events."""
        told = {"after": str(self.start), "to": str(self.start + to), "more": False, "events": events, "set_aside": 0}
        return {"id": str(uuid.uuid4()), "type": "command.succeeded", "subject": page, "data": {"page": told}}

    def heartbeat(self, start: int, end: int, events: int) -> dict:
        data = {"from": str(self.start + start), "to": str(self.start + end), "events": events, "set_aside": 0}
        return {"id": str(uuid.uuid4()), "type": "paybus.heartbeat", "subject": self.variant, "data": data}

    def stored(self) -> tuple[str, int, int]:
        self.payment.refresh_from_db()
        followed = Followed.objects.filter(token=self.payment.token).first() or Followed()
        return self.payment.status, followed.number, Applied.objects.filter(variant=self.variant).count()

    def reached(self) -> int:
        return Reached.objects.get(variant=self.variant).position - self.start

    def test_the_position_of_an_event_is_stored_with_what_it_changes_or_not_at_all(self) -> None:
        def refuse(sender, instance, **_) -> None:
            raise RuntimeError("the project cannot take it")

        event = self.confirmed()
        status_changed.connect(refuse)
        self.addCleanup(status_changed.disconnect, refuse)
        with self.assertRaises(RuntimeError):
            self.deliver(subscriber(), event, self.start + 7)
        self.assertEqual(self.stored(), ("waiting", 0, 0))
        status_changed.disconnect(refuse)
        with mock.patch.object(bus.SeenPositions, "add", side_effect=RuntimeError("the database is gone")):
            with self.assertRaises(RuntimeError):
                self.deliver(subscriber(), event, self.start + 7)
        self.assertEqual(self.stored(), ("waiting", 0, 0))
        self.channel.basic_ack.assert_not_called()
        self.deliver(subscriber(), event, self.start + 7)
        self.assertEqual(self.stored(), ("confirmed", 1, 1))
        self.channel.basic_ack.assert_called_once()

    def test_a_process_that_begins_anew_asks_for_nothing_that_is_stored(self) -> None:
        self.deliver(subscriber(), self.confirmed(), self.start + 7)
        self.deliver(subscriber(), self.heartbeat(0, 9, 1))
        self.assertEqual((self.reached(), self.stored()), (9, ("confirmed", 1, 0)))
        self.channel.basic_publish.assert_not_called()

    def test_what_a_heartbeat_counts_and_the_database_has_not_is_asked_for(self) -> None:
        self.deliver(subscriber(), self.confirmed(), self.start + 7)
        self.deliver(subscriber(), self.heartbeat(0, 9, 2))
        self.assertEqual((self.reached(), self.asked()["data"]), (0, {"after": str(self.start)}))

    def test_an_answer_without_a_number_is_found_missing_and_told_of_once(self) -> None:
        told: list[str] = []

        def failed(sender, payment, event, **_) -> None:
            told.append(event["data"]["code"])

        command_failed.connect(failed)
        self.addCleanup(command_failed.disconnect, failed)
        named = {"command_id": f"{self.payment.token}/refund/1", "variant": self.variant, "body": {}}
        refund = Outgoing.objects.create(**named, sent=timezone.now())
        event = self.declined(refund)
        following = subscriber()
        self.deliver(following, self.heartbeat(0, 9, 1))
        page = self.asked()["id"]
        self.deliver(following, event, self.start + 7, page)
        self.deliver(following, self.sent(page, 9, 1), page=page)
        self.assertEqual((self.reached(), told), (9, ["declined"]))
        # It was only late, and there is no telling by its position any more.
        self.deliver(following, event, self.start + 7)
        refund.refresh_from_db()
        self.assertEqual((refund.state, told), ("failed", ["declined"]))
        self.assertEqual(Followed.objects.get(token=self.payment.token).answers, 1)

    def test_what_others_asked_for_is_no_failure_of_the_project(self) -> None:
        failures: list[str] = []

        def failed(sender, payment, event, **_) -> None:
            failures.append(event["data"]["code"])

        command_failed.connect(failed)
        self.addCleanup(command_failed.disconnect, failed)
        named = {"command_id": f"{self.payment.token}/refund/1", "variant": self.variant, "body": {}}
        event = self.declined(Outgoing.objects.create(**named, sent=timezone.now()))
        event["data"]["command"]["source"] = "another"
        self.deliver(subscriber(), event, self.start + 7)
        self.assertEqual(failures, [])

    def test_the_position_never_goes_back(self) -> None:
        for position, reached in ((9, 9), (5, 9), (12, 12)):
            bus.Positions().reached(self.variant, self.start + position)
            self.assertEqual(self.reached(), reached)


def table() -> tuple[dict, dict]:
    """What the shop knows of each payment of paybus, and up to which position it knows that nothing is missing."""
    numbers = dict(Followed.objects.filter(number__gt=0).values_list("token", "number"))
    known = Payment.objects.filter(token__in=numbers).values_list("token", "status", "captured_amount")
    payments = {token: (status, amount, numbers[token]) for token, status, amount in known}
    return payments, dict(Reached.objects.filter(variant__in=["default", "hold"]).values_list("variant", "position"))


def books() -> tuple[dict, dict]:
    """What paybus has stored."""
    with psycopg.connect(f"{DATABASE.rsplit('/', 1)[0]}/{settings.NAME}") as connection:
        sql = "SELECT id::text, status, captured_amount, last_sequence FROM paybus.payments"
        payments = {payment: tuple(facts) for payment, *facts in connection.execute(sql)}
        last = connection.execute("SELECT max(position) FROM paybus.events").fetchone()[0]
    return payments, {"default": last, "hold": last}


class Shop(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        call_command("migrate", run_syncdb=True, verbosity=0)
        cls.worker = Worker(settings.NAME)
        cls.addClassCleanup(lambda: cls.worker.end())
        subscriber().declare()

    def setUp(self) -> None:
        self.publisher = publisher()
        self.addCleanup(self.publisher.close)
        self.changes: list[str] = []
        self.failures: list[str] = []

        def changed(sender, instance, **_) -> None:
            self.changes.append(instance.status)

        def failed(sender, payment, event, **_) -> None:
            self.failures.append(event["data"]["code"])

        for signal, receiver in ((status_changed, changed), (command_failed, failed)):
            signal.connect(receiver, weak=False)
            self.addCleanup(signal.disconnect, receiver)

    def payment(self, variant: str = "cards", total: str = "120.00", currency: str = "EUR") -> Payment:
        return Payment.objects.create(variant=variant, total=Decimal(total), currency=currency, description="Book")

    def paid(self, *arguments: str) -> Payment:
        payment = self.payment(*arguments)
        self.submit(payment)
        return self.reaches(payment, "confirmed")

    def commands(self, payment: Payment, kind: str):
        return Outgoing.objects.filter(body__subject=payment.token, body__type=kind)

    def submit(self, payment: Payment, **process) -> str:
        with self.assertRaises(RedirectNeeded) as needed:
            payment.get_form(process)
        return str(needed.exception)

    def visit(self, url: str, **form: str):
        """A customer's request, to the project's view or django-payments' own."""
        customer = Client(SERVER_NAME="shop.example")
        return customer.post(url, form) if form else customer.get(url)

    def page(self, payment: Payment, query: str = ""):
        return Cards("default").process_data(payment, RequestFactory().get(f"/{query}"))

    def follow(self, payment: Payment, what: str, condition: Callable[[], bool]) -> Payment:
        def reached() -> bool:
            payment.refresh_from_db()
            return condition()

        self.run_until(subscriber(), f"{what} of {payment.token}", reached)
        return payment

    def run_until(self, following: Subscriber, what: str, condition: Callable[[], bool]) -> None:
        def reached() -> bool:
            if time.monotonic() > deadline:
                raise AssertionError(f"waited 30 s for {what}; failures: {self.failures}")
            return condition()

        publish(self.publisher)
        deadline = time.monotonic() + 30
        following.run(until=reached)

    def reaches(self, payment: Payment, status: str) -> Payment:
        return self.follow(payment, status, lambda: payment.status == status)

    def test_a_payment_is_charged_once_however_often_it_is_submitted(self) -> None:
        payment = self.payment()
        waiting = self.submit(payment)
        self.assertEqual(waiting, f"https://shop.example/process/{payment.token}/")
        self.submit(payment)
        self.assertEqual(Outgoing.objects.filter(body__subject=payment.token).count(), 1)
        page = self.page(payment)
        self.assertEqual((page.status_code, page.headers["Refresh"]), (200, "2"))
        # As after a crash between sending and marking.
        publish(self.publisher)
        Outgoing.objects.filter(body__subject=payment.token).update(sent=None)
        self.reaches(payment, "confirmed")
        self.assertEqual(payment.captured_amount, Decimal("120.00"))
        self.assertEqual(self.changes, ["confirmed"])
        self.assertEqual(self.page(payment).url, payment.get_success_url())

    def test_capture_follows_the_variant_unless_the_project_says_so(self) -> None:
        for variant, told, status in (
            ("cards", None, "confirmed"),
            ("hold", None, "preauth"),
            ("later", False, "preauth"),
            ("at-once", True, "confirmed"),
        ):
            with self.subTest(variant):
                payment = self.payment(variant)
                self.submit(payment)
                self.assertEqual(self.commands(payment, "payment.create").get().body["data"].get("capture"), told)
                self.reaches(payment, status)

    def test_amounts_have_the_decimals_of_their_currency(self) -> None:
        for currency, total, part, left in (
            ("JPY", "1200", "200", "1000"),
            ("KWD", "12.345", "0.345", "12"),
            ("EUR", "120.5", "20.5", "100"),
        ):
            with self.subTest(currency):
                payment = self.paid("cards", total, currency)
                self.assertEqual(self.commands(payment, "payment.create").get().body["data"]["total"], total)
                self.assertEqual(payment.captured_amount, Decimal(total))
                payment.refund(Decimal(part))
                self.follow(payment, "the refund", lambda: payment.captured_amount == Decimal(left))

    def test_refunds_are_written_when_they_are_done(self) -> None:
        payment = self.paid()
        payment.refund(Decimal("20.00"))
        payment.refresh_from_db()
        self.assertEqual((payment.status, payment.captured_amount), ("confirmed", Decimal("120.00")))
        self.follow(payment, "the refund", lambda: payment.captured_amount == Decimal("100.00"))
        with self.assertRaises(ValueError):
            payment.refund(Decimal("100.01"))
        payment.refund()
        self.reaches(payment, "refunded")
        self.assertEqual((self.changes, payment.captured_amount), (["confirmed", "refunded"], Decimal("0.00")))

    def test_two_equal_refunds_at_once_are_two(self) -> None:
        payment = self.paid()
        refunds = [payment.refund(Decimal("20.00")), payment.refund(Decimal("20.00"))]
        self.follow(payment, "both refunds", lambda: payment.captured_amount == Decimal("80.00"))
        for refund in refunds:
            refund.refresh_from_db()
        self.assertEqual([refund.state for refund in refunds], ["succeeded", "succeeded"])
        self.assertEqual(len({refund.operation for refund in refunds} - {None}), 2)

    def test_a_refund_that_is_retried_is_one(self) -> None:
        payment = self.paid()
        first = payment.refund(Decimal("20.00"), key="return-17")
        publish(self.publisher)
        # Nobody knows whether it went out, and somebody asks once more.
        Outgoing.objects.filter(pk=first.pk).update(sent=None)
        self.assertEqual(payment.refund(Decimal("20.00"), key="return-17"), first)
        self.follow(payment, "the refund", lambda: payment.captured_amount == Decimal("100.00"))
        with self.assertRaises(ValueError):
            payment.refund(Decimal("30.00"), key="return-17")
        payment.refund()
        self.reaches(payment, "refunded")
        # Long after, and all of it is given back: it is still the same.
        self.assertEqual(payment.refund(Decimal("20.00"), key="return-17"), first)
        self.assertEqual((self.commands(payment, "payment.refund").count(), self.failures), (2, []))

    def test_a_refund_that_is_declined_is_seen_on_it(self) -> None:
        payment = self.payment("dummy")
        self.submit(payment, token="tok_refund_declined")
        self.reaches(payment, "confirmed")
        refund = payment.refund(Decimal("20.00"))
        self.follow(payment, "the refusal", lambda: self.failures == ["declined"])
        refund.refresh_from_db()
        self.assertEqual((refund.state, payment.captured_amount), ("failed", Decimal("120.00")))

    def test_what_failed_may_be_asked_again(self) -> None:
        payment = self.payment("hold")
        self.submit(payment)
        self.reaches(payment, "preauth")
        payment.capture(Decimal("500.00"))
        with self.assertRaises(ValueError):
            payment.capture(Decimal("50.00"))
        self.follow(payment, "the rejection", lambda: self.failures == ["invalid_amount"])
        payment.capture(Decimal("50.00"))
        self.reaches(payment, "confirmed")
        self.assertEqual(payment.captured_amount, Decimal("50.00"))
        self.assertEqual(self.commands(payment, "payment.capture").count(), 2)

    def test_an_authorization_is_captured_or_released(self) -> None:
        captured, released = self.payment("hold"), self.payment("hold")
        for payment in (captured, released):
            self.submit(payment)
            self.reaches(payment, "preauth")
        captured.capture(Decimal("50.00"))
        captured.capture(Decimal("50.00"))
        self.reaches(captured, "confirmed")
        self.assertEqual(captured.captured_amount, Decimal("50.00"))
        released.release()
        self.assertEqual(Payment.objects.get(pk=released.pk).status, "preauth")
        self.reaches(released, "refunded")

    def test_a_declined_payment_may_be_tried_again(self) -> None:
        payment = self.payment()
        self.submit(payment, status="rejected")
        self.reaches(payment, "rejected")
        self.assertEqual(self.page(payment).url, payment.get_failure_url())
        self.submit(payment)
        self.submit(payment)
        self.reaches(payment, "confirmed")
        self.assertEqual(self.changes, ["rejected", "confirmed"])
        self.assertEqual(payment.captured_amount, Decimal("120.00"))

    def test_a_customer_who_must_act_is_sent_on(self) -> None:
        payment = self.payment()
        self.submit(payment, gateway_response="3ds-redirect", verification_result="waiting")
        self.reaches(payment, "input")
        url = json.loads(payment.extra_data)["redirect_url"]
        self.assertTrue(url)
        self.assertEqual(self.submit(payment), url)
        self.assertEqual(self.page(payment).url, url)
        # And back: paybus is asked once to look what became of it.
        self.assertEqual(self.page(payment, "?back=1").status_code, 200)
        self.page(payment, "?back=1")
        self.assertEqual(Outgoing.objects.filter(body__subject=payment.token, body__type="payment.sync").count(), 1)

    def test_customers_go_through_the_views_of_django_payments(self) -> None:
        payment = self.payment("dummy")
        checkout, status = f"/checkout/{payment.pk}/", payment.get_process_url()
        self.assertIn(b'name="token"', self.visit(checkout).content)
        self.assertFalse(Outgoing.objects.filter(body__subject=payment.token).exists())
        for token, outcome, goes_to in (
            ("tok_redirect_failure", "rejected", payment.get_failure_url()),
            ("tok_redirect_success", "confirmed", payment.get_success_url()),
        ):
            with self.subTest(token):
                self.assertEqual(self.visit(checkout, token=token).url, f"https://shop.example{status}")
                self.reaches(payment, "input")
                gateway = self.visit(status).url
                self.assertEqual(gateway, payment.attrs.redirect_url)
                self.assertEqual(self.visit(checkout).url, gateway)
                # The customer comes back, and waits until the event says what became of it.
                self.assertEqual(self.visit(f"{status}?back=1").headers["Refresh"], "2")
                self.reaches(payment, outcome)
                self.assertEqual(self.visit(f"{status}?back=1").url, goes_to)
        self.assertTrue(payment.attrs.paid_in_full)
        self.assertEqual(payment.captured_amount, Decimal("120.00"))
        snapshot = self.publisher.ask("default", command("payment.snapshot", payment.token, {}, source="shop/desk"))
        self.assertEqual(snapshot["data"]["payment"]["metadata"], {"order": "1021"})

    def test_what_the_customer_mistypes_may_be_corrected(self) -> None:
        payment = self.payment("dummy")
        self.submit(payment, token="tok_misspelt")
        self.reaches(payment, "error")
        self.submit(payment, token="tok_approved")
        self.reaches(payment, "confirmed")

    def test_what_paybus_rejects_is_an_error_that_says_why(self) -> None:
        payment = self.payment(total="0.00")
        self.submit(payment)
        self.reaches(payment, "error")
        self.assertEqual(self.failures, ["invalid_amount"])
        self.assertIn("total", payment.message)

    def test_events_once_more_and_events_lost_change_nothing(self) -> None:
        payment = self.payment()
        self.submit(payment)
        self.reaches(payment, "confirmed")
        again = command("payment.resend", payment.token, {"from": "1"}, source="shop/desk")
        self.publisher.ask("default", again)
        payment.refund(Decimal("20.00"))
        self.follow(payment, "the refund", lambda: payment.captured_amount == Decimal("100.00"))
        self.assertEqual(self.changes, ["confirmed"])
        # A shop that has lost the number is told all of it again, in order.
        Followed.objects.filter(token=payment.token).delete()
        payment.refund(Decimal("30.00"))
        self.follow(payment, "the second refund", lambda: payment.captured_amount == Decimal("70.00"))

    def test_the_table_is_whole_though_a_third_of_the_events_is_lost_and_all_of_the_last_ones(self) -> None:
        with mock.patch.object(bus, "Subscriber", LossySubscriber):
            lossy = subscriber()

        def buy(count: int, token: str) -> list[Payment]:
            payments = [self.payment("dummy") for _ in range(count)]
            for payment in payments:
                self.submit(payment, token=token)
            return payments

        def are_paid() -> bool:
            return Payment.objects.filter(pk__in=[payment.pk for payment in paid], status="confirmed").count() == 20

        paid = buy(15, "tok_approved") + buy(5, "tok_refund_declined")
        self.run_until(lossy, "payments that are paid", are_paid)
        lossy.loses_all = True
        refunds = [payment.refund(Decimal("20.00")) for payment in paid]
        never_heard_of = buy(5, "tok_approved")
        last = {refund.command_id for refund in refunds}
        last |= {self.commands(payment, "payment.create").get().command_id for payment in never_heard_of}
        self.run_until(lossy, "the last events to be lost", lambda: last <= lossy.lost_answers())
        lossy.loses_all = False
        self.run_until(lossy, "the table to be as paybus's, and to be known for it", lambda: table() == books())
        states = [Outgoing.objects.get(pk=refund.pk).state for refund in refunds]
        self.assertEqual(states, ["succeeded"] * 15 + ["failed"] * 5)
        # Those have no number; each was told of once, however often its page came.
        self.assertEqual(self.failures, ["declined"] * 5)

    def test_the_shop_sells_while_paybus_is_down(self) -> None:
        self.worker.end()
        try:
            payment = self.payment()
            self.submit(payment)
            publish(self.publisher)
        finally:
            type(self).worker = Worker(settings.NAME)
        self.reaches(payment, "confirmed")

    def test_the_migrations_are_all_there(self) -> None:
        call_command("makemigrations", "paybus_payments", check=True, dry_run=True, verbosity=0)

    def test_payments_of_other_variants_are_as_ever(self) -> None:
        payment = self.payment("other")
        payment.change_status("preauth")
        payment.capture(Decimal("100.00"))
        payment.refund(Decimal("20.00"))
        payment.refresh_from_db()
        self.assertEqual((payment.status, payment.captured_amount), ("confirmed", Decimal("80.00")))
        self.assertFalse(Outgoing.objects.filter(body__subject=payment.token).exists())

    def test_without_the_mixin_nothing_runs_ahead(self) -> None:
        for what in ("capture", "refund", "release", "cancel"):
            with self.assertRaises(ImproperlyConfigured):
                getattr(Cards("default"), what)(None)


if __name__ == "__main__":
    unittest.main()
