"""A video of drawn pictures that browsers play."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from PIL import Image

from ...errors import FileError, InputError
from ..sources.video import import_cv2

__all__ = ["Clip", "check_clip"]

SUFFIX = ".webm"


def check_clip(path: str) -> None:
    """Check the name of a clip.

    Raises:
        InputError: it ends otherwise.
    """
    if not path.lower().endswith(SUFFIX):
        raise InputError(
            f"--video-out is '{path}'; end it in {SUFFIX}, for OpenCV writes no mp4 that a browser "
            "plays"
        )


class Clip:
    """A webm file (VP8), open at its first frame and complete when closed."""

    def __init__(self, path: str, fps: float):
        """
        Args:
            path: of the file; its folder is made.
            fps: frames per second, such as 30000 / 1001.
        """
        check_clip(path)
        self._cv2 = import_cv2("--video-out")
        self.path = path
        self.fps = fps
        self.num_frames = 0
        self._writer: Any = None
        self._size = (0, 0)

    def add(self, picture: Image.Image) -> None:
        """Append a frame; VP8 takes even sides, so the last row or column of odd ones is repeated.

        Raises:
            FileError: OpenCV cannot write the file.
        """
        pixels = np.asarray(picture)[:, :, ::-1]
        height, width = pixels.shape[:2]
        pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._writer is None:
            os.makedirs(os.path.dirname(self.path) or ".", exist_ok=True)
            self._size = (pixels.shape[1], pixels.shape[0])
            code = self._cv2.VideoWriter_fourcc(*"VP80")
            self._writer = self._cv2.VideoWriter(self.path, code, self.fps, self._size)
            if not self._writer.isOpened():
                raise FileError(
                    f"--video-out is '{self.path}', which this OpenCV cannot write (VP8 in webm)"
                )
        elif (pixels.shape[1], pixels.shape[0]) != self._size:
            resized = Image.fromarray(pixels[:, :, ::-1]).resize(self._size)
            pixels = np.asarray(resized)[:, :, ::-1]
        self._writer.write(np.ascontiguousarray(pixels))
        self.num_frames += 1

    def close(self) -> None:
        """Complete the file."""
        if self._writer is not None:
            self._writer.release()
            self._writer = None
