"""``retinanet-ext convert --verify``: both networks on one picture, theirs by their own toolkit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.modeling import build_model
from PIL import Image
from torch import Tensor, nn

from ...config import get_cfg, validate_cfg
from ...errors import InputError
from ...inference.pictures import Picture, read_pixels
from ...weights.convert.common import ANCHORS, Converted
from ...weights.convert.run import state_of
from ...weights.convert.torchvision import COCO_IDS, COCO_ROWS, ORDER
from ...weights.foreign import read_foreign

__all__ = ["Verified", "check_can_verify", "verify"]

STRIDE = 128  # of P7; torchvision's anchors have it for sides that are a multiple
LARGEST_SIDE = 640
TOLERANCE = 1e-3
"""Of logits and deltas: float rounding of two networks of 50 layers on real pictures."""


@dataclass(frozen=True)
class Verified:
    """Largest differences of logits and deltas, and how many detections each network has."""

    logits: float
    deltas: float
    ours: int
    theirs: int

    @property
    def equal(self) -> bool:
        return max(self.logits, self.deltas) < TOLERANCE and self.ours == self.theirs

    def __str__(self) -> str:
        return (
            f"{'equal' if self.equal else 'NOT equal'}: logits differ by at most "
            f"{self.logits:.1e}, deltas by {self.deltas:.1e}; {self.ours} detections here, "
            f"{self.theirs} there"
        )


def check_can_verify(source: str, config: dict[str, Any]) -> None:
    """
    Raises:
        InputError: the other toolkit is not installed here, or has no builder of that network.
    """
    if source != "torchvision":
        raise InputError(
            "--verify runs the network of the other toolkit, but of these only torchvision is "
            f"installed, and IN is of {source}; leave --verify out"
        )
    has_norm = bool(config["MODEL.RETINANET.NORM"])
    p5 = config["MODEL.FPN.TOP_BLOCK_IN"] == "p5"
    if config["MODEL.RESNETS.DEPTH"] != 50 or p5 == has_norm:
        raise InputError(
            "--verify knows torchvision's retinanet_resnet50_fpn and _v2, and IN is of neither; "
            "leave --verify out"
        )


def verify(path: str, found: Converted, picture: str) -> Verified:
    """Compare the network in a file of torchvision with what it was converted to.

    Args:
        path: of the file.
        found: what it was converted to.
        picture: of any kind; both networks get it at sides that are multiples of 128.

    Raises:
        UserError: the picture cannot be read.
    """
    pixels = _pixels(picture)
    model, theirs = _ours(found), _theirs(path, found.config, pixels)
    with torch.no_grad():
        images = model.preprocess_image([{"image": pixels}])
        maps = model.backbone(images.tensor)
        outputs = model.head([maps[name] for name in model.head_in_features])
        features = list(theirs.backbone(theirs.transform([pixels / 255])[0].tensors).values())
        expected = theirs.head(features)
        ours = model([{"image": pixels}])[0]["instances"]
        there = theirs([pixels / 255])[0]
    counts = [ANCHORS * x.shape[-2] * x.shape[-1] for x in features]
    rows = _rows(found, expected["cls_logits"].shape[-1])
    logits = _difference(outputs.logits, expected["cls_logits"][..., rows], counts)
    deltas = _difference(outputs.deltas, expected["bbox_regression"], counts)
    has_area = ((there["boxes"][:, 2:] - there["boxes"][:, :2]) > 0).all(1)
    known = torch.isin(there["labels"], torch.tensor(rows))
    return Verified(logits, deltas, len(ours), int((has_area & known).sum()))


def _pixels(picture: str) -> Tensor:
    """(3, H, W) uint8, red first."""
    image = Image.fromarray(read_pixels(Picture(picture), "RGB"))
    scale = min(1.0, LARGEST_SIDE / max(image.size))
    size = [max(round(x * scale / STRIDE), 1) * STRIDE for x in image.size]
    array = np.array(image.resize(size, Image.Resampling.BILINEAR))
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()


def _ours(found: Converted) -> Any:
    cfg = get_cfg()
    cfg.merge_from_list([x for pair in found.config.items() for x in pair])
    cfg.MODEL.DEVICE = "cpu"
    validate_cfg(cfg)
    model = build_model(cfg).eval()
    model.load_state_dict(found.model, strict=False)
    return model


def _theirs(path: str, config: dict[str, Any], pixels: Tensor) -> Any:
    from torchvision.models.detection import retinanet_resnet50_fpn, retinanet_resnet50_fpn_v2

    state, _ = state_of(read_foreign(path))
    build = retinanet_resnet50_fpn_v2 if config["MODEL.RETINANET.NORM"] else retinanet_resnet50_fpn
    rows = len(state["head.classification_head.cls_logits.bias"]) // ANCHORS
    sides = sorted(pixels.shape[1:])
    model = build(
        weights=None,
        weights_backbone=None,
        num_classes=rows,
        min_size=sides[0],
        max_size=sides[1],
    ).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = config["MODEL.RESNETS.NORM_EPS"]
    model.load_state_dict(state)
    return model


def _rows(found: Converted, total: int) -> list[int]:
    """Which of their classes ours are."""
    count = found.config["MODEL.RETINANET.NUM_CLASSES"]
    if total == COCO_ROWS and count == len(COCO_IDS):
        return list(COCO_IDS)
    return list(range(total - count, total))


def _difference(ours: list[Tensor], theirs: Tensor, counts: list[int]) -> float:
    width, largest = theirs.shape[-1], 0.0
    for level, other in zip(ours, theirs[0].split(counts), strict=True):
        flat = level[0].unflatten(0, (-1, width)).permute(2, 3, 0, 1).flatten(0, 2)
        expected = other.unflatten(0, (-1, ANCHORS))[:, ORDER].flatten(0, 1)
        largest = max(largest, float((flat - expected).abs().max()))
    return largest
