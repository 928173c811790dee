"""A day of the shop: two workers, the checkout and fulfilment, killed again and again; then all books are compared.

    python day.py CHECKOUT DIRECTORY

CHECKOUT is the compiled program; DIRECTORY is made, and keeps what all of them wrote. ./check says what the environment
needs."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Iterator

import pika
import verdict
from testing import AMQP, DATABASE, PAYBUS, create_database, wait_for

ORDERS = max(20, int(os.environ.get("SHOP_ORDERS", "300")))
SECONDS = max(12.0, ORDERS / 8)
"""Over how long the orders come in."""
PAUSE = 1.5
"""Between two troubles."""
CLOSING = SECONDS + 45
"""When the last order must be settled."""
PATIENCE = 45.0
"""How long fulfilment may take to get whole: pages of 100 events, a third of each lost at every try."""
LAST = max(3, ORDERS // 20)
"""So many orders come in while fulfilment has a bad day."""
PREFIX = f"shop{uuid.uuid4().hex[:10]}"
VARIANT = "cards"
HERE = Path(__file__).parent

# Short times, so that a day is a minute: what a killed worker left is taken over after `timeout` and `lease_margin`.
SETTINGS = """
[variants.cards]
gateway = "dummy"
timeout = "2s"
[variants.cards.retry]
delayed = ["200ms", "500ms", "1s", "1s", "2s", "2s", "5s"]
[worker]
lease_margin = "1s"
poll = "200ms"
heartbeat = "300ms"
"""


class Failure(Exception):
    """The day cannot go on."""


class Program:
    """One that is killed and started again."""

    def __init__(self, name: str, log: Path, environment: dict[str, str], *command: str) -> None:
        self.name, self.kills = name, 0
        self._command, self._environment, self.log = command, environment, log / f"{name}.log"
        self.start()

    def start(self) -> None:
        with open(self.log, "a") as log:
            self._process = subprocess.Popen(self._command, env=os.environ | self._environment, stdout=log, stderr=log)

    def code(self) -> int | None:
        return self._process.poll()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def die_and_come_back(self) -> None:
        if self.code() is None:  # Not one that has just ended by itself.
            self.kill()
            self.kills += 1
            self.start()

    def end(self) -> None:
        self._process.terminate()
        if (code := self._process.wait(40)) != 0:
            raise Failure(f"{self.name} ended with {code}")


class Replica(Program):
    def __init__(self, number: int, directory: Path, environment: dict[str, str]) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self._listen = f"127.0.0.1:{taken.getsockname()[1]}"
        listen = {"PAYBUS__HTTP__LISTEN": self._listen}
        super().__init__(f"replica-{number}", directory, environment | listen, PAYBUS, "worker")

    def is_ready(self) -> bool:
        try:
            return bool(urllib.request.urlopen(f"http://{self._listen}/readyz").status == 200)
        except OSError:
            return False


class Day:
    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        self.directory, self.deleted = directory, 0
        self.programs: list[Program] = []
        self.journal, self.lost = directory / "journal.jsonl", directory / "lost.jsonl"
        self.books, self.export = directory / "books.sqlite", directory / "export.jsonl"
        self.bad_day = directory / "bad-day"
        (directory / "paybus.toml").write_text(SETTINGS)
        self.worker = {
            "PAYBUS_CONFIG": str(directory / "paybus.toml"),
            "PAYBUS__AMQP__PREFIX": PREFIX,
            "PAYBUS__DATABASE__URL": f"{DATABASE.rsplit('/', 1)[0]}/{PREFIX}",
        }
        self.shop = {
            "SHOP_AMQP_URL": AMQP,
            "SHOP_PREFIX": PREFIX,
            "SHOP_ORDERS": str(ORDERS),
            "SHOP_SECONDS": str(SECONDS),
            "SHOP_JOURNAL": str(self.journal),
            "SHOP_BOOKS": str(self.books),
            "SHOP_BAD_DAY": str(self.bad_day),
            "SHOP_LOST": str(self.lost),
        }

    def open(self, checkout: str) -> None:
        """Starts everything."""
        create_database(PREFIX)
        subprocess.run([PAYBUS, "migrate"], env=os.environ | self.worker, check=True, stdout=subprocess.DEVNULL)
        self.replicas = [Replica(number, self.directory, self.worker) for number in (1, 2)]
        self.programs += self.replicas
        careless = str(HERE / "fulfilment" / "careless.py")
        self.fulfilment = Program("fulfilment", self.directory, self.shop, sys.executable, "-B", careless)
        self.programs.append(self.fulfilment)
        wait_for("the workers", lambda: all(replica.is_ready() for replica in self.replicas))
        self.opened = time.monotonic()
        self.checkout = Program("checkout", self.directory, self.shop, "node", checkout)
        self.programs.append(self.checkout)

    # --- While it is open ---

    def run(self) -> float:
        """Until fulfilment is whole; how long that took after it had lost the last events, in seconds."""
        troubles = self._troubles()
        due = time.monotonic() + PAUSE
        while (code := self.checkout.code()) is None:
            if time.monotonic() - self.opened > CLOSING:
                raise Failure(f"of {self._count('command')} commands {self._count('answered')} are answered, and no more")
            if any(program.code() is not None for program in (*self.replicas, self.fulfilment)):
                raise Failure("a program ended that nobody killed")
            if not self.bad_day.exists() and self._count("order") >= ORDERS - LAST:
                # Whatever is told of the last orders is lost: no later event shows that there is a gap.
                self.bad_day.touch()
            if time.monotonic() >= due:
                next(troubles)
                due = time.monotonic() + PAUSE
            time.sleep(0.1)
        if code != 0:
            raise Failure(f"the checkout ended with {code}")
        return self._get_whole()

    def _troubles(self) -> Iterator[None]:
        every = [*(program.die_and_come_back for program in self.programs), self._delete_queue]
        while True:
            random.shuffle(every)
            for trouble in every:
                yield trouble()

    def _delete_queue(self) -> None:
        if self.bad_day.exists():
            return  # What is told of the last orders is to be thrown away by fulfilment.
        with pika.BlockingConnection(pika.URLParameters(AMQP)) as connection:
            connection.channel().queue_delete(f"{PREFIX}.fulfilment.events")
        self.deleted += 1

    def _get_whole(self) -> float:
        ended = datetime.now(UTC)
        # They came before a heartbeat that came after them.
        wait_for("the last events to be thrown away", lambda: any(_is_late(line, ended) for line in lines(self.lost)))
        self.bad_day.unlink()
        good_again = time.monotonic()
        target = self._heartbeat(after=ended + timedelta(seconds=1))
        while self._position() < target:
            if time.monotonic() - good_again > PATIENCE:
                raise Failure(f"fulfilment is at {self._position()} of {target} after {PATIENCE} s")
            time.sleep(0.1)
        return time.monotonic() - good_again

    def _heartbeat(self, after: datetime) -> int:
        """Up to which position there are events, by a heartbeat of after this time."""
        with pika.BlockingConnection(pika.URLParameters(AMQP)) as connection:
            channel = connection.channel()
            queue = channel.queue_declare("", exclusive=True).method.queue
            channel.queue_bind(queue, f"{PREFIX}.heartbeats", f"{VARIANT}.paybus.heartbeat")
            for _, _, body in channel.consume(queue, auto_ack=True, inactivity_timeout=20):
                if body is None:
                    break
                if _is_late(heartbeat := json.loads(body), after):
                    return int(heartbeat["data"]["to"])
        raise Failure("no heartbeat comes")

    def _position(self) -> int:
        rows = self.read("SELECT position FROM positions WHERE variant = ?", VARIANT)
        return int(rows[0]["position"]) if rows else 0

    def _count(self, what: str) -> int:
        return self.journal.read_text().count(f'\n{{"{what}":') if self.journal.exists() else 0

    def end(self) -> None:
        for program in (self.fulfilment, *self.replicas):
            program.end()

    def kill(self) -> None:
        for program in self.programs:
            program.kill()

    # --- What everybody wrote ---

    def read(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        """Of fulfilment's table."""
        database = sqlite3.connect(self.books, timeout=30)
        try:
            database.row_factory = sqlite3.Row
            return database.execute(sql, values).fetchall()
        finally:
            database.close()

    def stored(self) -> list[dict[str, Any]]:
        """Paybus's own payments, each with its events in their order."""
        with open(self.export, "w") as export:
            subprocess.run([PAYBUS, "export"], env=os.environ | self.worker, check=True, stdout=export)
        return lines(self.export)


