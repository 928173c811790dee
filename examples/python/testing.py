"""A worker of its own, for the tests of clients, and a way to lose messages. Of the environment: what ./check says."""

import json
import os
import random
import socket
import subprocess
import time
import urllib.request
from typing import Callable

import psycopg

AMQP, DATABASE, PAYBUS = (os.environ[name] for name in ("PAYBUS__AMQP__URL", "PAYBUS__DATABASE__URL", "PAYBUS"))


def wait_for(what: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited 30 s for {what}")
        time.sleep(0.05)


def create_database(name: str) -> None:
    with psycopg.connect(DATABASE, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")


class Lossy:
    """For a `Subscriber`: a third of all messages is lost, heartbeats and what was asked for too; and for a while all.

    By chance: were it each third, it could be the answer to the same page each time."""

    PATIENCE = 1.0

    def __init__(self, *arguments, **named) -> None:
        super().__init__(*arguments, **named)
        self.taken, self.loses_all = 0, False
        self.lost: list[dict] = []
        self.chance = random.Random(1)

    def lost_answers(self) -> set[str]:
        """The commands whose last event was lost, by their ids."""
        commands = [event["data"].get("command", {"final": False}) for event in list(self.lost)]
        return {command["id"] for command in commands if command["final"]}

    def _on_event(self, channel, method, properties, body) -> None:
        self.taken += 1
        if self.loses_all or self.chance.random() < 1 / 3:
            self.lost.append(json.loads(body))
            channel.basic_ack(method.delivery_tag)
        else:
            super()._on_event(channel, method, properties, body)


class Worker:
    """With a prefix and a database of this name, which is there."""

    def __init__(self, name: str) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            listen = f"127.0.0.1:{taken.getsockname()[1]}"
        environment = os.environ | {
            "PAYBUS__AMQP__PREFIX": name,
            "PAYBUS__DATABASE__URL": f"{DATABASE.rsplit('/', 1)[0]}/{name}",
            "PAYBUS__HTTP__LISTEN": listen,
            "PAYBUS__WORKER__HEARTBEAT": "300ms",
        }
        subprocess.run([PAYBUS, "migrate"], env=environment, check=True, stdout=subprocess.DEVNULL)
        self._process = subprocess.Popen([PAYBUS, "worker"], env=environment, stderr=subprocess.DEVNULL)

        def ready() -> bool:
            try:
                return urllib.request.urlopen(f"http://{listen}/readyz").status == 200
            except OSError:
                return False

        wait_for("the worker", ready)

    def end(self) -> None:
        self._process.terminate()
        assert self._process.wait(30) == 0
