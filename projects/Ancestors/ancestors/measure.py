"""Time per picture of all trained systems, in one way and in turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median

import numpy as np
import torch
from focal_loss_paper.runs import Run

from retinanet_ext.benchmark.measure import timed_rounds
from retinanet_ext.inference import Predictor

from .own import load_own
from .proposals import Proposer, detect_among
from .scanning import Picture
from .systems import System

__all__ = ["Detect", "load_detector", "milliseconds"]

Detect = Callable[[np.ndarray], object]
PICTURES = 6


def load_detector(system: System, run: Run, proposals: Run | None = None) -> Detect:
    """What finds objects in a picture (H, W, 3) uint8, RGB, from pixels to boxes in its pixels.

    Args:
        system: which.
        run: where it was trained.
        proposals: run of the network whose boxes it looks at; their time is a part of its time.
    """
    if system.path is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return load_own(system.name, run.folder, device).detect
    predictor = Predictor.from_run(run.folder)

    def in_its_order(detect: Detect) -> Detect:
        if predictor.cfg.INPUT.FORMAT == "RGB":
            return detect
        return lambda rgb: detect(np.ascontiguousarray(rgb[:, :, ::-1]))

    if proposals is None:
        return in_its_order(lambda pixels: predictor.detector([pixels])[0])
    return in_its_order(detect_among(predictor, Proposer(proposals.folder)))


def milliseconds(
    detectors: Mapping[str, Detect], pictures: Sequence[Picture], rounds: int | None = None
) -> dict[str, float]:
    """Per picture, one at a time: the median of rounds in which each system has its turn.

    Counted is all from the pixels of the file to the boxes: resizing, network or cascade, merging.
    Reading the file is not.

    Args:
        detectors: of :func:`load_detector`, by name.
        pictures: the first :data:`PICTURES` are looked at.
        rounds: default: as many as :func:`~retinanet_ext.benchmark.measure.timed_rounds` takes.
    """
    pixels = [picture.rgb() for picture in pictures[:PICTURES]]

    def work(detect: Detect) -> Callable[[], object]:
        return lambda: [detect(rgb) for rgb in pixels]

    device = "cuda" if torch.cuda.is_available() else "cpu"
    works = {name: work(detect) for name, detect in detectors.items()}
    found = timed_rounds(works, rounds, device)
    return {name: 1000 * median(samples) / len(pixels) for name, samples in found.items()}
