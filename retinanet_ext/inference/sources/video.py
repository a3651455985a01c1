"""Frames of a video file by OpenCV, with the time that each has in the file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ...errors import FileError, InputError, MissingPackageError

__all__ = ["Frame", "Video", "import_cv2", "seconds_of"]

Frame = tuple[int, float, Callable[[], np.ndarray]]
"""Number from 0, time in seconds, and what gives its pixels: (H, W, 3) uint8 BGR."""

Pixels = np.ndarray

SPARE_FRAMES, SPARE_SHARE = 2, 0.05
"""A file's own account of its frames is an estimate: it may be by so many, or so much, too high."""


def import_cv2(what: str) -> Any:
    """The module cv2.

    Raises:
        ImportError: it is missing; ``what`` begins the sentence.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingPackageError(
            f"{what} needs OpenCV: pip install opencv-python-headless"
        ) from error
    return cv2


def seconds_of(text: str) -> float:
    """``90``, ``1:30``, ``0:01:30.5`` in seconds.

    Raises:
        InputError: it is none of these.
    """
    if not re.fullmatch(r"(\d+:){0,2}\d+(\.\d*)?", text):
        raise InputError(f"'{text}' is no time; write seconds, minutes:seconds or h:mm:ss")
    seconds = 0.0
    for part in text.split(":"):
        seconds = seconds * 60 + float(part)
    return seconds


class Video:
    """A video file, open."""

    def __init__(self, path: str):
        """
        Raises:
            FileError: it cannot be opened.
            ImportError: OpenCV is missing.
        """
        self._cv2 = import_cv2(f"reading the video '{path}'")
        self.path = path
        self.cut_off = ""  # a sentence, once frames() has ended long before the file's own account
        self._capture = self._cv2.VideoCapture(path)
        if not self._capture.isOpened():
            raise FileError(
                f"'{path}' cannot be opened as a video; it is damaged or of no known kind"
            )

    @property
    def fps(self) -> float:
        """Frames per second as the file says; 25 where it does not."""
        return float(self._capture.get(self._cv2.CAP_PROP_FPS)) or 25.0

    @property
    def count(self) -> int:
        """Number of frames as the file says, which is an estimate; 0 where it does not."""
        return max(0, int(self._capture.get(self._cv2.CAP_PROP_FRAME_COUNT)))

    def frames(
        self, every: int = 1, start: float | None = None, end: float | None = None
    ) -> Iterator[Frame]:
        """Frames from ``start`` to before ``end`` (seconds), each ``every``-th of them.

        Times are those of the file, also where frames have unequal distances.

        Raises:
            InputError: there is no such frame.
        """
        number, taken, ended = -1, 0, False
        capture, at = self._capture, self._cv2.CAP_PROP_POS_MSEC
        while capture.grab():  # in order: seeking is inexact in many files
            number += 1
            seconds = float(capture.get(at)) / 1e3
            if start is not None and seconds < start:
                continue
            if end is not None and seconds >= end:
                ended = True
                break
            taken += 1
            if (taken - 1) % every == 0:
                yield number, round(seconds, 3), self._pixels
        if number < 0:
            raise InputError(f"'{self.path}' is a video without a frame that can be read")
        announced = 0 if ended else self.count
        if announced - number - 1 > max(SPARE_FRAMES, SPARE_SHARE * announced):
            self.cut_off = (
                f"'{self.path}' ends after {number + 1} of the {announced} frames that it "
                "announces; it may have been cut off"
            )
        if not taken:
            raise InputError(
                f"'{self.path}' has no frame from --start to --end; it has {number + 1} frames, "
                f"the last one at {seconds:.2f} s"
            )

    def _pixels(self) -> np.ndarray:
        good, pixels = self._capture.retrieve()
        if not good:
            raise InputError(f"'{self.path}' has a frame that cannot be decoded")
        return pixels

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *error: object) -> None:
        self._capture.release()
