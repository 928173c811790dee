"""The client against a real worker, broker and database. Run by ./check."""

import json
import os
import random
import subprocess
import threading
import unittest
import uuid

import pika
import psycopg

from paybus_client import HEARTBEAT, Memory, NotSent, Publisher, Subscriber, Unknown, command
from testing import AMQP, DATABASE, Worker, create_database, wait_for

PREFIX = f"py{uuid.uuid4().hex[:10]}"


class Lossy(Subscriber):
    """A third of all messages is lost, heartbeats and what was asked for too; and for a while all.

    By chance: were it each third, it could be the answer to the same page each time."""

    PATIENCE = 1.0

    def __init__(self, *arguments, **named) -> None:
        super().__init__(*arguments, **named)
        self.taken, self.loses_all, self.lost = 0, False, set()
        self.chance = random.Random(1)

    def _on_event(self, channel, method, properties, body) -> None:
        self.taken += 1
        if self.loses_all or self.chance.random() < 1 / 3:
            self.lost.add(json.loads(body)["subject"])
            channel.basic_ack(method.delivery_tag)
        else:
            super()._on_event(channel, method, properties, body)


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

    def test_who_timed_out_asks_again_and_is_answered(self) -> None:
        create = self.create(process={"token": "tok_slow", "seconds": 2})
        self.assertIsNone(self.publisher.ask("default", create, timeout=0.5))
        self.publisher.close()
        for _ in range(2):
            # Under way at first, answered later: either way by the same answer.
            answer = self.publisher.ask("default", create)
            self.assertEqual(answer["data"]["payment"]["captured_amount"], "120.00")

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

    def test_who_loses_a_third_of_all_events_and_all_of_the_last_ones_gets_whole_again(self) -> None:
        store = Memory()
        queue = f"{PREFIX}.{self.id().rsplit('.', 1)[1]}"
        lossy = Lossy(AMQP, queue, store, prefix=PREFIX, positions=store)
        lossy.declare()
        following = threading.Thread(target=lossy.run)
        following.start()
        try:
            for _ in range(30):
                self.payment = str(uuid.uuid4())
                self.pay()
                self.refund("20.00")
            wait_for("the events", lambda: lossy.taken > 60)
            lossy.loses_all = True
            last = set()
            for _ in range(5):
                self.payment = str(uuid.uuid4())
                self.pay()
                last.add(self.payment)
            wait_for("the last events to be lost", lambda: last <= lossy.lost)
            lossy.loses_all = False
            wait_for("the table to be as the database", lambda: table(store) == books())
        finally:
            lossy.stop()
            following.join()
        self.assertEqual(len(last & table(store).keys()), 5)
        self.assertNotIn(HEARTBEAT, {event["type"] for event in store.events})

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



def table(store: Memory) -> dict:
    """What a consumer knows of each payment."""
    # A snapshot stands for the events that it makes up for.
    told = [
        event["data"]["payment"]
        for event in list(store.events)
        if "sequence" in event or event["type"] == "payment.snapshot"
    ]
    known = {payment["id"]: (payment["status"], payment["captured_amount"]) for payment in told}
    return {payment: (*facts, store.last(payment)) for payment, facts in known.items()}


def books() -> dict:
    """What paybus has stored."""
    sql = "SELECT id::text, status, captured_amount::numeric(12, 2)::text, last_sequence FROM paybus.payments"
    with psycopg.connect(f"{DATABASE.rsplit('/', 1)[0]}/{PREFIX}") as connection:
        return {payment: tuple(facts) for payment, *facts in connection.execute(sql)}


if __name__ == "__main__":
    unittest.main()
