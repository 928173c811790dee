"""Fulfilment as the check runs it: throws away a third of what comes, unread, and everything while it has a bad day."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

from fulfilment import follow
from paybus_client import Subscriber


class Careless(Subscriber):
    PATIENCE = 1.0

    _chance = random.Random()
    _bad_day = Path(os.environ["SHOP_BAD_DAY"])
    _lost = open(os.environ["SHOP_LOST"], "a")

    def _on_event(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        # By chance: were it each third, it could be the answer to the same page each time.
        is_bad_day = self._bad_day.exists()
        if not is_bad_day and self._chance.random() >= 1 / 3:
            return super()._on_event(channel, method, properties, body)
        event = json.loads(body)
        line = {"type": event["type"], "id": event["id"], "time": event["time"], "bad_day": is_bad_day}
        print(json.dumps(line), file=self._lost, flush=True)
        channel.basic_ack(method.delivery_tag)


if __name__ == "__main__":
    follow(Careless)
