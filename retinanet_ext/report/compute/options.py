"""What can be chosen about a report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...evaluation.analysis.thresholds import Thresholds

__all__ = ["ReportOptions"]


@dataclass(frozen=True)
class ReportOptions:
    """Choices of a report.

    Attributes:
        iou: from which a detection finds an object, in all but AP and AR.
        max_dets: detections of each image and class that count.
        score_thresh: from which detections count in precision, recall, confusion and pictures: a
            score for all classes, thresholds of a file, or None for the highest F1 of each class.
        draws: of the bootstrap; 0 leaves it out.
        seed: of the draws.
        num_worst: pictures in each of the galleries.
        max_mb: megabytes of the page; pictures are left out until it is no larger.
        images: whether there are pictures.
    """

    iou: float = 0.5
    max_dets: int = 100
    score_thresh: float | Thresholds | None = None
    draws: int = 1000
    seed: int = 0
    num_worst: int = 24
    max_mb: float = 20.0
    images: bool = True

    def thresholds(self) -> Callable[[Sequence[str]], Sequence[float]] | None:
        """Gives the thresholds of classes by their names; None for the best ones."""
        chosen = self.score_thresh
        if chosen is None:
            return None
        if isinstance(chosen, Thresholds):
            return chosen.in_order
        return lambda names: [float(chosen)] * len(names)

    def threshold_words(self) -> str:
        """How the thresholds were chosen, for captions."""
        if self.score_thresh is None:
            return "the score of each class at which its F1 is highest"
        if isinstance(self.score_thresh, Thresholds):
            return "the score of each class in the given file"
        return f"a score of {self.score_thresh:g} for all classes"
