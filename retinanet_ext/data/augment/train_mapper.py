"""The dataset mapper of training, with the augmentations of ``INPUT.AUG``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import detection_utils as utils
from detectron2.structures import Boxes, BoxMode

from ...errors import InputError
from ..loading.bad_images import describe
from ..loading.ignore_mapper import IgnoreRegionMapper, is_ignored, wants_ignored
from ..loading.pixels import PictureMapper, read_picture
from .parse import Step, check_augmentations, is_default, parse_augmentations
from .sample import Sample

__all__ = ["AugmentingMapper", "build_train_mapper", "needs_dataset"]

logger = logging.getLogger(__name__)


def needs_dataset(cfg: CfgNode) -> bool:
    """Whether an augmentation of ``INPUT.AUG`` takes further images of the dataset."""
    return any(step.is_mosaic for step in parse_augmentations(cfg))


def build_train_mapper(
    cfg: CfgNode, dataset: Sequence[dict[str, Any]] | None = None
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The mapper of training: Detectron2's own unless ``INPUT.AUG`` asks for more.

    Args:
        cfg: the config.
        dataset: all images, for the augmentations that take several; see :func:`needs_dataset`.

    Raises:
        KeyError, ValueError: ``INPUT.AUG`` cannot work, or ``dataset`` is missing.
    """
    check_augmentations(cfg)
    if is_default(cfg):
        return (IgnoreRegionMapper if wants_ignored(cfg) else PictureMapper)(cfg, is_train=True)
    return AugmentingMapper(
        parse_augmentations(cfg),
        image_format=cfg.INPUT.FORMAT,
        min_visible=cfg.INPUT.AUG_MIN_VISIBLE,
        wants_ignored=wants_ignored(cfg),
        dataset=dataset,
        sixteen_bit=cfg.INPUT.SIXTEEN_BIT,
    )


class AugmentingMapper:
    """From one of Detectron2's dataset dicts to what the detector trains on; boxes only.

    The result is that of :class:`~retinanet_ext.data.IgnoreRegionMapper`. Boxes are checked and
    clipped after each augmentation, so that none grows into what is filled later. Random numbers
    come from numpy's global generator, which the training stream seeds for each sample.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        image_format: str = "BGR",
        min_visible: float = 0.0,
        wants_ignored: bool = True,
        dataset: Sequence[dict[str, Any]] | None = None,
        sixteen_bit: str = "",
    ):
        """
        Args:
            steps: the augmentations in their order.
            image_format: of the result, "BGR" or "RGB".
            min_visible: boxes with less than this fraction of their area left are dropped; [0, 1).
            wants_ignored: whether ``iscrowd`` and ``ignore`` boxes are given as ``ignore_boxes``.
                Otherwise, as in Detectron2, crowds are left out and ``ignore`` means nothing.
            dataset: all images; needed for a mosaic.
            sixteen_bit: ``INPUT.SIXTEEN_BIT``.

        Raises:
            ValueError: there is a mosaic but no dataset.
        """
        if dataset is None and any(step.is_mosaic for step in steps):
            raise InputError("INPUT.AUG has a Mosaic, so the mapper needs the dataset; pass it")
        self.steps = list(steps)
        self.image_format = image_format
        self.min_visible = min_visible
        self.wants_ignored = wants_ignored
        self.dataset = dataset
        self.sixteen_bit = sixteen_bit
        names = [f"{x.name} ({x.prob:g})" if x.prob < 1 else x.name for x in self.steps]
        logger.info("augmentations in training (probability): %s", ", ".join(names))

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Load and augment an image.

        Returns:
            ``dataset_dict`` without annotations, and with ``image`` (3, H, W) uint8, ``instances``
            and where wanted ``ignore_boxes``, as :class:`IgnoreRegionMapper` gives them.

        Raises:
            ValueError, OSError: the image or its boxes cannot be used.
        """
        sample = self._run(dataset_dict, len(self.steps))
        left_out = ("annotations", "sem_seg_file_name")
        result = {key: value for key, value in dataset_dict.items() if key not in left_out}
        image = sample.image[:, :, ::-1] if self.image_format == "BGR" else sample.image
        result["image"] = torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1)))
        if "annotations" in dataset_dict:
            self._add_boxes(result, sample)
        return result

    def _run(self, dataset_dict: dict[str, Any], num_steps: int) -> Sample:
        """Load an image and apply the first steps."""
        sample = self._load(dataset_dict)
        for i, step in enumerate(self.steps[:num_steps]):
            if step.prob < 1 and np.random.rand() >= step.prob:
                continue
            for augmentation in step.augmentations:
                if step.is_mosaic:
                    sample = augmentation(sample, lambda i=i: self._draw(i), self.min_visible)
                else:
                    sample = sample.augment(augmentation, self.min_visible)
        return sample

    def _draw(self, num_steps: int) -> Sample:
        """Another image of the dataset after the first steps."""
        assert self.dataset is not None
        other = self.dataset[np.random.randint(len(self.dataset))]
        try:
            return self._run(other, num_steps)
        except MemoryError:
            raise
        except Exception as error:  # the caller would name the file of the first image
            raise InputError(f"Mosaic: {describe(other, error)}") from error

    def _load(self, dataset_dict: dict[str, Any]) -> Sample:
        image = read_picture(dataset_dict["file_name"], "RGB", self.sixteen_bit)
        utils.check_image_size(dataset_dict, image)
        annotations = dataset_dict.get("annotations", [])
        if not self.wants_ignored:
            annotations = [x for x in annotations if not x.get("iscrowd", 0)]
        boxes = [BoxMode.convert(x["bbox"], x["bbox_mode"], BoxMode.XYXY_ABS) for x in annotations]
        corners = np.array(boxes, dtype=np.float64).reshape(-1, 2, 2)
        # In order, as the box of Detectron2's transforms is.
        ordered = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
        return Sample.create(
            image,
            ordered,
            np.array([x["category_id"] for x in annotations], dtype=np.int64),
            np.array([self.wants_ignored and is_ignored(x) for x in annotations], dtype=bool),
        )

    def _add_boxes(self, result: dict[str, Any], sample: Sample) -> None:
        learned = ~sample.ignored
        rows = zip(sample.boxes[learned], sample.classes[learned], strict=True)
        annotations = [
            {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": int(k)} for box, k in rows
        ]
        instances = utils.annotations_to_instances(annotations, sample.image.shape[:2])
        result["instances"] = utils.filter_empty_instances(instances)
        if self.wants_ignored:
            boxes = Boxes(torch.as_tensor(sample.boxes[sample.ignored], dtype=torch.float32))
            result["ignore_boxes"] = boxes[boxes.nonempty()]
