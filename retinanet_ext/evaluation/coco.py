"""COCO evaluation of boxes: AP and AR, by size and by class, with the same keys every time."""

from __future__ import annotations

import itertools
import json
import logging
import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.evaluation import COCOEvaluator
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

from ..console import SHOWN
from ..errors import InputError, count
from .confusion import count_names, describe_confusion
from .ground_truth import class_table, complete_annotations, ground_truth_json
from .metrics import metrics_table
from .proposals import score_proposals
from .scoring import score_boxes

__all__ = ["COCODetectionEvaluator"]

logger = logging.getLogger(__name__)


class COCODetectionEvaluator(COCOEvaluator):
    """Detectron2's ``COCOEvaluator`` for boxes, with complete and dependable results.

    ``evaluate()`` returns ``{"bbox": {...}}``, in percent, with the keys described in
    :func:`retinanet_ext.evaluation.metrics.box_metrics`; with ``"segm"`` beside it for a model that
    gives masks, and ``{"box_proposals": {...}}`` for one that gives only proposals, see
    :func:`.proposals.score_proposals`. No predictions give 0.0 and a warning instead of NaN. The
    files in ``output_dir`` are Detectron2's: ``instances_predictions.pth`` and
    ``coco_instances_results.json``.

    The numbers are pycocotools'; faster-coco-eval computes them where it is installed and gives
    the same. Detectron2's own C++ evaluation (which it calls unofficial) is never used.

    A dataset without a COCO json is converted to one. The copy in ``output_dir`` carries a hash
    of the dataset's content in its name, so a changed dataset never meets an old copy.
    """

    def __init__(
        self,
        dataset_name: str,
        tasks: Sequence[str] | None = None,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        max_dets_per_image: int | None = None,
        use_fast_impl: bool = True,
    ) -> None:
        """
        Args:
            dataset_name: a dataset with metadata "json_file" (COCO format), or registered in
                Detectron2's standard dicts with metadata "thing_classes".
            tasks: ``("bbox",)`` or None; here because Detectron2's evaluator has it.
            distributed: gather predictions from all processes and evaluate in the main one.
            output_dir: where predictions, and the json of a converted dataset, are written.
            max_dets_per_image: detections that count per image and class; COCO's 100 if None.
            use_fast_impl: False evaluates with pycocotools whatever is installed.

        Raises:
            ValueError: a task other than "bbox", a limit below 1, a dataset without class names.
            KeyError: an unknown dataset.
        """
        if tasks is not None and set(tasks) != {"bbox"}:
            raise InputError(
                f"COCODetectionEvaluator evaluates boxes, but tasks={tuple(tasks)!r}; "
                "for masks and keypoints use detectron2.evaluation.COCOEvaluator"
            )
        if max_dets_per_image is not None and max_dets_per_image < 1:
            raise InputError(
                f"max_dets_per_image (TEST.DETECTIONS_PER_IMAGE) is {max_dets_per_image}; "
                "set it to 1 or more, COCO's value is 100"
            )
        with ground_truth_json(dataset_name, output_dir) as dicts:
            super().__init__(dataset_name, ("bbox",), distributed, output_dir, use_fast_impl=False)
        if dicts is not None:  # a converted json has no "annotations" when no image has an object
            self._do_evaluation = any("annotations" in d for d in dicts)
        complete_annotations(dataset_name, self._coco_api)
        self._dataset_name = dataset_name
        self._limit = 100 if max_dets_per_image is None else int(max_dets_per_image)
        self._allow_fast_engine = use_fast_impl
        self.reset()

    def evaluate(self, img_ids: Sequence[Any] | None = None) -> dict[str, dict[str, float]]:
        """Score what :meth:`process` has collected. Call it in every process.

        Args:
            img_ids: image ids to evaluate on; the whole dataset by default.

        Returns:
            ``{"bbox": {metric: percent}}`` in the main process, ``{}`` in the others, and ``{}``
            when the dataset has no annotations (a test set).

        Raises:
            ValueError: predictions that cannot belong to this dataset.
        """
        predictions = self._gather_predictions()
        if predictions is None:
            return {}
        category_ids, class_names = class_table(self._dataset_name, self._coco_api)
        proposals = [x for x in predictions if "proposals" in x]
        if proposals and not any("instances" in x for x in predictions):
            self._write(predictions, [])
            if not self._do_evaluation:
                return {}
            ids = list(self._coco_api.imgs if img_ids is None else img_ids)
            found = score_proposals(self._coco_api, proposals, ids, self._dataset_name)
            return {"box_proposals": found}
        detections = self._as_coco_results(predictions, category_ids)
        self._write(predictions, detections)
        if not self._do_evaluation:
            logger.info("'%s' has no annotations: predictions saved only", self._dataset_name)
            return {}
        image_ids = list(self._coco_api.imgs if img_ids is None else img_ids)
        self._warn_of_oddities(detections)
        arguments = detections, image_ids, category_ids, class_names
        results = {"bbox": self._score(*arguments)}
        if any("segmentation" in x for x in detections):
            if self._has_masks():
                results["segm"] = self._score(*arguments, iou_type="segm")
            else:
                logger.warning("'%s' has no masks to compare with: boxes only", self._dataset_name)
        return results

    def _has_masks(self) -> bool:
        return any(x.get("segmentation") for x in self._coco_api.anns.values())

    def _gather_predictions(self) -> list[dict[str, Any]] | None:
        """One prediction per image from all processes; None outside of the main process."""
        predictions = self._predictions
        if self._distributed:
            comm.synchronize()
            gathered = comm.gather(predictions, dst=0)
            if not comm.is_main_process():
                return None
            predictions = list(itertools.chain(*gathered))
        for prediction in predictions:  # an id of NumPy is the same number, but not to json
            for row in (prediction, *prediction.get("instances", ())):
                if hasattr(row["image_id"], "item"):
                    row["image_id"] = row["image_id"].item()
        # A sampler that pads its last batch repeats images; COCO would count false positives.
        first = {p["image_id"]: p for p in reversed(predictions)}
        if len(first) < len(predictions):
            logger.info("Dropped %d repeated predictions", len(predictions) - len(first))
        unknown = [image_id for image_id in first if image_id not in self._coco_api.imgs]
        if unknown:
            raise InputError(
                f"{len(unknown)} predicted images, e.g. image_id {unknown[0]!r}, are not in the "
                f"ground truth of dataset '{self._dataset_name}'; evaluate on the dataset that "
                "the data loader reads"
            )
        return [first[image_id] for image_id in self._coco_api.imgs if image_id in first]

    def _as_coco_results(
        self, predictions: list[dict[str, Any]], category_ids: list[int]
    ) -> list[dict[str, Any]]:
        """Flatten to COCO results with the dataset's category ids; the input stays as it is."""
        flat = list(itertools.chain(*(p.get("instances", []) for p in predictions)))
        highest = max((det["category_id"] for det in flat), default=-1)
        if highest >= len(category_ids):
            raise InputError(
                f"The model predicts class {highest}, but dataset '{self._dataset_name}' has "
                f"{count(len(category_ids), 'class', 'classes')}; train with "
                f"MODEL.RETINANET.NUM_CLASSES {len(category_ids)}, or evaluate on the dataset it "
                "was trained for"
            )
        return [{**det, "category_id": category_ids[det["category_id"]]} for det in flat]

    def _write(self, predictions: list[dict], detections: list[dict]) -> None:
        if not self._output_dir:
            return
        PathManager.mkdirs(self._output_dir)
        pth = os.path.join(self._output_dir, "instances_predictions.pth")
        with PathManager.open(pth, "wb") as f:
            torch.save(predictions, f)
        results = os.path.join(self._output_dir, "coco_instances_results.json")
        with PathManager.open(results, "w") as f:
            json.dump(detections, f)

    def _warn_of_oddities(self, detections: list[dict]) -> None:
        name = self._dataset_name
        objects = Counter(a["image_id"] for a in self._coco_api.anns.values() if not a["iscrowd"])
        if not objects:
            logger.warning("Dataset '%s' has no objects to find: AP and AR are set to 0", name)
        elif not detections:
            logger.warning("The model detected nothing in '%s': AP and AR are 0", name)
        crowded = sum(count > self._limit for count in objects.values())
        if crowded:
            logger.warning(
                "%d images of '%s' have more than %d objects, the most that can be detected; "
                "raise TEST.DETECTIONS_PER_IMAGE",
                crowded,
                name,
                self._limit,
            )

    def _score(
        self,
        detections: list[dict],
        image_ids: list,
        category_ids: list[int],
        names: list[str],
        iou_type: str = "bbox",
    ) -> dict[str, float]:
        """Compute the metrics and log them as one table."""
        metrics, accuracy = score_boxes(
            self._coco_api,
            detections,
            dict(zip(category_ids, names, strict=True)),
            self._limit,
            image_ids,
            self._allow_fast_engine,
            iou_type,
        )
        chosen = set(image_ids)
        objects = Counter(
            a["category_id"]
            for a in self._coco_api.anns.values()
            if a["image_id"] in chosen and not a["iscrowd"]
        )
        logger.info(
            "%s of '%s' (%d images, %d objects, %d detections) by %s, in percent:\n\n%s\n",
            "Masks" if iou_type == "segm" else "Boxes",
            self._dataset_name,
            len(image_ids),
            sum(objects.values()),
            len(detections),
            accuracy.engine,
            metrics_table(metrics, names, [objects[i] for i in category_ids]),
            extra=SHOWN,
        )
        if iou_type == "segm":
            return metrics
        naming = count_names(self._coco_api, detections, image_ids, self._limit)
        labels = dict(zip(category_ids, names, strict=True))
        confusion = describe_confusion(naming, labels, metrics["AP50any"], metrics["AP50"])
        if confusion:
            logger.info("%s", confusion, extra=SHOWN)
        return metrics
