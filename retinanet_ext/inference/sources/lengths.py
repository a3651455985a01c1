"""How many pictures sources hold, and how fast a video runs, as far as that can be known."""

from __future__ import annotations

import contextlib
import math

from ...errors import FileError
from .files import Listing
from .items import VideoOptions
from .video import Video

__all__ = ["CAMERA_FPS", "expected_count", "frame_rate"]

CAMERA_FPS = 10.0
"""Of a clip of a camera, whose frames are taken as fast as the model computes."""


def expected_count(listing: Listing, video: VideoOptions) -> int | None:
    """Pictures there will be, of a video by its own account; None where that is not known."""
    if listing.rest is not None or listing.is_live:
        return None
    if listing.only_pictures:
        return len(listing.entries)
    if len(listing.entries) > 1:
        return None
    with contextlib.suppress(FileError), Video(listing.entries[0].path) as opened:
        duration = opened.count / opened.fps
        start = min(video.start or 0.0, duration)
        end = duration if video.end is None else min(video.end, duration)
        return math.ceil((end - start) * opened.fps / video.every) or None
    return None


def frame_rate(listing: Listing, every: int) -> float:
    """Frames per second of a clip of the only source, so that it lasts as long.

    Args:
        listing: a video or a camera.
        every: so many frames of the video become one.

    Raises:
        FileError: the video cannot be opened.
    """
    if listing.is_live:
        return CAMERA_FPS
    with Video(listing.entries[0].path) as opened:
        return opened.fps / every
