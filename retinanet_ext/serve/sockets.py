"""Reading from a client that may be slow, silent, or gone."""

from __future__ import annotations

import io
import socket
import time
from typing import Any

__all__ = ["DeadlineReader", "close_gently"]

CHUNK = 1 << 16


class DeadlineReader(io.RawIOBase):
    """The bytes of a connection, until a deadline.

    A socket's own timeout is for one call: a client that sends a byte now and then never meets it.
    """

    def __init__(self, connection: socket.socket):
        """
        Args:
            connection: whose timeout is set by each read.
        """
        self._connection = connection
        self._deadline = time.monotonic()

    def allow(self, seconds: float) -> None:
        """Reads end at the latest ``seconds`` from now."""
        self._deadline = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """As of ``io.RawIOBase``.

        Raises:
            TimeoutError: nothing came before the deadline.
        """
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the client is too slow")
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)


def close_gently(connection: socket.socket, most_bytes: int, seconds: float) -> None:
    """Say that no more is sent, and read on for a while what the client has under way.

    A connection that is closed while unread bytes lie in it is reset, and the client loses the
    answer that says why its upload was refused.

    Args:
        connection: is left for the caller to close.
        most_bytes: that are read.
        seconds: it takes at most.
    """
    end = time.monotonic() + seconds
    try:
        connection.shutdown(socket.SHUT_WR)
        while most_bytes > 0 and (left := end - time.monotonic()) > 0:
            connection.settimeout(left)
            got = len(connection.recv(CHUNK))
            if not got:
                return
            most_bytes -= got
    except OSError:  # gone, or too slow: either way there is nobody to tell
        return
