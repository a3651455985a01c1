"""The file that ``--score-thresh`` names: score thresholds of the classes."""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import InputError, MissingFileError, listed
from ...evaluation.analysis.thresholds import Thresholds, read_thresholds
from ...files import file_sha256

__all__ = ["find_thresholds", "other_weights"]

NAME = "thresholds.yaml"
AUTO = "auto"


def find_thresholds(given: float | str | None, run: str) -> float | Thresholds | None:
    """What ``--score-thresh`` says: a score, or the content of a file.

    Args:
        given: a score, the path of a file, or "auto" for the one of the run.
        run: OUTPUT_DIR of the model; "" where it was named in another way.

    Raises:
        UserError: names the file and what can be done.
    """
    if not isinstance(given, str):
        return given
    path = _of_run(run) if given == AUTO else given
    if not os.path.isfile(path):
        raise MissingFileError(
            f"--score-thresh is '{given}', neither a number from 0 to 1, nor auto, nor a file"
        )
    return read_thresholds(path)


def other_weights(thresholds: Thresholds, weights: str) -> str:
    """A sentence where the thresholds were measured on other weights; else ""."""
    measured = thresholds.weights_sha256
    if not measured or not os.path.isfile(weights) or file_sha256(weights) == measured:
        return ""
    return f"the score thresholds were measured with other weights than {weights}"


def _of_run(run: str) -> str:
    if not run:
        raise InputError(
            "--score-thresh auto looks into the folder of a training; name the file instead"
        )
    folder = Path(run) / "inference"
    found = sorted(map(str, [*folder.glob(NAME), *folder.glob(f"*/{NAME}")]))
    if not found:
        raise MissingFileError(
            f"--score-thresh is auto, but neither {folder} nor a folder in it holds a {NAME}; "
            f"`retinanet-ext report {run}` writes it"
        )
    if len(found) > 1:
        raise InputError(
            f"--score-thresh is auto, but there are {listed(found)}; name one of them instead"
        )
    return found[0]