def _is_late(message: dict[str, Any], after: datetime) -> bool:
    return bool(message["type"] == "paybus.heartbeat" and datetime.fromisoformat(message["time"]) > after)


def lines(path: Path) -> list[dict[str, Any]]:
    """Of a file that somebody may be writing."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].split("\n") if line]


def figures(day: Day, facts: verdict.Facts, whole: float, seconds: float) -> str:
    journal, lost = lines(day.journal), lines(day.lost)
    again = sum("again" in line for line in journal)
    events = [line for line in lost if line["type"] != "paybus.heartbeat"]
    kills = [f"{program.name} {program.kills}" for program in day.programs]
    return (
        f"{facts.payments} payments, {facts.answers} commands answered, sent again {again} times; "
        f"{facts.events} events, thrown away {len(events)} times, the last ones too; killed: {', '.join(kills)}; "
        f"queue deleted {day.deleted}; {facts.shipped} orders shipped; whole {whole:.1f} s after the last was lost; "
        f"{seconds:.0f} s"
    )


def main(checkout: str, directory: Path) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    day = Day(directory)
    try:
        day.open(checkout)
        whole = day.run()
        day.end()
    except (Failure, AssertionError) as failure:
        for program in day.programs:
            print(f"--- {program.log}", *program.log.read_text().splitlines()[-15:], sep="\n")
        print(f"failed: {failure}; all is in {directory}")
        return 1
    finally:
        day.kill()
    table, shipments = day.read("SELECT * FROM payments"), day.read("SELECT * FROM shipments")
    facts = verdict.compare(lines(day.journal), day.stored(), table, shipments)
    if facts.payments != ORDERS:
        facts.findings.append(f"{facts.payments} of {ORDERS} orders have a payment")
    if not any(line["bad_day"] and line["type"] != "paybus.heartbeat" for line in lines(day.lost)):
        facts.findings.append("none of the last events was thrown away")
    if 0 in [day.deleted, *(program.kills for program in day.programs)]:
        facts.findings.append("a kind of trouble did not happen")
    print(figures(day, facts, whole, time.monotonic() - day.opened))
    for finding in facts.findings:
        print(f"wrong: {finding}")
    return 1 if facts.findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
