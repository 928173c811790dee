"""Fulfilment: follows the payments in a table of its own, and ships each order once, when it is paid in full."""

from __future__ import annotations

import os
import signal
import sqlite3
from typing import Any, cast

from paybus_client import Seen, Subscriber
from paybus_contract import Event

SCHEMA = """
CREATE TABLE IF NOT EXISTS payments (
    id TEXT PRIMARY KEY, order_number TEXT NOT NULL, status TEXT NOT NULL, fraud_status TEXT NOT NULL,
    total TEXT NOT NULL, currency TEXT NOT NULL, captured_amount TEXT NOT NULL, refunded_amount TEXT NOT NULL,
    paid_in_full INTEGER NOT NULL, shipped INTEGER NOT NULL DEFAULT 0, sequence INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS events (id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS positions (variant TEXT PRIMARY KEY, position INTEGER NOT NULL);
-- Of events that were applied, behind that position.
CREATE TABLE IF NOT EXISTS seen (position INTEGER PRIMARY KEY, variant TEXT NOT NULL);
-- What the warehouse is told. No key keeps an order from being shipped twice: so the check sees whether one is.
CREATE TABLE IF NOT EXISTS shipments (order_number TEXT NOT NULL, payment TEXT NOT NULL, event TEXT NOT NULL);
"""

# A snapshot or an event stands for all that was before it.
UPSERT = """
INSERT INTO payments (id, order_number, status, fraud_status, total, currency, captured_amount, refunded_amount,
    paid_in_full, sequence)
VALUES (:id, :order, :status, :fraud_status, :total, :currency, :captured_amount, :refunded_amount, :paid_in_full,
    :sequence)
ON CONFLICT (id) DO UPDATE SET status = excluded.status, fraud_status = excluded.fraud_status,
    captured_amount = excluded.captured_amount, refunded_amount = excluded.refunded_amount,
    paid_in_full = excluded.paid_in_full, sequence = excluded.sequence
"""


class Books(Seen):
    """The table: what a subscriber stores, how far it is, and what it has seen behind that."""

    def __init__(self, path: str) -> None:
        self._database = sqlite3.connect(path, timeout=30)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.executescript(SCHEMA)

    def transaction(self) -> sqlite3.Connection:
        """To be entered: what an event changes and its position are stored together."""
        return self._database

    def last(self, payment: str) -> int:
        row = self._database.execute("SELECT sequence FROM payments WHERE id = ?", (payment,)).fetchone()
        return int(row[0]) if row else 0

    def apply(self, event: Event, number: int | None) -> None:
        known = self._database.execute("INSERT OR IGNORE INTO events VALUES (?)", (event["id"],)).rowcount == 0
        if known or number is None:
            return  # What was rejected or failed has changed no payment.
        payment = cast(dict[str, Any], event["data"])["payment"]
        self._database.execute(UPSERT, payment | {"order": payment["metadata"]["order"], "sequence": number})
        if payment["paid_in_full"]:
            self._ship(payment, event["id"])

    def _ship(self, payment: dict[str, Any], event: str) -> None:
        """Once: later events may say `paid_in_full` again, or no more."""
        first = self._database.execute("UPDATE payments SET shipped = 1 WHERE id = ? AND NOT shipped", (payment["id"],))
        if first.rowcount == 1:
            shipment = (payment["metadata"]["order"], payment["id"], event)
            self._database.execute("INSERT INTO shipments VALUES (?, ?, ?)", shipment)

    def position(self, variant: str) -> int:
        row = self._database.execute("SELECT position FROM positions WHERE variant = ?", (variant,)).fetchone()
        return int(row[0]) if row else 0

    def reached(self, variant: str, position: int) -> None:
        with self._database:
            self._database.execute("INSERT OR REPLACE INTO positions VALUES (?, ?)", (variant, position))

    def add(self, variant: str, position: int) -> None:
        self._database.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (position, variant))

    def count(self, variant: str, after: int, to: int) -> int:
        sql = "SELECT count(*) FROM seen WHERE variant = ? AND position > ? AND position <= ?"
        return int(self._database.execute(sql, (variant, after, to)).fetchone()[0])

    def drop(self, variant: str, to: int) -> None:
        with self._database:
            self._database.execute("DELETE FROM seen WHERE variant = ? AND position <= ?", (variant, to))


def follow(kind: type[Subscriber] = Subscriber) -> None:
    """With what the environment says, until SIGTERM."""
    url, prefix, books = os.environ["SHOP_AMQP_URL"], os.environ["SHOP_PREFIX"], Books(os.environ["SHOP_BOOKS"])
    subscriber = kind(
        url, f"{prefix}.fulfilment", books, prefix=prefix, positions=books, seen=books, transaction=books.transaction
    )
    signal.signal(signal.SIGTERM, lambda *_: subscriber.stop())
    subscriber.run()


if __name__ == "__main__":
    follow()
