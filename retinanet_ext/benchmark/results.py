"""One measured line: what both sides took, and their ratio."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

__all__ = ["Disagreement", "Row"]


class Disagreement(ValueError):
    """Both sides were meant to give the same numbers and do not."""


@dataclass(frozen=True)
class Row:
    """Samples of a peer ("theirs") and of this package ("ours").

    Attributes:
        task: name of the task, as ``--only`` takes it.
        what: what was measured.
        kind: "time" (samples in seconds), "rate" (seconds for ``images`` images, shown as images
            per second) or "memory" (samples in bytes).
        against: "detectron2" or "torchvision".
        theirs, ours: samples in the order taken; empty where a side ran out of memory.
        images: per sample, for a rate.
        logits_bytes: for a memory: size of the logits, to give memory in multiples of it; 0 if
            that says nothing.
        note: what a reader has to know; may be empty.
        theirs_cpu, ours_cpu: CPU seconds of the same calls, of all threads; empty where they say
            nothing, as on a GPU.
        absent: why there is nothing of ours; may be empty.
    """

    task: str
    what: str
    kind: str
    against: str
    theirs: tuple[float, ...]
    ours: tuple[float, ...]
    images: int = 1
    logits_bytes: int = 0
    note: str = ""
    theirs_cpu: tuple[float, ...] = ()
    ours_cpu: tuple[float, ...] = ()
    absent: str = ""

    @property
    def cpu_ratio(self) -> float | None:
        """As :attr:`ratio`, of CPU time, which other programs change little; None if unknown."""
        if not self.theirs_cpu or not self.ours_cpu:
            return None
        return self._ratio(statistics.median(self.theirs_cpu), statistics.median(self.ours_cpu))

    @property
    def ratio(self) -> float | None:
        """How many times faster ours is, or our fraction of their memory; None if unknown."""
        if not self.theirs or not self.ours:
            return None
        return self._ratio(statistics.median(self.theirs), statistics.median(self.ours))

    @property
    def ratio_quartiles(self) -> tuple[float, float] | None:
        """First and third quartile of the ratios of the rounds; None below two rounds."""
        if len(self.theirs) < 2 or len(self.theirs) != len(self.ours):
            return None
        ratios = [self._ratio(t, o) for t, o in zip(self.theirs, self.ours, strict=True)]
        return quartiles([ratio for ratio in ratios if ratio is not None])

    def _ratio(self, theirs: float, ours: float) -> float | None:
        over, under = (ours, theirs) if self.kind == "memory" else (theirs, ours)
        return over / under if under > 0 else None


def quartiles(samples: list[float] | tuple[float, ...]) -> tuple[float, float] | None:
    """First and third quartile; None below two samples."""
    if len(samples) < 2:
        return None
    first, _, third = statistics.quantiles(samples, n=4, method="inclusive")
    return first, third
