"""What ``predict`` writes: a line per picture as it is done, and files made of these lines."""

from __future__ import annotations

from .clip import Clip, check_clip
from .coco_ids import CocoIds
from .folder import ResultsFolder, describe_model
from .formats import FORMATS, write_formats
from .lines import read_lines
from .per_picture import PictureFiles
from .window import open_window

__all__ = [
    "FORMATS",
    "Clip",
    "CocoIds",
    "PictureFiles",
    "ResultsFolder",
    "check_clip",
    "describe_model",
    "open_window",
    "read_lines",
    "write_formats",
]
