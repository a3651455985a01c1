"""The exported file against PyTorch, on pictures, at several sizes and batches.

Nothing is compared with the module that was exported: pixels, outputs and detections are those of
the detector that was trained, by its own code.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import UserError
from ..files import dump_json, write_text
from ..inference import Picture, Predictor
from ..inference.exported import Sidecar
from ..inference.exported.engines import Engine, open_engine
from ..inference.exported.standalone import preprocess
from .compare import PIXELS, SCORE, compare_sets
from .folder import GOLDEN, PARITY, withdraw
from .pictures import read
from .reference import Reference, instances_of

__all__ = ["Check", "ExportRejected", "reject", "renew_golden", "verify", "write_parity"]

RAW, NORMALIZED = 1e-4, 1e-5
SCALES = (1.0, 0.75, 0.5)
"""Of the size that pictures have in the evaluation."""

BATCHES = (1, 3)


class ExportRejected(UserError, RuntimeError):
    """The exported file does not do what the detector does."""

    exit_code = 1


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        what: was compared.
        limit, value: the largest difference that is allowed, and the one that was found.
        detail: of what.
        boxes: that were looked at, of both sides.
    """

    what: str
    limit: float
    value: float
    detail: str = ""
    boxes: int = 0

    @property
    def passed(self) -> bool:
        """Not for a value that is not a number."""
        return self.value <= self.limit


def verify(folder: str, predictor: Predictor, pictures: Sequence[str]) -> list[Check]:
    """Compare the export in ``folder`` with the detector; write ``parity.json``, ``golden.npz``.

    Args:
        folder: holds the file and what goes with it.
        predictor: of :func:`.reference.plain_predictor`.
        pictures: at least 3 files.

    Returns:
        All comparisons; the export is good if all have passed.
    """
    sidecar = Sidecar.read(folder)
    engine, reference = open_engine(sidecar), Reference(predictor)
    checks = [*_sidecar_checks(sidecar, predictor, reference, pictures)]
    inputs = list(_inputs(sidecar, pictures))
    checks += [
        check for images in inputs for check in _output_checks(sidecar, engine, reference, images)
    ]
    if sidecar.meta["input"]["height"] is None:  # else pictures are of other sizes
        checks += _detection_checks(folder, predictor, pictures)
    _write_golden(folder, engine, min(inputs, key=lambda x: x.size))
    write_parity(folder, engine.name, pictures, checks)
    return checks


def reject(folder: str, checks: Iterable[Check]) -> None:
    """Give the file a name that nothing loads, and say why.

    Raises:
        ExportRejected: always.
    """
    path = Sidecar.read(folder).path
    withdraw(path)
    failed = [x for x in checks if not x.passed]
    worst = failed[0]
    more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    raise ExportRejected(
        f"the exported file differs from PyTorch: {worst.what} by {worst.value:.3g}, limit "
        f"{worst.limit:g}{', ' + worst.detail if worst.detail else ''}{more}; it is now called "
        f"{os.path.basename(path)}.rejected, and {os.path.join(folder, PARITY)} has all figures"
    )


def _sidecar_checks(
    sidecar: Sidecar, predictor: Predictor, reference: Reference, pictures: Sequence[str]
) -> Iterable[Check]:
    """What ``model.json`` and ``preprocess.py`` make of pictures, against the detector."""
    meta: Any = sidecar.meta
    names_differ = sum(a != b for a, b in zip(meta["classes"], predictor.class_names, strict=False))
    names_differ += abs(len(meta["classes"]) - len(predictor.class_names))
    yield Check("class names in model.json", 0, names_differ)
    fixed = meta["input"]["height"] is not None
    for path in pictures:
        ours = preprocess.resize(read(path, meta), meta)
        if not fixed:  # else pictures are made small enough for the file
            theirs = _prepared(predictor, path)
            apart = _difference(ours, theirs)
            yield Check("pixels by preprocess.py", 0, apart, os.path.basename(path))
        images = preprocess.batch([ours], meta)
        # A single pixel, too: its padding shows the divisor.
        differences = [
            _difference(preprocess.normalized(x, meta), reference.normalized(x))
            for x in (images, images[:, :, :1, :1])
        ]
        what = "input normalised by model.json"
        yield Check(what, NORMALIZED, max(differences), os.path.basename(path))


def _difference(got: np.ndarray, expected: np.ndarray) -> float:
    """The largest one; infinite for arrays of different shapes."""
    if got.shape != expected.shape:
        return float("inf")
    return float(np.abs(got.astype(np.float64) - expected).max())


