"""What ``predict`` reads: pictures from files, folders, globs and lists; videos; a camera."""

from __future__ import annotations

from .files import Entry, Listing, list_sources
from .items import Item, Items, VideoOptions
from .video import Video, seconds_of

__all__ = [
    "Entry",
    "Item",
    "Items",
    "Listing",
    "Video",
    "VideoOptions",
    "list_sources",
    "seconds_of",
]
