"""A window that shows drawn pictures, where there is a display."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import numpy as np
from PIL import Image

from ...errors import FileError, MissingPackageError
from ..sources.video import import_cv2

__all__ = ["open_window"]

TITLE = "retinanet-ext predict"
NO_DISPLAY = "--show needs a display, and there is none here; --draw or --video-out write files"


def open_window(wait: bool) -> Callable[[Image.Image], bool]:
    """Open it; what is returned shows a picture, and says whether to continue.

    Args:
        wait: for a key after each picture; q or Esc end it.

    Raises:
        FileError: there is no display.
        ImportError: OpenCV is missing, or has no windows.
    """
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        raise FileError(NO_DISPLAY)
    cv2 = import_cv2("--show")
    try:
        cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL)
    except cv2.error as error:  # of the build without windows, and where the display is no display
        raise MissingPackageError(
            "--show needs an OpenCV with windows: pip uninstall opencv-python-headless, then pip "
            "install opencv-python"
        ) from error

    def show(picture: Image.Image) -> bool:
        cv2.imshow(TITLE, np.ascontiguousarray(np.asarray(picture)[:, :, ::-1]))
        return cv2.waitKey(0 if wait else 1) & 0xFF not in (ord("q"), 27)

    return show
