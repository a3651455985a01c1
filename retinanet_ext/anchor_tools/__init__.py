"""Anchors against the objects of a training set: how well they cover them, and better ones.

Boxes are absolute XYXY in pixels of the network's input. Needs no trained model.
"""

from .coverage import Coverage, coverage
from .matches import Matches, count_matches
from .picture import draw_unmatched
from .report import coverage_report, format_coverage_report
from .search import METHODS, AnchorShape, Search, search_anchors
from .training_boxes import TrainingBoxes, resized_boxes, sampled_boxes

__all__ = [
    "METHODS",
    "AnchorShape",
    "Coverage",
    "Matches",
    "Search",
    "TrainingBoxes",
    "count_matches",
    "coverage",
    "coverage_report",
    "draw_unmatched",
    "format_coverage_report",
    "resized_boxes",
    "sampled_boxes",
    "search_anchors",
]