def _prepared(predictor: Predictor, path: str) -> np.ndarray:
    """The detector's own input of a file, (H, W, C) uint8."""
    detector: Any = predictor.detector
    pixels = predictor.read(Picture(path))
    return detector.prepare(pixels)["image"].numpy().transpose(1, 2, 0)


def _inputs(sidecar: Sidecar, pictures: Sequence[str]) -> Iterable[np.ndarray]:
    """Batches of pictures at several sizes; of one where the file takes no other."""
    meta = sidecar.meta
    read_ones = [read(path, meta) for path in pictures]
    for i, scale in enumerate(SCALES):
        resized = []
        for pixels in read_ones:
            height, width = preprocess.resized_size(pixels.shape[0], pixels.shape[1], meta)
            sides = [max(1, round(side * scale)) for side in (height, width)]
            own = {
                **meta,
                "resize": {**meta["resize"], "shorter": min(sides), "longer": max(sides)},
            }
            resized.append(preprocess.resize(pixels, own))
        one = resized[i % len(resized)]
        for size in [meta["input"]["batch"]] if meta["input"]["batch"] else BATCHES:
            several = [resized[(i + j) % len(resized)] for j in range(size)]
            yield preprocess.batch([one] if size == 1 else several, meta)


def _output_checks(
    sidecar: Sidecar, engine: Engine, reference: Reference, images: np.ndarray
) -> Iterable[Check]:
    """What the file gives for one batch, against the detector."""
    outputs = engine(images)
    where = "batch {} of {} x {} px".format(len(images), *images.shape[2:])
    if sidecar.head == "raw":
        expected = reference.raw(images)
        if outputs.keys() != expected.keys():
            yield Check("names of outputs", 0, float("inf"), where)
            return
        for kind in ("logits", "deltas", "quality"):
            apart = [
                _difference(outputs[name], x)
                for name, x in expected.items()
                if name.startswith(kind)
            ]
            if apart:
                yield Check(kind, RAW, max(apart), where)
        return
    size = images.shape[2], images.shape[3]
    decode = sidecar.meta["decode"]
    got = instances_of(outputs, size)
    if sidecar.head == "decoded":
        theirs, what = reference.candidates(images), "candidates"
        # Of anchors, each level has its own limit; of peaks there is one.
        most = 0 if "anchors" in sidecar.meta else decode["max_detections"]
    else:
        theirs, what, most = reference.detections(images), "detections", decode["max_detections"]
        counts = [len(x) for x in got]
        yield Check("count", 0, float(np.abs(outputs["count"] - counts).max()), where)
    yield from _set_checks(what, theirs, got, where, decode["score_thresh"], most)


def _detection_checks(
    folder: str, predictor: Predictor, pictures: Sequence[str]
) -> Iterable[Check]:
    """Detections of files of pictures by the export, against those of the run."""
    exported = Predictor.from_export(folder)
    found = [
        [prediction.instances for prediction in each.stream(pictures, workers=0)]  # type: ignore[union-attr]
        for each in (predictor, exported)
    ]
    edge = Sidecar.read(folder).meta["decode"]["score_thresh"]
    most = predictor.cfg.TEST.DETECTIONS_PER_IMAGE
    where = f"{len(pictures)} pictures, in their pixels"
    yield from _set_checks("predictions", found[0], found[1], where, edge, most)


def _set_checks(
    what: str, expected: Any, got: Any, where: str, edge: float, most: int
) -> Iterable[Check]:
    found = compare_sets(expected, got, edge, most)
    missing = f"{what} without a counterpart"
    yield Check(missing, found.allowed, found.missing, where, found.count)
    yield Check(f"boxes of {what} in px", PIXELS, found.pixels, where)
    yield Check(f"scores of {what}", SCORE, found.score, where)


def renew_golden(folder: str) -> None:
    """Store the outputs of the file that is there now for the input that is stored."""
    engine = open_engine(Sidecar.read(folder))
    with np.load(os.path.join(folder, GOLDEN)) as stored:
        images = stored["images"]
    _write_golden(folder, engine, images)


def _write_golden(folder: str, engine: Engine, images: np.ndarray) -> None:
    golden: dict[str, Any] = {"images": images, **engine(images)}
    np.savez_compressed(os.path.join(folder, GOLDEN), **golden)


def write_parity(
    folder: str, run_by: str, pictures: Sequence[str], checks: Sequence[Check]
) -> None:
    """Write all comparisons to ``parity.json``."""
    content = {
        "passed": all(x.passed for x in checks),
        "run_by": run_by,
        "pictures": [os.path.basename(x) for x in pictures],
        "checks": [{**asdict(x), "passed": x.passed} for x in checks],
    }
    write_text(os.path.join(folder, PARITY), dump_json(content, indent=1) + "\n")
