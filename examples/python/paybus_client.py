"""A small client of paybus: sends commands, awaits answers, follows events and gets whole again after a gap."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any, Callable, Protocol

import pika
from pika.exceptions import AMQPError, NackError, UnroutableError

JSON = "application/cloudevents+json; charset=utf-8"
DIRECT_REPLY = "amq.rabbitmq.reply-to"

Event = dict[str, Any]


class NotSent(Exception):
    """The broker did not take the command: it was returned or refused. Nothing happened."""


class Unknown(Exception):
    """Nobody knows whether the broker has the command. Send the very same one again: it is the same command."""


def command(kind: str, payment: str, data: dict[str, Any], *, source: str, id: str | None = None) -> Event:
    """A command. `payment`, `source` and `id` name it: keep them with what you sell before it is sent."""
    return {
        "specversion": "1.0",
        "type": kind,
        "source": source,
        "id": id or str(uuid.uuid4()),
        "subject": payment,
        "data": data,
    }


class Publisher:
    """Sends commands, each confirmed by the broker. Not for several threads."""

    def __init__(self, url: str, prefix: str = "paybus") -> None:
        self._parameters = pika.URLParameters(url)
        self._exchange = f"{prefix}.commands"
        self._connection: pika.BlockingConnection | None = None
        self._channel: Any = None
        self._answers: dict[str, Event] = {}

    def send(self, variant: str, command: Event, *, reply_to: str | None = None) -> None:
        """Returns when the broker has the command.

        Raises NotSent where it does not take it, and Unknown where that cannot be told."""
        try:
            self._open().basic_publish(
                self._exchange,
                f"{variant}.{command['type']}",
                json.dumps(command),
                pika.BasicProperties(
                    delivery_mode=2, content_type=JSON, reply_to=reply_to, correlation_id=command["id"]
                ),
                mandatory=True,
            )
        except (UnroutableError, NackError) as error:
            raise NotSent(f"the broker does not take {command['type']}: {error!r}") from error
        except (AMQPError, OSError) as error:
            self.close()
            raise Unknown(f"{command['type']} {command['id']} may or may not be sent: {error!r}") from error

    def ask(self, variant: str, command: Event, timeout: float = 30.0) -> Event | None:
        """Sends a command and awaits its final answer; None where it does not come in time, or the connection is lost.

        A direct reply is lost with its channel. The answer is also an event, so that it is not lost for who follows
        those; the same command once more does not bring the reply again."""
        self.send(variant, command, reply_to=DIRECT_REPLY)
        deadline = time.monotonic() + timeout
        try:
            while command["id"] not in self._answers and (left := deadline - time.monotonic()) > 0:
                self._connection.process_data_events(time_limit=left)
        except (AMQPError, OSError):
            self.close()
        return self._answers.pop(command["id"], None)

    def close(self) -> None:
        """Closes the connection; the next command opens another one."""
        connection, self._connection, self._channel = self._connection, None, None
        self._answers.clear()
        try:
            if connection is not None and connection.is_open:
                connection.close()
        except (AMQPError, OSError):
            pass  # It was lost already, and only now seen to be.

    def _open(self) -> Any:
        if self._channel is None or not self._channel.is_open:
            self.close()
            self._connection = pika.BlockingConnection(self._parameters)
            self._channel = self._connection.channel()
            self._channel.confirm_delivery()
            # Direct replies come only to the channel that the command was sent on.
            self._channel.basic_consume(DIRECT_REPLY, self._on_answer, auto_ack=True)
        return self._channel

    def _on_answer(self, _channel: Any, _method: Any, properties: Any, body: bytes) -> None:
        self._answers[properties.correlation_id] = json.loads(body)


class Store(Protocol):
    """What you know, kept where your own data is."""

    def last(self, payment: str) -> int:
        """The number of the last event of this payment that was applied; 0 for none."""

    def apply(self, event: Event, number: int | None) -> None:
        """Applies an event and stores its number, in one transaction.

        Numbered events come once, in order and without gaps; others, such as `command.rejected`, may come twice, under
        the same id. Pass over types, statuses and members that you do not know."""


class Memory:
    """A store for trying things; it forgets everything."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.events: list[Event] = []

    def last(self, payment: str) -> int:
        return self.numbers.get(payment, 0)

    def apply(self, event: Event, number: int | None) -> None:
        if number is None and any(event["id"] == known["id"] for known in self.events):
            return
        self.events.append(event)
        if number is not None:
            self.numbers[event["subject"]] = number


