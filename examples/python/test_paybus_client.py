"""The client against a real worker, broker and database. Run by ./check."""

import os
import subprocess
import threading
import unittest
import uuid

import pika

from paybus_client import Memory, NotSent, Publisher, Subscriber, Unknown, command
from testing import AMQP, Worker, create_database, wait_for

PREFIX = f"py{uuid.uuid4().hex[:10]}"


class Client(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        create_database(PREFIX)
        cls.addClassCleanup(Worker(PREFIX).end)

    def setUp(self) -> None:
        self.publisher = Publisher(AMQP, PREFIX)
        self.addCleanup(self.publisher.close)
        self.payment = str(uuid.uuid4())

    def create(self, **data) -> dict:
        order = {"variant": "default", "total": "120.00", "currency": "EUR", "process": {}} | data
        return command("payment.create", self.payment, order, source="shop/checkout")

    def pay(self) -> None:
        self.assertEqual(self.publisher.ask("default", self.create())["type"], "payment.status_changed")

    def refund(self, amount: str) -> None:
        refund = command("payment.refund", self.payment, {"amount": amount}, source="shop/desk")
        self.assertTrue(self.publisher.ask("default", refund)["data"]["command"]["final"])

    def subscriber(self, store: Memory) -> Subscriber:
        return Subscriber(AMQP, f"{PREFIX}.{self.id().rsplit('.', 1)[1]}", store, prefix=PREFIX)

    def numbers(self, store: Memory) -> list[str]:
        return [event["sequence"] for event in store.events if event["subject"] == self.payment and "sequence" in event]

    def test_a_command_is_answered_once(self) -> None:
        create = self.create()
        answer = self.publisher.ask("default", create)
        self.assertEqual(answer["data"]["payment"]["status"], "confirmed")
        self.publisher.send("default", create)
        snapshot = command("payment.snapshot", self.payment, {}, source="shop/desk")
        told = self.publisher.ask("default", snapshot)
        self.assertEqual((told["data"]["sequence"], told["data"]["payment"]["captured_amount"]), ("2", "120.00"))

    def test_what_is_wrong_is_rejected_with_a_code(self) -> None:
        answer = self.publisher.ask("default", self.create(total="1.001"))
        self.assertEqual((answer["type"], answer["data"]["code"]), ("command.rejected", "invalid_amount"))

    def test_what_no_queue_takes_was_not_sent(self) -> None:
        # Commands of unknown variants and types have a queue, and are answered; without that exchange nothing has.
        publisher = Publisher(AMQP, PREFIX)
        publisher._exchange = "amq.topic"
        self.addCleanup(publisher.close)
        with self.assertRaises(NotSent):
            publisher.send("default", self.create())

    def test_events_come_once_and_in_order_whatever_is_sent_again(self) -> None:
        store = Memory()
        subscriber = self.subscriber(store)
        subscriber.declare()
        self.pay()
        # To everybody, for it names no reply queue.
        self.publisher.send("default", command("payment.resend", self.payment, {"from": "1"}, source="shop/desk"))
        self.refund("20.00")
        subscriber.run(until=lambda: len([event for event in store.events if event["subject"] == self.payment]) == 4)
        self.assertEqual(self.numbers(store), ["1", "2", "3"])

    def test_a_gap_is_found_and_mended(self) -> None:
        store = Memory()
        subscriber = self.subscriber(store)
        subscriber.declare()
        self.pay()
        connection = pika.BlockingConnection(pika.URLParameters(AMQP))
        channel = connection.channel()
        wait_for("an event to lose", lambda: channel.basic_get(subscriber.queue, auto_ack=True)[0] is not None)
        connection.close()
        self.refund("20.00")
        subscriber.run(until=lambda: store.last(self.payment) == 3)
        self.assertEqual(self.numbers(store), ["1", "2", "3"])

    def test_who_was_away_and_lost_its_queue_gets_whole_again(self) -> None:
        self.pay()
        store = Memory()
        subscriber = self.subscriber(store)
        subscriber.declare()
        self.refund("20.00")
        subscriber.run(until=lambda: store.last(self.payment) == 3)
        self.assertEqual(self.numbers(store), ["1", "2", "3"])

    @unittest.skipUnless("PAYBUS_TEST_RABBITMQCTL" in os.environ, "the broker is not ours to trouble")
    def test_a_lost_connection_is_made_again(self) -> None:
        store = Memory()
        subscriber = self.subscriber(store)
        subscriber.declare()
        following = threading.Thread(target=subscriber.run)
        following.start()
        try:
            self.pay()
            wait_for("the events", lambda: store.last(self.payment) == 2)
            closing = [os.environ["PAYBUS_TEST_RABBITMQCTL"], "close_all_connections", "a test"]
            subprocess.run(closing, check=True, stdout=subprocess.DEVNULL)
            refund = command("payment.refund", self.payment, {"amount": "20.00"}, source="shop/desk")
            with self.assertRaises(Unknown):
                self.publisher.send("default", refund)
            self.publisher.send("default", refund)
            wait_for("the next event", lambda: store.last(self.payment) == 3)
        finally:
            subscriber.stop()
            following.join()
        self.assertEqual(self.numbers(store), ["1", "2", "3"])


if __name__ == "__main__":
    unittest.main()
