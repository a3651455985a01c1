"""``thresholds.yaml``: for each class the score from which its detections are worth showing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from ...errors import InputError, did_you_mean, listed, one_line
from ...files import write_text
from ...untrusted import compose_yaml
from .classes import ClassRow

__all__ = ["Thresholds", "read_thresholds", "write_thresholds"]

HEADER = """\
# Score thresholds of the highest F1 per class, measured on a validation set. `threshold` may be
# changed by hand; the other numbers say what it gave there. A class that `uncertain` marks had
# fewer than 10 objects.
"""


@dataclass(frozen=True)
class Thresholds:
    """The content of a file.

    Attributes:
        of_class: class name -> score, in [0, 1].
        iou: at which a detection counted as right.
        dataset: what it was measured on.
        weights_sha256: checksum of the weights that were measured; "" if not known.
    """

    of_class: dict[str, float]
    iou: float
    dataset: str
    weights_sha256: str

    def in_order(self, class_names: Sequence[str]) -> list[float]:
        """(K,), the thresholds of a model's classes.

        Raises:
            ValueError: the file lacks one of them.
        """
        lacking = [name for name in class_names if name not in self.of_class]
        if lacking:
            hint = did_you_mean(lacking[0], self.of_class)
            raise InputError(
                f"the thresholds are for other classes than the model's: they lack "
                f"{listed(lacking, 3)}.{hint} Make them with this model's detections"
            )
        return [self.of_class[name] for name in class_names]


def write_thresholds(
    path: str, rows: Sequence[ClassRow], iou: float, dataset: str, weights_sha256: str = ""
) -> None:
    """Write the file whole or not at all.

    Args:
        path: of the file; its folder exists.
        rows: of all classes.
        iou, dataset, weights_sha256: see :class:`Thresholds`.

    Raises:
        OSError: it cannot be written.
    """
    classes = {
        row.name: {
            "threshold": row.threshold,
            "f1": _known(row.f1),
            "precision": _known(row.precision),
            "recall": _known(row.recall),
            "n_gt": row.num_objects,
            "n_det": row.num_detections,
            **({"uncertain": True} if row.uncertain else {}),
        }
        for row in rows
    }
    content: dict[str, Any] = {"iou": float(iou), "dataset": dataset}
    if weights_sha256:
        content["weights_sha256"] = weights_sha256
    content["classes"] = classes
    write_text(path, HEADER + yaml.safe_dump(content, sort_keys=False))


def read_thresholds(path: str) -> Thresholds:
    """Read what :func:`write_thresholds` wrote, by hand changed or not.

    Raises:
        ValueError: it is no such file, or a threshold is no score; names file, class and value.
        OSError: it cannot be read.
    """
    content = _load(path)
    classes = content.get("classes") if isinstance(content, dict) else None
    if not isinstance(classes, dict) or not classes:
        raise InputError(
            f"{path} is no file of thresholds: it has no 'classes' with a 'threshold' each; write "
            "one with `retinanet-ext evaluate --predictions ... --thresholds FILE`"
        )
    found: dict[str, float] = {}
    for name, row in classes.items():
        value: Any = row.get("threshold") if isinstance(row, dict) else row
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 0 <= value <= 1:
            raise InputError(
                f"{path}: the threshold of class '{name}' is {value!r}; it must be a score between "
                "0 and 1"
            )
        found[str(name)] = float(value)
    iou = content.get("iou", 0.5)
    if isinstance(iou, bool) or not isinstance(iou, int | float):
        raise InputError(f"{path}: iou is {iou!r}, but must be a number between 0 and 1")
    return Thresholds(
        of_class=found,
        iou=float(iou),
        dataset=str(content.get("dataset", "")),
        weights_sha256=str(content.get("weights_sha256", "")),
    )


def _load(path: str) -> Any:
    try:
        node = compose_yaml(path)
        return None if node is None else yaml.SafeLoader("").construct_document(node)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not yaml: {one_line(error)}") from None
    except (TypeError, ValueError) as error:  # such as a key that is a list
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is no file of thresholds: {one_line(error)}") from None


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
