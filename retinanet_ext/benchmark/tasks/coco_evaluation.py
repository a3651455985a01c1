"""Evaluation of boxes with COCO's metrics: Detectron2's evaluator against ours."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, Instances

from ...data.datasets.register import register_coco_dataset
from ...evaluation import build_evaluator
from ...evaluation.backend import fast_engine
from ..agreement import compare_metrics
from ..inputs import random_gt
from ..peers import DETECTRON2, OURS
from ..runner import Benchmark
from ..settings import Settings

__all__ = ["run_evaluation"]

SIZE = (480, 640)  # height and width in pixels, a usual size in COCO
MAX_OBJECTS = 14
FALSE_POSITIVES = 30


def run_evaluation(bench: Benchmark) -> None:
    """Fabricated predictions of synthetic images against their ground truth."""
    settings = bench.settings
    with tempfile.TemporaryDirectory() as folder:
        truth = synthetic_truth(settings)
        outputs = [{"instances": x} for x in noisy_predictions(truth, settings.num_classes)]
        inputs = [
            {"image_id": i, "height": SIZE[0], "width": SIZE[1], "file_name": f"{i}.jpg"}
            for i in range(1, settings.images + 1)
        ]
        with coco_dataset(Path(folder), truth, settings.num_classes) as name:
            limit = settings.cfg.TEST.DETECTIONS_PER_IMAGE
            theirs = COCOEvaluator(
                name,
                tasks=("bbox",),
                output_dir=f"{folder}/theirs",
                max_dets_per_image=limit,
                use_fast_impl=False,
            )
            ours = build_evaluator(settings.cfg, name, f"{folder}/ours")
            works = {
                OURS: evaluation_work(ours, inputs, outputs),
                DETECTRON2: evaluation_work(theirs, inputs, outputs),
            }
            expected, got = works[DETECTRON2](), works[OURS]()
            bench.agree("evaluation", compare_metrics("evaluation", expected, got))
            engine = "pycocotools" if fast_engine() is None else "faster-coco-eval"
            note = f"ours with {engine}, Detectron2's with pycocotools"
            what = f"COCO evaluation, {settings.images:,} images"
            bench.time("evaluation", what, works, note=note)


def evaluation_work(
    evaluator: Any, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]
) -> Callable[[], dict[str, float]]:
    """Take the predictions and return the metrics of boxes, in percent."""

    def work() -> dict[str, float]:
        evaluator.reset()
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
            evaluator.process(inputs, outputs)
            return evaluator.evaluate()["bbox"]

    return work


def synthetic_truth(settings: Settings) -> list[Instances]:
    """Ground truth of ``settings.images`` images with up to 14 objects each."""
    generator = torch.Generator().manual_seed(4)
    counts = torch.randint(0, MAX_OBJECTS + 1, (settings.images,), generator=generator)
    counts[0] = MAX_OBJECTS  # a single image has something to find
    return [random_gt(SIZE, n, settings.num_classes, generator) for n in counts.tolist()]


def noisy_predictions(truth: list[Instances], num_classes: int) -> list[Instances]:
    """Each object found twice, more or less, some with the wrong class, and boxes of nothing."""
    generator = torch.Generator().manual_seed(5)
    found = []
    for gt in truth:
        boxes = gt.gt_boxes.tensor.repeat(2, 1)
        sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
        boxes = boxes + torch.randn(boxes.shape, generator=generator) * 0.07 * sides
        other = random_gt(SIZE, FALSE_POSITIVES, num_classes, generator)
        classes = torch.cat([gt.gt_classes.repeat(2), other.gt_classes])
        wrong = torch.rand(len(classes), generator=generator) < 0.1
        classes[wrong] = torch.randint(0, num_classes, (int(wrong.sum()),), generator=generator)
        scores = torch.rand(len(classes), generator=generator)
        scores[len(boxes) :] *= 0.6
        found.append(
            Instances(
                SIZE,
                pred_boxes=Boxes(torch.cat([boxes, other.gt_boxes.tensor])),
                pred_classes=classes,
                scores=scores,
            )
        )
    return found


@contextlib.contextmanager
def coco_dataset(folder: Path, truth: list[Instances], num_classes: int) -> Iterator[str]:
    """Name of a registered dataset with this ground truth, whose images need not exist."""
    path = folder / "instances.json"
    path.write_text(json.dumps(_coco_json(truth, num_classes)))
    name = f"retinanet_ext_benchmark_{uuid.uuid4().hex}"
    register_coco_dataset(name, path, folder)
    try:
        DatasetCatalog.get(name)  # sets the class names in the dataset's metadata
        yield name
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def _coco_json(truth: list[Instances], num_classes: int) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, gt in enumerate(truth, start=1):
        images.append(
            {"id": image_id, "file_name": f"{image_id}.jpg", "height": SIZE[0], "width": SIZE[1]}
        )
        boxes = gt.gt_boxes.tensor.tolist()
        for (left, top, right, bottom), label in zip(boxes, gt.gt_classes.tolist(), strict=True):
            width, height = right - left, bottom - top
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": label + 1,
                    "bbox": [left, top, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                }
            )
    categories = [{"id": k + 1, "name": f"class {k}"} for k in range(num_classes)]
    return {"images": images, "annotations": annotations, "categories": categories}
