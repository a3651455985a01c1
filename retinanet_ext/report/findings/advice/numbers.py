"""What the rules read of a report, and the commands that they give."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["RUN", "Advice", "Numbers", "curve", "lines", "of"]

RUN = "RUN"
"""Stands for the OUTPUT_DIR of the training in commands, where the report does not name it."""


@dataclass(frozen=True)
class Advice:
    """One thing to try.

    Attributes:
        rule: that spoke.
        finding: a sentence with the numbers that made it speak.
        action: a sentence or two.
        command: lines to paste into a terminal; None where there is nothing to paste. RUN stands
            for the OUTPUT_DIR of the training where the report does not name it.
        weight: the share of the objects, or of AP, that is at stake, for the order.
    """

    rule: str
    finding: str
    action: str
    command: str | None = None
    weight: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """For ``report.json``."""
        return {
            "rule": self.rule,
            "finding": self.finding,
            "action": self.action,
            "command": self.command,
        }


class Numbers:
    """A report's dict; what it lacks or cannot know (None, NaN) reads as None or 0."""

    def __init__(self, report: Mapping[str, Any]) -> None:
        self.report = report
        run = self.get("run") or {}
        self.has_run = bool(run)
        self.run = str(run.get("folder") or RUN) if isinstance(run, Mapping) else RUN

    def get(self, *path: str) -> Any:
        """What stands at the keys, or None."""
        found: Any = self.report
        for key in path:
            if not isinstance(found, Mapping) or key not in found:
                return None
            found = found[key]
        return found

    def number(self, *path: str) -> float | None:
        """A number at the keys, or None."""
        found = self.get(*path)
        is_number = isinstance(found, int | float) and not isinstance(found, bool)
        return float(found) if is_number and math.isfinite(found) else None

    def gain(self, kind: str) -> float:
        """Points of AP that repairing one kind of error would gain."""
        return self.number("errors", kind) or 0.0

    @property
    def num_objects(self) -> int:
        """That are to be found."""
        return int(self.number("settings", "objects") or 0)

    @property
    def classes(self) -> dict[str, Mapping[str, Any]]:
        """Numbers of the classes that have objects, by name."""
        found = self.get("classes") or {}
        return {name: row for name, row in found.items() if row.get("n")}

    def missed(self, reason: str) -> tuple[int, float, float]:
        """Objects missed for a reason; their share of the misses, and of the objects."""
        number = int(self.number("missed", "reasons", reason) or 0)
        total = self.number("missed", "total") or 0
        share = number / total if total else 0.0
        return number, share, number / self.num_objects if self.num_objects else 0.0

    def of_missed(self, number: int) -> str:
        """Such as "12 of 40 missed objects"."""
        return of(number, self.number("missed", "total") or 0, "missed objects")

    @property
    def confusions(self) -> Iterator[tuple[str, str, int]]:
        """(what it is, what it is taken for, how often), most often first."""
        for row in self.get("most_confused") or ():
            yield row["actual"], row["detected"], row["count"]
        labels, matrix = self.get("confusion", "labels"), self.get("confusion", "matrix")
        if self.get("most_confused") is None and matrix:
            size = len(labels) - 1
            cells = [
                (matrix[i][k], labels[i], labels[k])
                for i in range(size)
                for k in range(size)
                if i != k and matrix[i][k]
            ]
            for often, actual, detected in sorted(cells, key=lambda cell: -cell[0]):
                yield actual, detected, often

    def model(self, key: str) -> Any:
        """A setting of the model, see :func:`.model_settings`; None where it is not known."""
        return self.get("model", key)

    def command(self, *words: object) -> str | None:
        """A line of ``retinanet-ext``; None where the report is of no training."""
        if not self.has_run:
            return None
        return " ".join(["retinanet-ext", *(shlex.quote(str(word)) for word in words)])

    @property
    def config(self) -> str:
        """The config file of the training."""
        return f"{self.run}/config.yaml"

    def train(self, name: str, *keys: object) -> str | None:
        """Trains the model again with other keys, in a folder of its own beside the run's."""
        output = ("OUTPUT_DIR", f"{self.run}-{name}")
        return self.command("train", "--config-file", self.config, *output, *keys)

    def evaluate(self, name: str, *keys: object) -> str | None:
        """Evaluates the trained model with other keys, in a folder of its own."""
        weights = self.get("run", "weights") or "model_final.pth"
        model = ("MODEL.WEIGHTS", f"{self.run}/{weights}", "OUTPUT_DIR", f"{self.run}-{name}")
        return self.command("evaluate", "--config-file", self.config, *model, *keys)


def lines(*commands: str | None) -> str | None:
    """Commands one below the other; None if there are none."""
    return "\n".join(command for command in commands if command) or None


def of(number: int, total: float, what: str) -> str:
    """Such as "12 of 40 missed objects"."""
    return f"{number:,} of {int(total):,} {what}"


def curve(points: Any) -> Sequence[tuple[float, float]]:
    """(iteration, value) of a curve in the report."""
    if not isinstance(points, Mapping):
        return ()
    pairs = zip(points.get("iteration") or (), points.get("value") or (), strict=False)
    return [(float(i), float(v)) for i, v in pairs if v is not None and math.isfinite(v)]
