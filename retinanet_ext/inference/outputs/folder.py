"""The folder of results: whose they are, which pictures are done, which failed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode

from ...errors import ExistsError, FileError, InputError, listed
from ...files import file_sha256, write_text
from ..sources.search import CROPS, DRAWN, RUN
from .lines import Lines, cut_torn_line, read_lines

__all__ = ["CROPS", "DRAWN", "LABELS", "ResultsFolder", "describe_model"]

PREDICTIONS = "predictions.jsonl"
FAILED = "failed.txt"
LABELS = "labels"
ALWAYS = (PREDICTIONS, FAILED)
BY_FORMAT = {
    "json": ("predictions.json",),
    "csv": ("predictions.csv",),
    "coco": ("coco_instances_results.json", "coco_images.json"),
    "yolo": (LABELS,),
}

Key = tuple[str, int | None]


def describe_model(cfg: CfgNode) -> dict[str, str]:
    """What two runs have in common if their models give the same detections."""
    cfg = cfg.clone()
    cfg.defrost()
    weights = cfg.MODEL.WEIGHTS
    cfg.MODEL.WEIGHTS = cfg.MODEL.DEVICE = ""
    nodes = {name: cfg[name].dump() for name in ("MODEL", "INPUT", "TEST")}
    return {
        "weights": file_sha256(weights) if os.path.isfile(weights) else weights,
        "config": hashlib.sha256(json.dumps(nodes).encode()).hexdigest(),
    }


class ResultsFolder:
    """A folder that holds the results of one model with one choice of settings.

    Attributes:
        path: of the folder.
        run_id: of the model and the settings.
        done: keys (file, frame) of the pictures whose results are there.
        cut: whether a torn last line was removed.
    """

    def __init__(
        self, path: str, run: Mapping[str, Any], resume: bool = False, overwrite: bool = False
    ):
        """
        Args:
            path: made where it is not there.
            run: model and settings, for json.
            resume: continue what is there.
            overwrite: remove what is there.

        Raises:
            ExistsError: it holds results, and neither is asked for; or what predict did not write,
                in the place of what it writes.
            InputError: what is there is of another model, or of other settings.
            FileError: the folder cannot be made or written.
        """
        self.path = path
        text = json.dumps(run, sort_keys=True)
        self.run_id = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.done: set[Key] = set()
        self.cut = False
        try:
            os.makedirs(path, exist_ok=True)
        except OSError as error:
            raise FileError(
                f"--output is '{path}', which is no folder: {error.strerror}"
            ) from error
        if not os.access(path, os.W_OK):
            raise FileError(f"--output is '{path}', a folder that cannot be written")
        self._check_own(run)
        if overwrite:
            self._clear()
        elif os.path.exists(self.file(PREDICTIONS)) or os.path.exists(self.file(RUN)):
            self._check_same(run, resume)
            if os.path.exists(self.file(PREDICTIONS)):
                self.cut = cut_torn_line(self.predictions)
                self.done = {(x["file"], x.get("frame")) for x in read_lines(self.predictions)}
        write_text(self.file(RUN), json.dumps({"run_id": self.run_id, **run}, indent=1) + "\n")
        self.lines = Lines(self.predictions)
        self.num_failed = 0
        self._failed = open(  # noqa: SIM115 (close)
            self.file(FAILED), "w", encoding="utf-8", errors="surrogateescape"
        )

    @property
    def predictions(self) -> str:
        """Path of the file with a line per picture."""
        return self.file(PREDICTIONS)

    def file(self, name: str) -> str:
        """Path of a file in the folder."""
        return os.path.join(self.path, name)

    def add_failed(self, name: str, reason: str) -> None:
        """Write a picture and why it has no result: one line, with a tab between the two."""
        self.num_failed += 1
        reason = reason.removeprefix(f"cannot load {name}: ")
        self._failed.write(f"{_on_one_line(name)}\t{' '.join(reason.split())}\n")
        self._failed.flush()

    def close(self) -> None:
        """Close the files; that of failures is removed if there was none."""
        self.lines.close()
        self._failed.close()
        if not self.num_failed and os.path.exists(self.file(FAILED)):
            os.remove(self.file(FAILED))

    def _before(self) -> dict[str, Any]:
        """Model and settings of the run whose results are there; empty where that is unknown."""
        try:
            with open(self.file(RUN), encoding="utf-8") as file:
                before = json.load(file)
        except (OSError, ValueError):
            return {}
        return before if isinstance(before, dict) else {}

    def _check_own(self, run: Mapping[str, Any]) -> None:
        """Leave what others wrote: labels of a dataset, results of an evaluation."""
        known = os.path.exists(self.file(RUN)) or os.path.exists(self.predictions)
        own = {*_written(self._before()), *(ALWAYS if known else ())}
        others = [x for x in _written(run) if x not in own and os.path.exists(self.file(x))]
        if others:
            raise ExistsError(
                f"--output is '{self.path}', where {listed(others)} would be written, but that is "
                "there already and not by predict; name another folder"
            )

    def _check_same(self, run: Mapping[str, Any], resume: bool) -> None:
        before = self._before()
        if before.get("run_id") == self.run_id:
            if not resume:
                raise ExistsError(
                    f"'{self.path}' holds results of this model already; --resume continues them, "
                    "--overwrite begins again"
                )
            return
        different = sorted(k for k in {*run, *before} - {"run_id"} if run.get(k) != before.get(k))
        what = "another model" if "model" in different or not before else "other settings"
        detail = "" if "model" in different or not before else f" ({listed(different)})"
        raise InputError(
            f"'{self.path}' holds results of {what}{detail}; name another --output, or replace "
            "them by --overwrite"
        )

    def _clear(self) -> None:
        """Remove what an earlier run wrote, and nothing else."""
        for name in (*_written(self._before()), *ALWAYS):
            if os.path.isdir(self.file(name)):
                shutil.rmtree(self.file(name), ignore_errors=True)
            elif os.path.exists(self.file(name)):
                os.remove(self.file(name))


def _written(run: Mapping[str, Any]) -> list[str]:
    """Files and folders that a run with these settings writes."""
    names = [DRAWN] if run.get("draw") else []
    names += [CROPS] if run.get("crops") else []
    names += [x for name in run.get("format") or () for x in BY_FORMAT.get(name, ())]
    return [*names, *(ALWAYS if run else ())]


def _on_one_line(name: str) -> str:
    """The name with backslash escapes, where it holds a line break or tab."""
    if name.isprintable() or not any(x in name for x in "\n\r\t"):
        return name
    for char, escaped in (("\\", "\\\\"), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        name = name.replace(char, escaped)
    return name
