"""Whether what the checkout and fulfilment know is what paybus has stored."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

Row = dict[str, Any]


@dataclass
class Facts:
    payments: int = 0
    answers: int = 0
    events: int = 0
    shipped: int = 0
    findings: list[str] = field(default_factory=list)


def compare(journal: list[Row], stored: list[Row], table: list[sqlite3.Row], shipments: list[sqlite3.Row]) -> Facts:
    """The checkout's journal, paybus's payments as they are exported, and fulfilment's two tables."""
    payments = {row["payment"]["id"]: row["payment"] for row in stored}
    events = {row["payment"]["id"]: [json.loads(event["body"]) for event in row["events"]] for row in stored}
    orders = [line for line in journal if "order" in line]
    answers = {line["answered"]: line["event"] for line in journal if "answered" in line}
    commands = {line["command"]["id"] for line in journal if "command" in line}
    findings = [
        *_answers(commands, answers, [event for one in events.values() for event in one]),
        *_ends(orders, payments),
        *_table(payments, events, table),
        *_shipments(orders, events, shipments),
    ]
    return Facts(len(payments), len(answers), sum(map(len, events.values())), len(shipments), findings)


def _answers(commands: set[str], answers: dict[str, Row], events: list[Row]) -> list[str]:
    """Each command has one final answer, and the checkout has that one, to the last member."""
    final = [event for event in events if _asked(event).get("source") == "shop/checkout" and _asked(event)["final"]]
    told = {_asked(event)["id"]: event for event in final}
    twice = [id for id, times in Counter(_asked(event)["id"] for event in final).items() if times > 1]
    return [
        *(f"{id} is not answered" for id in commands - answers.keys()),
        *(f"{id} is answered and was never asked" for id in answers.keys() - commands),
        *(f"{id} was answered twice" for id in twice),
        *(
            f"{id}: the checkout has {answers.get(id)}, paybus {told.get(id)}"
            for id in sorted(answers.keys() | told.keys())
            if answers.get(id) != told.get(id)
        ),
    ]


def _asked(event: Row) -> Row:
    return event["data"].get("command") or {}


def _ends(orders: list[Row], payments: dict[str, Row]) -> list[str]:
    """Each payment ended as docs/dummy.md says of what its customer did."""
    findings = []
    for order in orders:
        payment = payments.get(order["payment"], {"status": "absent", "captured_amount": "0"})
        end = payment["status"], Decimal(payment["captured_amount"])
        if end != (order["status"], Decimal(order["captured"])):
            findings.append(f"order {order['order']} ({order['plan']}) ended as {end[0]} {end[1]} and not as {order}")
    return findings


def _table(payments: dict[str, Row], events: dict[str, list[Row]], table: list[sqlite3.Row]) -> list[str]:
    """Fulfilment's table is paybus's own."""
    known = {row["id"]: _facts(row) for row in table}
    findings = []
    for id, payment in payments.items():
        last = [event for event in events[id] if "sequence" in event][-1]
        told = last["data"]["payment"]
        # The amounts and the status by what is stored, the rest by the last event.
        stored = told | {name: payment[name] for name in ("status", "captured_amount", "refunded_amount", "total")}
        facts = _facts(stored | {"sequence": last["sequence"]})
        if known.get(id) != facts:
            findings.append(f"payment {id}: fulfilment has {known.get(id)}, paybus {facts}")
    return findings + [f"payment {id} is known to fulfilment alone" for id in known.keys() - payments.keys()]


def _facts(row: Any) -> tuple[Any, ...]:
    amounts = (Decimal(row[name]) for name in ("total", "captured_amount", "refunded_amount"))
    return row["status"], row["fraud_status"], row["currency"], *amounts, bool(row["paid_in_full"]), int(row["sequence"])


def _shipments(orders: list[Row], events: dict[str, list[Row]], shipments: list[sqlite3.Row]) -> list[str]:
    """An order goes out once, by an event that says that it is paid in full; and each that was ever paid so goes out."""
    numbers = {order["payment"]: order["order"] for order in orders}
    paid = {id: {event["id"] for event in told if _is_paid(event)} for id, told in events.items()}
    times = Counter(row["order_number"] for row in shipments)
    return [
        *(f"order {number} was shipped {count} times" for number, count in times.items() if count > 1),
        *(
            f"order {row['order_number']} was shipped and not paid in full"
            for row in shipments
            if row["event"] not in paid.get(row["payment"], ()) or numbers.get(row["payment"]) != row["order_number"]
        ),
        *(
            f"order {numbers.get(id)} is paid in full and was not shipped"
            for id, by in paid.items()
            if by and numbers.get(id) not in times
        ),
    ]


def _is_paid(event: Row) -> bool:
    return bool((event["data"].get("payment") or {}).get("paid_in_full"))
