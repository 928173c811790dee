"""The client against a real worker, broker and database. Run by ./check."""

import json
import os
import subprocess
import threading
import unittest
import uuid

import pika
import psycopg

from paybus_client import HEARTBEAT, Memory, NotSent, Publisher, Subscriber, Unknown, command
from testing import AMQP, DATABASE, Lossy, Worker, create_database, wait_for

PREFIX = f"py{uuid.uuid4().hex[:10]}"


class LossySubscriber(Lossy, Subscriber):
    pass


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

    def pay(self, **data) -> str:
        create = self.create(**data)
        self.assertEqual(self.publisher.ask("default", create)["type"], "payment.status_changed")
        return create["id"]

    def refund(self, amount: str) -> str:
        refund = command("payment.refund", self.payment, {"amount": amount}, source="shop/desk")
        self.assertTrue(self.publisher.ask("default", refund)["data"]["command"]["final"])
        return refund["id"]

    def subscriber(self, store: Memory, **options) -> Subscriber:
        return Subscriber(AMQP, f"{PREFIX}.{self.id().rsplit('.', 1)[1]}", store, prefix=PREFIX, **options)

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

    def test_what_is_asked_for_after_some_of_it_came_is_another_command(self) -> None:
        store = Memory()
        subscriber = self.subscriber(store)
        subscriber.declare()
        self.pay()
        self.refund("20.00")
        with pika.BlockingConnection(pika.URLParameters(AMQP)) as connection:
            channel = connection.channel()
            asked = channel.queue_declare("", exclusive=True).method.queue
            channel.queue_bind(asked, f"{PREFIX}.commands", "*.payment.resend")
            wait_for("the events", lambda: channel.queue_declare(subscriber.queue, passive=True).method.message_count == 3)
            first, _, last = (channel.basic_get(subscriber.queue, auto_ack=True)[2] for _ in range(3))
            # The last comes behind a gap, and once more when the gap is smaller.
            for body in (last, first, last):
                channel.basic_publish("", subscriber.queue, body)
            subscriber.run(until=lambda: store.last(self.payment) == 3)
            asks = [json.loads(channel.basic_get(asked, auto_ack=True)[2]) for _ in range(2)]
        self.assertEqual([ask["data"] for ask in asks], [{"from": "1"}, {"from": "2"}])
        self.assertNotEqual(asks[0]["id"], asks[1]["id"])
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
        lossy = LossySubscriber(AMQP, queue, store, prefix=PREFIX, positions=store)
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
            last, commands = set(), set()
            for _ in range(5):
                self.payment = str(uuid.uuid4())
                # The end of each is a `command.failed`, which has no number.
                commands |= {self.pay(process={"token": "tok_refund_declined"}), self.refund("20.00")}
                last.add(self.payment)
            wait_for("the last events to be lost", lambda: commands <= lossy.lost_answers())
            lossy.loses_all = False
            wait_for("the table to be as the database", lambda: table(store) == books())
            wait_for("the answers without a number", lambda: failed(store) == last)
        finally:
            lossy.stop()
            following.join()
        self.assertEqual(len(last & table(store).keys()), 5)
        self.assertNotIn(HEARTBEAT, {event["type"] for event in store.events})

    def test_queues_that_are_deleted_are_made_again_and_what_was_in_them_is_asked_for(self) -> None:
        store = Memory()
        subscriber = self.subscriber(store, positions=store)
        subscriber.PATIENCE = 1.0
        subscriber.declare()
        following = threading.Thread(target=subscriber.run)
        following.start()
        try:
            self.pay()
            wait_for("the events", lambda: store.last(self.payment) == 2)
            with pika.BlockingConnection(pika.URLParameters(AMQP)) as connection:
                for queue in (subscriber.queue, subscriber.replies):
                    connection.channel().queue_delete(queue)
            self.refund("20.00")
            wait_for("the table to be as the database", lambda: table(store) == books())
        finally:
            subscriber.stop()
            following.join()
        self.assertEqual(self.numbers(store), ["1", "2", "3"])

    def test_every_command_names_the_user_that_sends_it(self) -> None:
        connection = pika.BlockingConnection(pika.URLParameters(AMQP))
        self.addCleanup(connection.close)
        commands = connection.channel()
        queue = commands.queue_declare("", exclusive=True).method.queue
        commands.queue_bind(queue, f"{PREFIX}.commands", "#")
        self.pay()
        store = Memory()
        # Its queue is new: it asks for what was before.
        subscriber = self.subscriber(store, positions=store)
        subscriber.run(until=lambda: store.last(self.payment) == 2)
        users = {}
        while (got := commands.basic_get(queue, auto_ack=True))[0] is not None:
            users[got[0].routing_key] = got[1].user_id
        user = pika.URLParameters(AMQP).credentials.username
        self.assertEqual(users, {"default.payment.create": user, "default.events.resend": user})

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


def failed(store: Memory) -> set[str]:
    """The payments that something failed of, and changed nothing."""
    return {event["subject"] for event in list(store.events) if event["type"] == "command.failed"}


def books() -> dict:
    """What paybus has stored."""
    sql = "SELECT id::text, status, captured_amount::numeric(12, 2)::text, last_sequence FROM paybus.payments"
    with psycopg.connect(f"{DATABASE.rsplit('/', 1)[0]}/{PREFIX}") as connection:
        return {payment: tuple(facts) for payment, *facts in connection.execute(sql)}


if __name__ == "__main__":
    unittest.main()
