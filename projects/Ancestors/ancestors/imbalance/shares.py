"""The share of easy background of each kind of system."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from focal_loss_paper.runs import Run

from retinanet_ext.inference import Predictor

from ..overfeat import (
    CROP,
    WINDOW,
    OverFeat,
    as_input,
    choose_windows,
    label_windows,
    window_cores,
)
from ..own import load_own, pictures_of
from ..samples import random_crop
from ..scanning import background
from ..systems import System
from ..viola_jones import ViolaJones, boxes_of
from .counted import Counted, by_softmax
from .models import of_model

PICTURES = 40


def shares_of(system: System, run: Run, dataset: str, pictures: int = PICTURES) -> dict[str, Any]:
    """``before`` and ``after`` in 0..1, ``of`` loss or windows.

    Args:
        system: which.
        run: where it was trained.
        dataset: NAME; NAME_val is looked at.
        pictures: the first so many.
    """
    if system.path is None:
        model = load_own(system.name, run.folder)
        if isinstance(model, ViolaJones):
            return _of_windows(model, f"{dataset}_val", pictures)
        counted = _of_overfeat(model, f"{dataset}_val", pictures)  # type: ignore[arg-type]
    else:
        counted = of_model(Predictor.from_run(run.folder), f"{dataset}_val", pictures)
    sums = np.zeros((2, 2))  # easy, all; before, after
    for x in counted:
        for column, loss in enumerate((x.before, x.after)):
            sums[:, column] += float(loss[x.easy].sum()), float(loss.sum())
    before, after = sums[0] / np.maximum(sums[1], 1e-12)
    return {"of": "loss", "before": float(before), "after": float(after)}


def _of_windows(model: ViolaJones, dataset: str, pictures: int) -> dict[str, Any]:
    whole = ViolaJones(largest=model.largest)  # without stages every window passes
    numbers = []
    for detector in (whole, model):
        windows = empty = 0
        for picture in pictures_of(dataset)[:pictures]:
            for _, _, left, _, scale in detector.scan(picture.rgb()):
                windows += len(left)
                empty += int(background(boxes_of(left, scale), picture).sum())
        numbers.append(empty / max(windows, 1))
    return {"of": "windows", "before": numbers[0], "after": numbers[1]}


@torch.no_grad()
def _of_overfeat(model: OverFeat, dataset: str, pictures: int) -> Iterator[Counted]:
    rng = np.random.default_rng(0)
    for picture in pictures_of(dataset)[:pictures]:
        image, truth = random_crop(picture, float(model.largest), WINDOW, CROP, rng)
        logits = model(as_input(image)[None])[0][0]
        cells = round(len(logits) ** 0.5)
        num_classes = logits.shape[1] - 1
        cores = window_cores(cells, cells)
        labels, _ = label_windows(cores, *truth, num_classes)
        loss = F.cross_entropy(logits, labels.clamp(min=0), reduction="none")
        chosen = choose_windows(loss, labels, num_classes)
        yield by_softmax(logits, labels, num_classes, loss * chosen)
