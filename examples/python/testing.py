"""A worker of its own, for the tests of clients. Of the environment: what ./check says."""

import os
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
