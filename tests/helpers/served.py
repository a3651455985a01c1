"""A server with a model of known detections, and requests to it over real sockets."""

from __future__ import annotations

import http.client
import io
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from PIL import Image, ImageOps

from retinanet_ext.inference import Prediction
from retinanet_ext.serve import DetectionServer, Limits, listen

PNG = {"Content-Type": "image/png"}
QUICK = Limits(head_seconds=5, body_seconds=5, send_seconds=5, drain_seconds=1)


class StubModel:
    """Finds the same in every picture: one detection of each class, in a row."""

    def __init__(
        self,
        class_names: Sequence[str] = ("cat", "dog", "bird"),
        scores: Sequence[float] = (0.9, 0.6, 0.3),
        seconds: float = 0.0,
        waits_for: threading.Event | None = None,
    ):
        """
        Args:
            class_names: of the model.
            scores: of the detections, one of each class from the first.
            seconds: that each picture takes.
            waits_for: before it answers.
        """
        self.class_names = class_names
        self.scores = scores
        self.seconds = seconds
        self.waits_for = waits_for
        self.most_at_once = 0
        self.num_calls = 0
        self._at_once = 0

    def __call__(self, source: Any, /) -> Prediction:
        self.num_calls += 1
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        time.sleep(self.seconds)
        if self.waits_for is not None:
            assert self.waits_for.wait(20)
        pixels = np.asarray(ImageOps.exif_transpose(source.source).convert("RGB"))
        height, width = pixels.shape[:2]
        step = width / len(self.class_names)
        boxes = [[i * step, height * 0.2, (i + 0.8) * step, height * 0.9] for i in range(99)]
        found = Instances((height, width))
        found.pred_boxes = Boxes(torch.tensor(boxes[: len(self.scores)]).reshape(-1, 4))
        found.scores = torch.tensor(self.scores)
        found.pred_classes = torch.arange(len(self.scores))
        self._at_once -= 1
        times = {"read": 0.1, "model": 12.3}
        return Prediction(source.label, 0, found, self.class_names, pixels, milliseconds=times)


@contextmanager
def serving(
    model: Any = None, limits: Limits = QUICK, host: str = "127.0.0.1", token: str = ""
) -> Iterator[DetectionServer]:
    """A server that runs in a thread, on a free port."""
    with listen(host, 0, token, limits) as server:
        server.use(model or StubModel(), "stub")
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def picture(width: int = 60, height: int = 40, format: str = "PNG", **options: Any) -> bytes:
    """A file of a picture of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(file, format, **options)
    return file.getvalue()


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return self.json["error"]


def request(
    server: DetectionServer,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """Ask once, on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", server.access.port, timeout=20)
    try:
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        return Reply(response.status, response.read(), dict(response.getheaders()))
    finally:
        connection.close()


def post(server: DetectionServer, body: bytes, headers: Mapping[str, str] | None = None) -> Reply:
    """Ask what is found in a file."""
    return request(server, "POST", "/predict", body, PNG | dict(headers or {}))


def raw(server: DetectionServer, data: bytes, ends: bool = True) -> bytes:
    """Send these bytes, and return all that comes back until the server closes.

    Args:
        server: to send to.
        data: of the request.
        ends: whether to say that nothing follows.
    """
    with socket.create_connection(("127.0.0.1", server.access.port), timeout=20) as connection:
        connection.sendall(data)
        if ends:
            connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def head(server: DetectionServer, *lines: str, first: str = "POST /predict HTTP/1.1") -> bytes:
    """The head of a request, with the right Host."""
    host = f"Host: 127.0.0.1:{server.access.port}"
    return "\r\n".join([first, host, *lines, "", ""]).encode()