class Subscriber:
    """Follows events from a durable queue of its own, through any number of lost connections."""

    def __init__(
        self,
        url: str,
        name: str,
        store: Store,
        *,
        prefix: str = "paybus",
        keys: tuple[str, ...] = ("*.payment.#", "*.command.#"),
    ) -> None:
        self._parameters = pika.URLParameters(url)
        self._prefix, self._keys, self._store = prefix, keys, store
        # paybus answers only to queues whose names begin so; see `amqp.reply_to`.
        self.queue, self.replies = f"{name}.events", f"reply.{name}.catch-up"
        self._source = f"{name}/catch-up"
        self._stopping = False

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Applies events until `until`, which is asked every 100 ms, or `stop`."""
        delay = 0.1
        while not self._stopping:
            try:
                connection = self._open()
                delay = 0.1
                # Closed whatever `apply` raises: what is not acknowledged is then delivered again.
                with connection:
                    while not (self._stopping or until()):
                        connection.process_data_events(time_limit=0.1)
                return
            except (AMQPError, OSError):
                time.sleep(delay)
                delay = min(2 * delay, 30.0)

    def stop(self) -> None:
        """Ends `run`, from a signal's handler or another thread."""
        self._stopping = True

    def declare(self) -> None:
        """Makes the queues: from then on no event is missed."""
        self._open(consume=False).close()

    def _open(self, consume: bool = True) -> pika.BlockingConnection:
        connection = pika.BlockingConnection(self._parameters)
        channel = connection.channel()
        channel.confirm_delivery()
        for queue in (self.queue, self.replies):
            channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
        for key in self._keys:
            channel.queue_bind(self.queue, f"{self._prefix}.events", key)
        channel.basic_qos(prefetch_count=100)
        if consume:
            channel.basic_consume(self.queue, self._on_event)
            channel.basic_consume(self.replies, self._on_event)
        return connection

    def _on_event(self, channel: Any, method: Any, _properties: Any, body: bytes) -> None:
        self._take(channel, method, json.loads(body))
        # Last: what dies before this is delivered again.
        channel.basic_ack(method.delivery_tag)

    def _take(self, channel: Any, method: Any, event: Event) -> None:
        payment, data = event["subject"], event.get("data", {})
        last = self._store.last(payment)
        if "sequence" in event:
            number = int(event["sequence"])
            if number == last + 1:
                self._store.apply(event, number)
            elif number > last + 1:
                # It comes again, behind those that are missing. So it may be acknowledged once they are asked for.
                self._ask(channel, event, "payment.resend", {"from": str(last + 1)})
        elif event["type"] == "payment.snapshot":
            if int(data["sequence"]) > last:
                self._store.apply(event, int(data["sequence"]))
        elif method.routing_key == self.replies:
            self._go_on(channel, event, last)
        else:
            self._store.apply(event, None)

    def _go_on(self, channel: Any, answer: Event, last: int) -> None:
        """The answer to a `payment.resend`, which came behind the events that it asked for."""
        data = answer.get("data", {})
        if answer["type"] != "command.succeeded" or int(data.get("sequence", last)) <= last:
            return
        if "resent" in data and int(data["resent"]["from"]) <= last + 1:
            # At most 100 come at a time.
            self._ask(channel, answer, "payment.resend", {"from": str(last + 1)})
        else:
            # Those that are missing are kept no more.
            self._ask(channel, answer, "payment.snapshot", {})

    def _ask(self, channel: Any, about: Event, kind: str, data: dict[str, Any]) -> None:
        # Named after what it is about: delivered again, this asks the same again.
        name = f"{about['id']}/{kind}"
        asked = command(kind, about["subject"], data, source=self._source, id=name)
        properties = pika.BasicProperties(
            delivery_mode=2, content_type=JSON, reply_to=self.replies, correlation_id=asked["id"]
        )
        variant = about["data"]["payment"]["variant"]
        channel.basic_publish(
            f"{self._prefix}.commands", f"{variant}.{kind}", json.dumps(asked), properties, mandatory=True
        )
