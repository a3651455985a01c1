"""Anchors against the objects of a training set: how well they cover them, and better ones.

Boxes are absolute XYXY in pixels of the network's input. Needs no trained model.
"""

from .advice import compare_sizes, larger_pictures, verdict
from .cell_shapes import (
    SHAPE_KMEANS,
    ShapeSearch,
    cell_anchor_keys,
    kmeans_shapes,
    search_shapes,
)
from .coverage import Coverage, coverage
from .fit import expected_positives
from .matches import Matches, count_matches
from .picture import draw_unmatched
from .report import coverage_report, format_coverage_report
from .search import METHODS, Search, search_anchors
from .shape import AnchorShape
from .training_boxes import TrainingBoxes, resized_boxes, sampled_boxes

__all__ = [
    "METHODS",
    "SHAPE_KMEANS",
    "AnchorShape",
    "Coverage",
    "Matches",
    "Search",
    "ShapeSearch",
    "TrainingBoxes",
    "cell_anchor_keys",
    "compare_sizes",
    "count_matches",
    "coverage",
    "coverage_report",
    "draw_unmatched",
    "expected_positives",
    "format_coverage_report",
    "kmeans_shapes",
    "larger_pictures",
    "resized_boxes",
    "sampled_boxes",
    "search_anchors",
    "search_shapes",
    "verdict",
]
