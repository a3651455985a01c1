"""The server: listens, holds the model, and hands each connection to a thread."""

from __future__ import annotations

import errno
import socket
import socketserver
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from typing import Any, Protocol

from ..errors import InputError
from ..inference import Picture, Prediction
from ..visualization.draw import class_color
from .access import Access, check_token, is_loopback, new_token, url_host
from .handler import Handler
from .turns import Turns
from .uploads import open_upload

__all__ = ["LOWEST_SCORE", "DetectionServer", "Limits", "Model", "listen"]

LOWEST_SCORE = 0.05
"""From this score detections are sent; the page shows fewer of them as its user wants."""

TOO_MANY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\n"
    b"Connection: close\r\n\r\n"
)


class Model(Protocol):
    """What the server needs of a :class:`~retinanet_ext.Predictor`."""

    @property
    def class_names(self) -> Sequence[str]:
        """Of the model, (K,)."""

    def __call__(self, source: Any, /) -> Prediction:
        """The detections of one picture."""


@dataclass(frozen=True)
class Limits:
    """What a client may ask for, so that none takes all of the memory or all of the time.

    Attributes:
        max_bytes: of an uploaded file.
        max_pixels: of a picture.
        most_waiting: pictures, besides the one that the model works on.
        most_connections: at once.
        head_seconds: until the head of a request is there; an idle connection is closed then.
        body_seconds: until a body is there, and as long as it takes at the slowest speed.
        slowest_bytes_per_second: of an upload.
        send_seconds: until an answer is taken.
        drain_seconds: that a refused upload may take to notice it.
    """

    max_bytes: int = 20_000_000
    max_pixels: int = 50_000_000
    most_waiting: int = 8
    most_connections: int = 128
    head_seconds: float = 15.0
    body_seconds: float = 15.0
    slowest_bytes_per_second: float = 50_000.0
    send_seconds: float = 30.0
    drain_seconds: float = 5.0


class DetectionServer(ThreadingHTTPServer):
    """Answers ``/`` (the page), ``/classes``, ``/health`` and ``POST /predict``.

    It listens from the start, so that a port in use is known before a model is loaded; requests
    wait until :meth:`use` gave it the model and ``serve_forever`` runs.

    Attributes:
        access: who may ask.
        limits: of what clients may ask.
        turns: of the requests for the model.
        about: what ``/classes`` answers.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        family: socket.AddressFamily,
        address: tuple[Any, ...],
        host: str,
        token: str = "",
        limits: Limits | None = None,
    ):
        """
        Args:
            family: of the address.
            address: to listen on, as of ``socket.getaddrinfo``.
            host: as the user named it.
            token: that requests must have; "" for none.
            limits: default: those of the class.
        """
        self.address_family = family
        self.limits = limits or Limits()
        self.turns = Turns(self.limits.most_waiting)
        self.about: dict[str, Any] = {}
        self._model: Model | None = None
        self._connections = threading.Semaphore(self.limits.most_connections)
        super().__init__(address[:2], Handler)
        port = int(self.server_address[1])
        self.access = Access(host, port, is_loopback(str(address[0])), token)

    def server_bind(self) -> None:
        """As of ``TCPServer``; that of ``HTTPServer`` asks the network for a name."""
        socketserver.TCPServer.server_bind(self)
        host, port = self.server_address[:2]
        self.server_name, self.server_port = str(host), int(port)

    def use(self, model: Model, name: str) -> None:
        """Answer with this model.

        Args:
            model: whose detections are sent, from ``LOWEST_SCORE``.
            name: of the model, for the page.
        """
        self._model = model
        self.about = {
            "model": name,
            "classes": [
                {"name": str(x), "color": "#{:02x}{:02x}{:02x}".format(*class_color(i))}
                for i, x in enumerate(model.class_names)
            ],
            "lowest_score": LOWEST_SCORE,
            "max_bytes": self.limits.max_bytes,
            "max_pixels": self.limits.max_pixels,
        }

    def predict(self, body: bytes) -> dict[str, Any]:
        """What is found in an uploaded file: a line of ``predictions.jsonl``.

        Args:
            body: the file.

        Raises:
            Refused: it is no picture that is taken.
        """
        with self.turns.turn():  # also decoding, whose pixels are the larger part of the memory
            assert self._model is not None
            image = open_upload(body, self.limits.max_pixels)
            found = self._model(Picture(image, name="the picture"))
        kept = found.above(LOWEST_SCORE)
        return kept.to_line(file=None)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for a connection, if there are not too many."""
        if not self._connections.acquire(blocking=False):
            request.settimeout(1.0)
            request.sendall(TOO_MANY)
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread, which would have released it
            self._connections.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer one connection until its end."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Show a bug's traceback; a client that is gone is none."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def listen(
    host: str = "127.0.0.1", port: int = 8000, token: str = "", limits: Limits | None = None
) -> DetectionServer:
    """A server that listens, but has no model yet.

    Args:
        host: name or address of this machine to listen on.
        port: 0 for any that is free.
        token: that requests must have. Where other machines reach the server, one is made if none
            is given: ``server.access.token``.
        limits: of what clients may ask.

    Raises:
        InputError: the address or the port cannot be used, the token is too weak.
    """
    if token:
        check_token(token)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, OverflowError) as error:
        raise InputError(f"--host is '{host}', which is no address of this machine") from error
    family, _, _, _, address = found[0]
    if not token and not is_loopback(str(address[0])):
        token = new_token()
    try:
        return DetectionServer(family, address, host, token, limits)
    except OSError as error:
        raise InputError(_why_not(error, host, port)) from error


def _why_not(error: OSError, host: str, port: int) -> str:
    where = f"{url_host(host)}:{port}"
    if error.errno == errno.EADDRINUSE:
        return f"{where} is in use by another program; choose another --port, or 0 for a free one"
    if error.errno == errno.EACCES:
        return f"{where} needs the rights of an administrator; choose a --port from 1024"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"--host is '{host}', which is no address of this machine; use 127.0.0.1 or 0.0.0.0"
    return f"cannot listen on {where}: {error.strerror or error}"
