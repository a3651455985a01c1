"""Pictures in files to detections: our Predictor against a loop of Detectron2's."""

from __future__ import annotations

import functools
import importlib.util
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data.detection_utils import read_image
from detectron2.engine import DefaultPredictor
from detectron2.structures import Instances
from PIL import Image

from ...export import ExportOptions, export
from ...export.quantize import FEWEST_PICTURES
from ...inference import FailedPicture, Predictor
from ...modeling.speedups.settings import best_autocast
from ..agreement import compare_detections
from ..inputs import make_batch
from ..peers import DETECTRON2, OURS, build_pair, detectron2_cfg
from ..precision import autocast, full_precision, products
from ..runner import Benchmark
from ..settings import Settings

__all__ = ["run_predict"]

BATCH = 8
MOST_PICTURES = 96
ROUND = 6.0
"""Seconds that both sides together take for the pictures, as far as one batch is not more."""
FILE_SIZE = 0.6  # of the network's input, as COCO's 480 x 640 at 800 px
INT8_BELOW = 2.0
"""Seconds of a picture up to which 8 bits are measured: making them takes many times as long."""


def run_predict(bench: Benchmark) -> None:
    """Pictures per second of ``Predictor.stream`` and of ``DefaultPredictor``, same weights.

    Both read JPEG files; only the first of them reads some while it computes others. Rows of their
    own show what is not exact: bfloat16 where the processor has it, and the model exported in 8
    bits where ONNX Runtime is installed.
    """
    settings, task = bench.settings, "predict"
    with tempfile.TemporaryDirectory() as folder:
        paths = write_pictures(Path(folder), settings, 1)
        cfg = _model_cfg(Path(folder), settings)
        names = [f"class {i}" for i in range(settings.num_classes)]
        theirs = DefaultPredictor(_unnamed(detectron2_cfg(cfg)))
        ours = Predictor(cfg, class_names=names)

        def loop() -> list[Instances]:
            # As Detectron2's demo reads: its predictor takes BGR.
            return [theirs(read_image(path, format="BGR"))["instances"] for path in paths]

        def stream(predictor: Predictor = ours, batch_size: int = BATCH) -> list[Instances]:
            return [_found(x) for x in predictor.stream(paths, batch_size)]

        seconds = _seconds(loop) + _seconds(stream)
        count = min(_num_pictures(seconds), settings.images)
        paths = write_pictures(Path(folder), settings, count)
        with full_precision():
            expected = [x.to("cpu") for x in loop()]
            thresh = settings.cfg.MODEL.RETINANET.SCORE_THRESH_TEST
            limit = settings.cfg.TEST.DETECTIONS_PER_IMAGE
            # One by one: another batch size rounds otherwise, which decides close cases of NMS.
            found = stream(batch_size=1)
            bench.agree(task, compare_detections(task, expected, found, thresh, limit))
        works = {OURS: stream, DETECTRON2: loop}
        for name, predictor in _inexact(bench, Path(folder), cfg, names, seconds).items():
            works[f"{OURS}, {name}"] = functools.partial(stream, predictor)
        works = {side: _in_precision(work, settings) for side, work in works.items()}
        what = f"predict, {len(paths)} files, batch {BATCH}"
        note = "Detectron2's DefaultPredictor one by one"
        bench.time(task, what, works, images=len(paths), note=note)


def write_pictures(folder: Path, settings: Settings, count: int) -> list[str]:
    """So many JPEG files that are resized to about the settings' size; their paths."""
    height, width = (max(1, round(side * FILE_SIZE)) for side in settings.size)
    paths = []
    for i, entry in enumerate(make_batch(settings, count)):
        pixels = np.ascontiguousarray(entry["image"].numpy().transpose(1, 2, 0))
        paths.append(str(folder / f"{i:03d}.jpg"))
        Image.fromarray(pixels).resize((width, height)).save(paths[-1], quality=90)
    return paths


def _seconds(work: Callable[[], object]) -> float:
    """Of a call after a first one, which takes longer."""
    work()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _num_pictures(seconds: float) -> int:
    """How many pictures, in whole batches, make a round.

    Args:
        seconds: of both sides for one picture.
    """
    batches = int(ROUND / max(seconds, 1e-6) / BATCH)
    return BATCH * min(max(1, batches), MOST_PICTURES // BATCH)


def _model_cfg(folder: Path, settings: Settings) -> CfgNode:
    """The settings' config with weights in a file, resizing to their size, in exact float32."""
    weights = folder / "model.pth"
    model, _ = build_pair(settings)
    torch.save({"model": model.state_dict()}, weights)
    cfg = settings.cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS = str(weights)
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = min(settings.size), 2 * max(settings.size)
    cfg.MODEL.SPEEDUPS.AUTOCAST = ""
    return cfg


def _inexact(
    bench: Benchmark, folder: Path, cfg: CfgNode, names: Sequence[str], seconds: float
) -> dict[str, Predictor]:
    """Predictors that round more than float32 does, by the name of their row."""
    found: dict[str, Predictor] = {}
    autocast = best_autocast(torch.device(cfg.MODEL.DEVICE))
    if autocast and bench.settings.precision in ("float32", "tf32"):
        cfg = cfg.clone()
        cfg.MODEL.SPEEDUPS.AUTOCAST = autocast
        found[autocast] = Predictor(cfg, class_names=names)
        cfg.MODEL.SPEEDUPS.AUTOCAST = ""
    packages = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))
    if not packages or not cfg.MODEL.DEVICE.startswith("cpu"):
        return found
    if seconds > INT8_BELOW:
        bench.say(f"predict: without int8, whose export takes long at {seconds:.1f} s a picture")
        return found
    bench.say("predict: exporting in int8, of random pictures: only for its time")
    calibrate = folder / "calibrate"
    calibrate.mkdir()
    options = ExportOptions(
        str(folder / "int8"),
        head="raw",
        exporter="torchscript",
        precision="int8",
        calibrate=write_pictures(calibrate, bench.settings, FEWEST_PICTURES),
        force=True,
    )
    export(cfg, options)
    found["int8 by ONNX Runtime"] = Predictor.from_export(options.output)
    return found


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
