"""A camera whose newest frame is taken, however slow the model is."""

from __future__ import annotations

import glob
import threading
import time
from collections.abc import Iterator
from functools import partial

import numpy as np

from ...errors import FileError, InputError, listed
from .video import Frame, import_cv2

__all__ = ["Camera"]

PATIENCE = 5.0
"""Seconds without a frame after which a camera is taken to be gone."""


class Camera:
    """A camera, open. A thread reads it, since OpenCV's buffer would show the past."""

    def __init__(self, name: str):
        """
        Args:
            name: ``webcam`` or ``webcam:NUMBER``.

        Raises:
            FileError: there is no such camera.
            InputError: the name is wrong.
            ImportError: OpenCV is missing.
        """
        number = name.partition(":")[2] or "0"
        if not number.isdigit():
            raise InputError(f"SOURCE is '{name}'; a camera is webcam or webcam:1 with its number")
        self._cv2 = import_cv2("a camera")
        self.name = name
        self.fps = 25.0
        self.count = 0
        self._capture = self._cv2.VideoCapture(int(number))
        if not self._capture.isOpened():
            there = sorted(glob.glob("/dev/video*"))
            known = f"there are {listed(there)}" if there else "there is no /dev/video*"
            raise FileError(f"SOURCE is '{name}', but that camera cannot be opened; {known}")
        self._newest: tuple[int, float, np.ndarray] | None = None
        self._ended = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._keep_newest, name="camera", daemon=True)

    def _keep_newest(self) -> None:
        start, number = time.monotonic(), 0
        while not self._ended:
            good, pixels = self._capture.read()
            with self._change:
                if not good:
                    self._ended = True
                else:
                    self._newest = number, time.monotonic() - start, pixels
                self._change.notify_all()
            number += 1

    def frames(
        self, every: int = 1, start: float | None = None, end: float | None = None
    ) -> Iterator[Frame]:
        """Each time the newest frame, with its number and the seconds since the first one.

        Args:
            every: leave out frames until so many have come since the last one.
            start, end: seconds; ``end`` ends it.
        """
        self._thread.start()
        last = -every
        while True:
            with self._change:
                self._change.wait_for(partial(self._has_news, last, every), PATIENCE)
                newest, ended = self._newest, self._ended
            if newest is None or newest[0] < last + every:
                if last < 0:
                    raise FileError(f"the camera '{self.name}' is open but gives no picture")
                if not ended:
                    raise FileError(f"the camera '{self.name}' gave no picture for {PATIENCE:g} s")
                return
            last, seconds, pixels = newest
            if end is not None and seconds >= end:
                return
            if start is None or seconds >= start:
                yield last, round(seconds, 3), partial(np.asarray, pixels)

    def _has_news(self, last: int, every: int) -> bool:
        return self._ended or (self._newest is not None and self._newest[0] >= last + every)

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *error: object) -> None:
        self._ended = True
        if self._thread.is_alive():
            self._thread.join(PATIENCE)
        self._capture.release()
