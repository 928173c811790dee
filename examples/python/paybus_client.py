"""A small client of paybus: sends commands, awaits answers, follows events and gets whole again after a gap."""

from __future__ import annotations

import json
import time
import uuid
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Callable, Final, Protocol, cast

import pika
from paybus_contract import Command, Event, EventsPage, EventsResendCommand, PaybusHeartbeatEvent
from pika.exceptions import AMQPError, ConsumerCancelled, NackError, UnroutableError

JSON = "application/cloudevents+json; charset=utf-8"
DIRECT_REPLY = "amq.rabbitmq.reply-to"
HEARTBEAT: Final = "paybus.heartbeat"


class NotSent(Exception):
    """The broker did not take the command: it was returned or refused. Nothing happened."""


class Unknown(Exception):
    """Nobody knows whether the broker has the command. Send the very same one again: it is the same command."""


def command(kind: str, payment: str, data: dict[str, Any], *, source: str, id: str | None = None) -> Command:
    """A command. `payment`, `source` and `id` name it: keep them with what you sell before it is sent.

    Its data is not checked for types: for that, write the whole dictionary as one of `paybus_contract`'s."""
    asked = {
        "specversion": "1.0",
        "type": kind,
        "source": source,
        "id": id or str(uuid.uuid4()),
        "subject": payment,
        "data": data,
    }
    return cast(Command, asked)


def user_of(parameters: pika.URLParameters) -> str:
    """The address has one, or it is `guest`."""
    return cast(pika.PlainCredentials, parameters.credentials).username


def properties_of(command: Command, user_id: str, reply_to: str | None) -> pika.BasicProperties:
    """How a command is sent. paybus may go by the user, which the broker checks against the one that is logged in."""
    return pika.BasicProperties(
        delivery_mode=2, content_type=JSON, user_id=user_id, reply_to=reply_to, correlation_id=command["id"]
    )


class Publisher:
    """Sends commands, each confirmed by the broker. Not for several threads.

    `user_id` is the name by which the broker knows you, where that is not the user of the address."""

    def __init__(self, url: str, prefix: str = "paybus", *, user_id: str | None = None) -> None:
        self._parameters = pika.URLParameters(url)
        self._user_id = user_id or user_of(self._parameters)
        self._exchange = f"{prefix}.commands"
        self._connection: pika.BlockingConnection | None = None
        self._channel: Any = None
        self._answers: dict[str, Event] = {}

    def send(self, variant: str, command: Command, *, reply_to: str | None = None) -> None:
        """Returns when the broker has the command.

        Raises NotSent where it does not take it, and Unknown where that cannot be told."""
        try:
            self._open().basic_publish(
                self._exchange,
                f"{variant}.{command['type']}",
                json.dumps(command),
                properties_of(command, self._user_id, reply_to),
                mandatory=True,
            )
        except (UnroutableError, NackError) as error:
            raise NotSent(f"the broker does not take {command['type']}: {error!r}") from error
        except (AMQPError, OSError) as error:
            self.close()
            raise Unknown(f"{command['type']} {command['id']} may or may not be sent: {error!r}") from error

    def ask(self, variant: str, command: Command, timeout: float = 30.0) -> Event | None:
        """Sends a command and awaits its final answer; None where it does not come in time, or the connection is lost.

        A direct reply is lost with its channel: ask once more by the same command, which is carried out once and answered
        again. The answer is also an event, for who follows those."""
        self.send(variant, command, reply_to=DIRECT_REPLY)
        deadline = time.monotonic() + timeout
        try:
            while command["id"] not in self._answers and (left := deadline - time.monotonic()) > 0:
                if self._connection is None:
                    break
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
        event = json.loads(body)
        # One that was asked for once more is told first that it goes on.
        if event["data"]["command"]["answer"]:
            self._answers[properties.correlation_id] = event


class Store(Protocol):
    """What you know, kept where your own data is."""

    def last(self, payment: str) -> int:
        """The number of the last event of this payment that was applied; 0 for none."""

    def apply(self, event: Event, number: int | None) -> None:
        """Applies an event and stores its number, in one transaction.

        Numbered events come once, in order and without gaps; others, such as `command.rejected`, may come twice, under
        the same id. Pass over types, statuses and members that you do not know."""


class Positions(Protocol):
    """How far you are, by variant; kept where your own data is."""

    def position(self, variant: str) -> int:
        """Up to which position no event of the variant is missing; 0 for none: then you get all that are kept."""

    def reached(self, variant: str, position: int) -> None:
        """Stores it. Every event up to it was applied."""


class Seen:
    """The positions of events that were applied, behind the one that was reached.

    Here in memory: after a restart these events are asked for once more, and dropped. To keep them, override it all and
    give the subscriber the `transaction` in which it applies an event and adds its position."""

    def __init__(self) -> None:
        self._positions: dict[str, set[int]] = {}

    def add(self, variant: str, position: int) -> None:
        """The same may be added twice."""
        self._positions.setdefault(variant, set()).add(position)

    def count(self, variant: str, after: int, to: int) -> int:
        """How many there are behind one position and up to another."""
        return sum(after < position <= to for position in self._positions.get(variant, ()))

    def drop(self, variant: str, to: int) -> None:
        """Forgets all up to a position."""
        self._positions[variant] = {seen for seen in self._positions.get(variant, ()) if seen > to}


