"""A dataset mapper that keeps what is not to be learned, which Detectron2's throws away."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import detection_utils as utils
from detectron2.structures import Boxes

from .pixels import PictureMapper

__all__ = ["IgnoreRegionMapper", "is_ignored", "wants_ignored"]


class IgnoreRegionMapper(PictureMapper):
    """Detectron2's :class:`DatasetMapper`, which also gives the boxes of ignored regions.

    Annotations with ``iscrowd: 1`` or ``ignore: 1`` are no ``instances``; their boxes go to the
    entry ``ignore_boxes`` of the result instead: Boxes (I, 4), absolute XYXY pixels of the
    augmented image, clipped to it, without those that lie outside; I may be 0. The entry is missing
    where the dataset has no annotations, and outside of training.

    It is made and called as Detectron2's: from a config or from arguments, with any augmentations.
    Detectron2's COCO loader refuses a file with ``ignore: 1``: there, ``iscrowd: 1`` says the same.
    """

    def _transform_annotations(
        self, dataset_dict: dict[str, Any], transforms: Any, image_shape: tuple[int, int]
    ) -> None:
        annotations = dataset_dict["annotations"]
        ignored = [x for x in annotations if is_ignored(x)]
        boxes = [_transform_box(x, transforms, image_shape) for x in ignored]
        ignore_boxes = Boxes(torch.as_tensor(np.array(boxes)).reshape(-1, 4))
        dataset_dict["ignore_boxes"] = ignore_boxes[ignore_boxes.nonempty()]
        dataset_dict["annotations"] = [x for x in annotations if not is_ignored(x)]
        super()._transform_annotations(dataset_dict, transforms, image_shape)


def is_ignored(annotation: dict[str, Any]) -> bool:
    """Whether an annotation marks a region that is not to be learned."""
    return bool(annotation.get("iscrowd", 0) or annotation.get("ignore", 0))


def wants_ignored(cfg: CfgNode) -> bool:
    """Whether the model of ``cfg`` takes the entry ``ignore_boxes`` into account.

    Detectron2's RetinaNet would not see these regions, and lose the objects in them.
    """
    node = cfg.MODEL
    return node.META_ARCHITECTURE == "RetinaNetExt" and node.RETINANET.IGNORE_IOF_THRESH <= 1


def _transform_box(annotation: dict[str, Any], transforms: Any, shape: tuple[int, int]) -> Any:
    # Only the box: the mask of a crowd is in a format that the mapper need not know.
    box = {key: annotation[key] for key in ("bbox", "bbox_mode")}
    return utils.transform_instance_annotations(box, transforms, shape)["bbox"]
