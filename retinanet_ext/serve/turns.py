"""One picture at a time, and a short queue before it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from .answers import Refused

__all__ = ["Turns"]


class Turns:
    """The model works for one request, and at most so many others wait.

    A place is taken before the picture is received, so that the places also bound the memory.
    """

    def __init__(self, most_waiting: int):
        """
        Args:
            most_waiting: requests besides the one that the model works for.
        """
        self._most = most_waiting + 1
        self._taken = 0
        self._changed = threading.Condition()
        self._model = threading.Lock()

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place in the queue.

        Raises:
            Refused: 429, all of them are taken.
        """
        with self._changed:
            if self._taken >= self._most:
                raise Refused(
                    HTTPStatus.TOO_MANY_REQUESTS,
                    f"the server is busy: {self._most - 1} pictures wait already; try again in a "
                    "moment",
                    {"Retry-After": "1"},
                )
            self._taken += 1
        try:
            yield
        finally:
            with self._changed:
                self._taken -= 1
                self._changed.notify_all()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Be the one that the model works for; waits until it is free."""
        with self._model:
            yield

    def wait_until_idle(self, seconds: float) -> bool:
        """Wait until no place is taken, at most so long; return whether none is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._taken, seconds)