class Memory:
    """A store for trying things; it forgets everything."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.events: list[Event] = []
        self.positions: dict[str, int] = {}

    def position(self, variant: str) -> int:
        return self.positions.get(variant, 0)

    def reached(self, variant: str, position: int) -> None:
        self.positions[variant] = position

    def last(self, payment: str) -> int:
        return self.numbers.get(payment, 0)

    def apply(self, event: Event, number: int | None) -> None:
        if number is None and any(event["id"] == known["id"] for known in self.events):
            return
        self.events.append(event)
        if number is not None:
            self.numbers[event["subject"]] = number


@dataclass
class Page:
    """A page of events that was asked for."""

    id: str
    after: int
    until: int
    """Up to where a heartbeat says that something is missing."""
    asked_at: float = field(default_factory=time.monotonic)
    arrived: set[int] = field(default_factory=set)


class Subscriber:
    """Follows events from a durable queue of its own, through any number of lost connections.

    With `positions` it also follows heartbeats: whatever is missing, the last event too, is found and asked for."""

    PATIENCE = 30.0
    """How long a page may take before it is asked for again, in seconds."""

    def __init__(
        self,
        url: str,
        name: str,
        store: Store,
        *,
        prefix: str = "paybus",
        keys: tuple[str, ...] = ("*.payment.#", "*.command.#"),
        declares: bool = True,
        positions: Positions | None = None,
        seen: Seen | None = None,
        transaction: Callable[[], AbstractContextManager[Any]] = nullcontext,
        user_id: str | None = None,
    ) -> None:
        self._parameters = pika.URLParameters(url)
        # As a publisher's.
        self._user_id = user_id or user_of(self._parameters)
        self._prefix, self._keys, self._store = prefix, keys, store
        # Not where `deploy/rabbitmq/grant service` has made the queues: that user may declare nothing.
        self._declares = declares
        # paybus answers only to queues whose names begin so; see `amqp.reply_to`.
        self.queue, self.replies = f"{name}.events", f"reply.{name}.catch-up"
        self._source = f"{name}/catch-up"
        self._stopping = False
        self._positions, self._seen, self._transaction = positions, seen or Seen(), transaction
        self._pages: dict[str, Page] = {}

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Applies events until `until`, which is asked every 100 ms, or `stop`."""
        delay = 0.1
        while not self._stopping:
            try:
                # Closed whatever `apply` raises: what is not acknowledged is then delivered again.
                with pika.BlockingConnection(self._parameters) as connection:
                    channel = self._consume(connection)
                    delay = 0.1
                    while not (self._stopping or until()):
                        connection.process_data_events(time_limit=0.1)
                        if len(channel.consumer_tags) < 2:
                            # A queue was deleted, and its consumer cancelled by the broker: pika only forgets it.
                            raise ConsumerCancelled
                return
            except (AMQPError, OSError):
                time.sleep(delay)
                delay = min(2 * delay, 30.0)

    def stop(self) -> None:
        """Ends `run`, from a signal's handler or another thread."""
        self._stopping = True

    def declare(self) -> None:
        """Makes the queues: from then on no event is missed."""
        with pika.BlockingConnection(self._parameters) as connection:
            self._declare(connection.channel())

    def _declare(self, channel: Any) -> None:
        if not self._declares:
            return
        for queue in (self.queue, self.replies):
            channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
        for key in self._keys:
            channel.queue_bind(self.queue, f"{self._prefix}.events", key)
        if self._positions is not None:
            channel.queue_bind(self.queue, f"{self._prefix}.heartbeats", "#")

    def _consume(self, connection: pika.BlockingConnection) -> Any:
        channel = connection.channel()
        channel.confirm_delivery()
        self._declare(channel)
        channel.basic_qos(prefetch_count=100)
        channel.basic_consume(self.queue, self._on_event)
        channel.basic_consume(self.replies, self._on_event)
        return channel

    def _on_event(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        event: Event = json.loads(body)
        if event["type"] == HEARTBEAT:
            self._on_heartbeat(channel, event)
        elif event["type"] == "command.succeeded" and "page" in event["data"]:
            self._on_page(channel, event["data"]["page"], properties.correlation_id)
        else:
            # An event's effect and its position: both are stored, or neither.
            with self._transaction():
                is_applied = self._take(channel, method, properties, event)
                self._note(method, properties, is_applied)
        # Last: what dies before this is delivered again.
        channel.basic_ack(method.delivery_tag)

    def _take(self, channel: Any, method: Any, properties: Any, event: Event) -> bool:
        """Whether the event is applied now, or was before."""
        last = self._store.last(event["subject"])
        # An event of a type that is not known counts, too.
        sequence = event.get("sequence")
        if sequence is not None:
            number = int(str(sequence))
            if number == last + 1:
                self._store.apply(event, number)
            elif number > last + 1:
                # It comes again, behind those that are missing. So it may be acknowledged once they are asked for.
                self._ask(channel, event, "payment.resend", {"from": str(last + 1)})
                return False
        elif event["type"] == "payment.snapshot":
            number = int(event["data"]["sequence"])
            if number > last:
                self._store.apply(event, number)
        elif method.routing_key == self.replies and self._is_answer(properties, event):
            self._go_on(channel, event, last)
        else:
            # From a page, too: a `command.failed` has no number, and by its position alone is it missed.
            self._store.apply(event, None)
        return True

    @staticmethod
    def _is_answer(properties: Any, event: Event) -> bool:
        """Whether it answers what was asked here, and is no event that was asked for."""
        told = cast(dict[str, Any], event["data"])
        return bool(told.get("command", {}).get("id") == properties.correlation_id)

    def _note(self, method: Any, properties: Any, is_applied: bool) -> None:
        """Notes the position of an event, to be held against the heartbeats."""
        position = int((properties.headers or {}).get("paybus-position", 0))
        if self._positions is None or position == 0 or not is_applied:
            return
        if method.routing_key != self.replies:
            self._seen.add(method.routing_key.split(".")[0], position)
        else:
            for variant, page in self._pages.items():
                if page.id == properties.correlation_id:
                    page.arrived.add(position)
                    self._seen.add(variant, position)

    def _on_heartbeat(self, channel: Any, event: PaybusHeartbeatEvent) -> None:
        """So many events of a variant are in these positions, and no others will ever be."""
        if self._positions is None:
            return
        variant, data = event["subject"], event["data"]
        start, end = int(data["from"]), int(data["to"])
        reached = self._positions.position(variant)
        if reached >= end:
            return
        # Where it does not begin here, a heartbeat was missed.
        if start == reached and self._seen.count(variant, start, end) == data["events"]:
            return self._reach(variant, end)
        page = self._pages.get(variant)
        if page is None or time.monotonic() - page.asked_at > self.PATIENCE:
            self._ask_page(channel, variant, reached, end, page.arrived if page else None)
        else:
            page.until = end

    def _on_page(self, channel: Any, page: EventsPage, id: str) -> None:
        """The answer to an `events.resend`, which came behind the events that it asked for."""
        variant, asked = next(((name, it) for name, it in self._pages.items() if it.id == id), (None, None))
        if variant is None or asked is None:
            return  # It took too long, and was asked for again.
        to = int(page["to"])
        if sum(position <= to for position in asked.arrived) < page["events"]:
            # Some were lost on their way, or wait for one that was.
            return self._ask_page(channel, variant, asked.after, asked.until, asked.arrived)
        del self._pages[variant]
        # What it has behind the heartbeat is seen, and counts for the next one.
        self._reach(variant, min(to, asked.until))
        if to < asked.until:
            self._ask_page(channel, variant, to, asked.until)

    def _reach(self, variant: str, position: int) -> None:
        if self._positions is not None:
            self._positions.reached(variant, position)
        self._seen.drop(variant, position)

    def _ask_page(self, channel: Any, variant: str, after: int, until: int, arrived: set[int] | None = None) -> None:
        page = self._pages[variant] = Page(str(uuid.uuid4()), after, until, arrived=arrived or set())
        asked: EventsResendCommand = {
            "specversion": "1.0",
            "type": "events.resend",
            "source": self._source,
            "id": page.id,
            "data": {"after": str(after)},
        }
        self._publish(channel, variant, asked)

    def _go_on(self, channel: Any, answer: Event, last: int) -> None:
        """The answer to a `payment.resend`, which came behind the events that it asked for."""
        if answer["type"] != "command.succeeded" or int(answer["data"].get("sequence", last)) <= last:
            return
        data = answer["data"]
        if "resent" in data and int(data["resent"]["from"]) <= last + 1:
            # At most 100 come at a time.
            self._ask(channel, answer, "payment.resend", {"from": str(last + 1)})
        else:
            # Those that are missing are kept no more.
            self._ask(channel, answer, "payment.snapshot", {})

    def _ask(self, channel: Any, about: Event, kind: str, data: dict[str, Any]) -> None:
        # Named after what it is about and what it asks for: delivered again, an event asks the same again, or under
        # another name for what is still missing by then.
        name = "/".join([about["id"], kind, *data.values()])
        asked = command(kind, about["subject"], data, source=self._source, id=name)
        told = cast(dict[str, Any], about["data"])
        self._publish(channel, told["payment"]["variant"], asked)

    def _publish(self, channel: Any, variant: str, asked: Command) -> None:
        properties = properties_of(asked, self._user_id, self.replies)
        key = f"{variant}.{asked['type']}"
        channel.basic_publish(f"{self._prefix}.commands", key, json.dumps(asked), properties, mandatory=True)
