"""Training and evaluating the two detectors that are no Detectron2 models, by time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from detectron2.data import DatasetCatalog
from detectron2.structures import Boxes, BoxMode, Instances
from torch import Tensor

from retinanet_ext import files
from retinanet_ext.data.datasets.register import load_class_names
from retinanet_ext.errors import InputError
from retinanet_ext.evaluation import COCODetectionEvaluator

from .overfeat import CROP, WINDOW, OverFeat, as_input
from .samples import random_crop
from .saved import cascade_of, load, state_of
from .saved import save as write
from .scanning import Found, Picture, largest_scale
from .viola_jones import ROUNDS, ViolaJones

__all__ = ["OWN", "evaluate_own", "load_own", "pictures_of", "train_own"]

OWN = ("viola_jones", "overfeat")
PARTIAL, FINAL = "model_partial.pth", "model_final.pth"
WINDOWS = "windows.json"  # how many are left after each stage
BATCH, RATE, WEIGHT_DECAY, RISE = 8, 0.002, 0.02, 0.15  # of OverFeat
SAVED_EVERY = 20.0  # seconds
MOST = 100  # detections of a picture


class Detects(Protocol):
    """Finds objects in a picture (H, W, 3) uint8, RGB."""

    def detect(self, rgb: np.ndarray) -> Found: ...


class Clock:
    """Which share of a training is over, by seconds, or by steps where those are counted.

    Attributes:
        steps: done so far.
    """

    def __init__(self, minutes: float, iterations: int | None, done: dict[str, Any]):
        self.seconds, self.iterations = 60 * minutes, iterations
        self.steps = int(done.get("steps", 0))
        self._before, self._started = float(done.get("elapsed", 0.0)), time.monotonic()

    def state(self) -> dict[str, Any]:
        return {"steps": self.steps, "elapsed": self.elapsed}

    @property
    def elapsed(self) -> float:
        """Seconds, with those of earlier attempts up to their last checkpoint."""
        return self._before + time.monotonic() - self._started

    @property
    def share(self) -> float:
        done = self.steps / self.iterations if self.iterations else self.elapsed / self.seconds
        return min(1.0, done)


def pictures_of(dataset: str) -> list[Picture]:
    """The pictures of a registered dataset with their objects."""
    found = []
    for entry in DatasetCatalog.get(dataset):
        boxes, labels, ignored = [], [], []
        for x in entry.get("annotations", ()):
            box = BoxMode.convert(x["bbox"], x["bbox_mode"], BoxMode.XYXY_ABS)
            if x.get("iscrowd"):
                ignored.append(box)
            else:
                boxes.append(box)
                labels.append(x["category_id"])
        arrays = (np.array(x, float).reshape(-1, 4) for x in (boxes, ignored))
        own, others = arrays
        classes = np.array(labels, np.int64)
        found.append(Picture(entry["file_name"], entry["image_id"], own, classes, others))
    return found


def train_own(
    name: str,
    folder: Path,
    dataset: str,
    minutes: float,
    seed: int,
    iterations: int | None = None,
    device: str = "cpu",
    say: Callable[[str], None] = print,
) -> Detects:
    """Train a detector, or continue with it, and leave ``model_final.pth`` in ``folder``.

    Args:
        name: of :data:`OWN`.
        folder: of the run.
        dataset: to train on.
        minutes: how long; the cascade ends earlier where no background passes it any more.
        seed: of what is drawn.
        iterations: steps, or stages of the cascade, in place of ``minutes``.
        device: of OverFeat.
        say: prints a line.
    """
    if (folder / FINAL).is_file():
        return load_own(name, folder, device)
    pictures = pictures_of(dataset)
    if not any(len(x.boxes) for x in pictures):
        raise InputError(f"dataset '{dataset}' has no objects; {name} cannot be trained on it")
    saved = load(folder / PARTIAL)
    clock = Clock(minutes, iterations, saved.get("clock", {}))
    if clock.steps:
        say(f"continues after {clock.steps} steps, {clock.elapsed / 60:.1f} minutes")
    if name == "viola_jones":
        return _train_cascade(folder, pictures, clock, seed, saved, say)
    return _train_overfeat(folder, pictures, clock, seed, saved, dataset, device, say)


def _train_cascade(
    folder: Path,
    pictures: Sequence[Picture],
    clock: Clock,
    seed: int,
    saved: dict[str, Any],
    say: Callable[[str], None],
) -> ViolaJones:
    model = cascade_of(saved["model"]) if saved else ViolaJones()

    def save() -> None:
        clock.steps = len(model.stages)
        write(folder / PARTIAL, {"model": state_of(model), "clock": clock.state()})
        stumps = sum(len(stage.weight) for stage, _ in model.stages)
        say(f"{clock.steps} stages, {stumps} stumps, {clock.elapsed:.0f} s")

    def time_left(last: float) -> bool:
        if clock.iterations:
            return len(model.stages) < min(clock.iterations, len(ROUNDS))
        return clock.elapsed + last < clock.seconds

    model.train(pictures, seed, save, time_left)
    write(folder / FINAL, {"model": state_of(model), "clock": clock.state()})
    return model


def _train_overfeat(
    folder: Path,
    pictures: Sequence[Picture],
    clock: Clock,
    seed: int,
    saved: dict[str, Any],
    dataset: str,
    device: str,
    say: Callable[[str], None],
) -> OverFeat:
    torch.manual_seed(seed)
    model = OverFeat(len(load_class_names(dataset) or ())).to(device)
    model.largest.fill_(largest_scale(pictures, WINDOW))
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=WEIGHT_DECAY)
    if saved:
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])

    def save() -> None:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        write(folder / PARTIAL, {**state, "clock": clock.state()})
        say(f"{clock.steps} steps, {clock.elapsed:.0f} s, loss {loss.item():.3f}")

    last_saved = clock.elapsed
    while clock.share < 1:
        rng = np.random.default_rng([seed, clock.steps])
        crops = [
            random_crop(pictures[i], float(model.largest), WINDOW, CROP, rng)
            for i in rng.integers(len(pictures), size=BATCH)
        ]
        images = torch.stack([as_input(image) for image, _ in crops]).to(device)
        truth: list[tuple[Tensor, Tensor, Tensor]] = [
            (x[0].to(device), x[1].to(device), x[2].to(device)) for _, x in crops
        ]
        for group in optimizer.param_groups:
            group["lr"] = RATE * one_cycle(clock.share)
        loss = model.losses(images, truth)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        clock.steps += 1
        if clock.elapsed - last_saved > SAVED_EVERY:
            save()
            last_saved = clock.elapsed
    write(folder / FINAL, {"model": model.state_dict(), "clock": clock.state()})
    return model.eval()


def one_cycle(share: float) -> float:
    """Of the highest learning rate: up for the first :data:`RISE`, then down to 0, as cosines."""
    x = share / RISE if share < RISE else 1 + (share - RISE) / (1 - RISE)
    return float((1 - np.cos(np.pi * x)) / 2)


def load_own(name: str, folder: Path, device: str = "cpu") -> Detects:
    """The trained detector of a run."""
    saved = load(folder / FINAL)["model"]
    if name == "viola_jones":
        return cascade_of(saved)
    model = OverFeat(saved["classes.weight"].shape[0] - 1)
    model.load_state_dict(saved)
    return model.to(device).eval()


def evaluate_own(model: Detects, folder: Path, dataset: str) -> dict[str, float]:
    """AP of a dataset by the evaluator that all detectors have; appended to ``metrics.json``."""
    evaluator = COCODetectionEvaluator(
        dataset, output_dir=str(folder / "inference"), distributed=False
    )
    pictures = pictures_of(dataset)
    if isinstance(model, ViolaJones):
        model.windows = np.zeros(0, int)
    for picture in pictures:
        rgb = picture.rgb()
        found = model.detect(rgb)
        evaluator.process(
            [{"image_id": picture.image_id}], [{"instances": as_instances(found, rgb)}]
        )
    if isinstance(model, ViolaJones):
        left = model.windows / len(pictures)
        files.write_text(str(folder / WINDOWS), json.dumps({"windows": left.tolist()}) + "\n")
    metrics = {f"bbox/{k}": v for k, v in evaluator.evaluate()["bbox"].items()}
    with open(folder / "metrics.json", "a", encoding="utf-8") as file:
        file.write(json.dumps({"iteration": 0, **metrics}) + "\n")
    return metrics


def as_instances(found: Found, rgb: np.ndarray) -> Instances:
    """What a Detectron2 model would give, with the :data:`MOST` best."""
    best = np.argsort(-found.scores, kind="stable")[:MOST]
    return Instances(
        rgb.shape[:2],
        pred_boxes=Boxes(torch.from_numpy(found.boxes[best]).float()),
        scores=torch.from_numpy(found.scores[best]).float(),
        pred_classes=torch.from_numpy(found.labels[best]).long(),
    )
