"""The client against a real worker, broker and database. Run by ./check."""

import os
import socket
import subprocess
import threading
import time
import unittest
import urllib.request
import uuid

import pika
import psycopg

from paybus_client import Memory, NotSent, Publisher, Subscriber, Unknown, command

AMQP, DATABASE, PAYBUS = (os.environ[name] for name in ("PAYBUS__AMQP__URL", "PAYBUS__DATABASE__URL", "PAYBUS"))
PREFIX = f"py{uuid.uuid4().hex[:10]}"


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def wait_for(what: str, condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited 30 s for {what}")
        time.sleep(0.05)


class Client(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        with psycopg.connect(DATABASE, autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {PREFIX}")
        address, port = DATABASE.rsplit("/", 1)[0], free_port()
        cls.environment = os.environ | {
            "PAYBUS__AMQP__PREFIX": PREFIX,
            "PAYBUS__DATABASE__URL": f"{address}/{PREFIX}",
            "PAYBUS__HTTP__LISTEN": f"127.0.0.1:{port}",
        }
        subprocess.run([PAYBUS, "migrate"], env=cls.environment, check=True, stdout=subprocess.DEVNULL)
        cls.worker = subprocess.Popen([PAYBUS, "worker"], env=cls.environment, stderr=subprocess.DEVNULL)
        cls.addClassCleanup(cls.end)

        def ready() -> bool:
            try:
                return urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz").status == 200
            except OSError:
                return False

        wait_for("the worker", ready)

    @classmethod
    def end(cls) -> None:
        cls.worker.terminate()
        assert cls.worker.wait(30) == 0

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
