"""The detector that a config asks for: plain, by tiles, by several views, or both."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from torch import nn

from ..errors import InputError
from .detector import Detector, PlainDetector
from .pooled.detector import PooledDetector
from .pooled.merge import Merger
from .pooled.tiles import Tiling
from .pooled.views import is_plain, views_of

__all__ = ["build_detector", "describe_detector", "is_pooled"]


def is_pooled(cfg: CfgNode) -> bool:
    """Whether the config asks for tiles or views, and not for each picture once."""
    return bool(cfg.TEST.TILES.SIZE) or not is_plain(cfg)


def build_detector(cfg: CfgNode, model: nn.Module) -> Detector:
    """The detector of ``TEST.TILES``, ``TEST.AUG`` and ``TEST.MERGE``.

    Args:
        cfg: the config.
        model: in evaluation mode.

    Raises:
        InputError: the config asks for tiles or views, and the model cannot give candidates; or the
            model gives no detections.
    """
    if cfg.MODEL.META_ARCHITECTURE == "ProposalNetwork":
        raise InputError(
            "MODEL.META_ARCHITECTURE is ProposalNetwork, which gives proposals without classes and "
            "no detections; take a model with a second stage, or evaluate this one's proposals"
        )
    plain = PlainDetector(cfg, model)
    if not is_pooled(cfg):
        return plain
    decoder: Any = getattr(model, "decoder", None)
    if not hasattr(model, "candidates") or not hasattr(decoder, "suppress"):
        raise InputError(
            f"TEST.TILES and TEST.AUG put boxes together before NMS, which {type(model).__name__} "
            "does not give; give it the method candidates of RetinaNetExt and a DenseDecoder, or "
            "set TEST.TILES.SIZE () and TEST.AUG.ENABLED False"
        )
    views = views_of(cfg)
    return PooledDetector(
        plain,
        views,
        Tiling.from_cfg(cfg),
        Merger.from_cfg(cfg, decoder, len(views)),
        cfg.TEST.TILES.BATCH,
        is_plain(cfg),
    )


def describe_detector(cfg: CfgNode) -> str:
    """How often each picture goes through the network, in a sentence; "" for once."""
    if not is_pooled(cfg):
        return ""
    tiling, num_views = Tiling.from_cfg(cfg), len(views_of(cfg))
    text = f"{num_views} views" if num_views > 1 else ""
    if tiling is not None:
        whole = " and the whole picture" if tiling.full_image else ""
        text = (
            f"tiles of {tiling.height} x {tiling.width} px that overlap by {tiling.overlap_y} x "
            f"{tiling.overlap_x} px{whole}" + (f", {text} of each" if text else "")
        )
        side = max(tiling.height, tiling.width) * 4
        count = len(tiling.tiles_of(side, side)) + tiling.full_image
        return (
            f"{text}; a picture of {side} x {side} px goes through the network "
            f"{count * num_views} times"
        )
    return f"{text} of each picture, which goes through the network so many times"
