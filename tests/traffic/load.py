"""Requests without pause while something changes: what was answered, by whom, and what failed."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from tests.traffic.world import World

CALLERS = 3
REQUESTS_PER_CONNECTION = 20
ENOUGH = 60
"""Requests after each change, before the next."""


class Load:
    """Some callers of the front's application (or of another place), each on connections of its own."""

    def __init__(self, world: World, authority: str, **where: Any) -> None:
        self._world, self._authority, self._where = world, authority, where
        self.answers: Counter[str] = Counter()
        """By the application that answered, or by what failed."""
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._call, name=f"caller-{number}") for number in range(CALLERS)]

    @property
    def failed(self) -> dict[str, int]:
        return {what: count for what, count in self.answers.items() if what.startswith("failed")}

    def more(self, count: int = ENOUGH) -> None:
        """Wait for so many further requests."""
        wanted = self.answers.total() + count
        self._world.eventually(lambda: self.answers.total() >= wanted, f"{count} requests more")

    def _call(self) -> None:
        while not self._ending.is_set():
            connection = http.client.HTTPConnection(self._authority)
            try:
                connection.sock = self._world.connect(**self._where)
                for _ in range(REQUESTS_PER_CONNECTION):
                    connection.request("GET", "/")
                    answer = connection.getresponse()
                    body = answer.read()
                    name = json.loads(body)["app"] if answer.status == 200 else f"failed: {answer.status}"
                    self.answers[name] += 1
                    if answer.will_close or self._ending.is_set():
                        break
            except (OSError, http.client.HTTPException) as error:
                self.answers[f"failed: {type(error).__name__}"] += 1
            finally:
                connection.close()

    def __enter__(self) -> Load:
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for each in self._threads:
            each.join()


@contextlib.contextmanager
def load(world: World, authority: str = "orders", where: Mapping[str, Any] | None = None) -> Iterator[Load]:
    """Load from the front's application, which is answered before the context begins."""
    with Load(world, authority, **{"pod": "front", **(where or {})}) as running:
        running.more()
        yield running
