"""Pictures in files to detections: our Predictor against a loop of Detectron2's."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data.detection_utils import read_image
from detectron2.engine import DefaultPredictor
from detectron2.structures import Instances
from PIL import Image

from ...inference import FailedPicture, Predictor
from ..agreement import compare_detections
from ..inputs import make_batch
from ..peers import DETECTRON2, OURS, build_pair, detectron2_cfg
from ..precision import autocast, full_precision, products
from ..runner import Benchmark
from ..settings import Settings

__all__ = ["run_predict"]

BATCH = 8
PICTURES = 24
FILE_SIZE = 0.6  # of the network's input, as COCO's 480 x 640 at 800 px


def run_predict(bench: Benchmark) -> None:
    """Pictures per second of ``Predictor.stream`` and of ``DefaultPredictor``, same weights.

    Both read JPEG files; only the first of them reads some while it computes others.
    """
    settings, task = bench.settings, "predict"
    with tempfile.TemporaryDirectory() as folder:
        paths = write_pictures(Path(folder), settings)
        theirs, ours = _predictors(Path(folder), settings)

        def loop() -> list[Instances]:
            # As Detectron2's demo reads: its predictor takes BGR.
            return [theirs(read_image(path, format="BGR"))["instances"] for path in paths]

        def stream(batch_size: int = BATCH) -> list[Instances]:
            return [_found(x) for x in ours.stream(paths, batch_size)]

        with full_precision():
            expected = [x.to("cpu") for x in loop()]
            thresh = settings.cfg.MODEL.RETINANET.SCORE_THRESH_TEST
            limit = settings.cfg.TEST.DETECTIONS_PER_IMAGE
            # One by one: another batch size rounds otherwise, which decides close cases of NMS.
            bench.agree(task, compare_detections(task, expected, stream(1), thresh, limit))
        works = {OURS: _in_precision(stream, settings), DETECTRON2: _in_precision(loop, settings)}
        what = f"predict, {len(paths)} files, batch {BATCH}"
        note = "Detectron2's DefaultPredictor one by one"
        bench.time(task, what, works, images=len(paths), note=note)


def write_pictures(folder: Path, settings: Settings) -> list[str]:
    """JPEG files that are resized to about the settings' size; their paths."""
    height, width = (max(1, round(side * FILE_SIZE)) for side in settings.size)
    paths = []
    for i, entry in enumerate(make_batch(settings, min(PICTURES, settings.images))):
        pixels = np.ascontiguousarray(entry["image"].numpy().transpose(1, 2, 0))
        paths.append(str(folder / f"{i:03d}.jpg"))
        Image.fromarray(pixels).resize((width, height)).save(paths[-1], quality=90)
    return paths


def _predictors(folder: Path, settings: Settings) -> tuple[DefaultPredictor, Predictor]:
    weights = folder / "model.pth"
    model, _ = build_pair(settings)
    torch.save({"model": model.state_dict()}, weights)
    cfg = settings.cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS = str(weights)
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = min(settings.size), 2 * max(settings.size)
    names = [f"class {i}" for i in range(settings.num_classes)]
    return DefaultPredictor(_unnamed(detectron2_cfg(cfg))), Predictor(cfg, class_names=names)


def _unnamed(cfg: CfgNode) -> CfgNode:
    """Without datasets, whose metadata DefaultPredictor would look up."""
    cfg.defrost()
    cfg.DATASETS.TEST = ()
    return cfg


def _found(result: Any) -> Instances:
    if isinstance(result, FailedPicture):
        raise RuntimeError(result.reason)
    return result.instances


def _in_precision(work: Callable[[], Any], settings: Settings) -> Callable[[], Any]:
    def in_precision() -> Any:
        with products(settings.precision), autocast(settings.precision, settings.device):
            return work()

    return in_precision
