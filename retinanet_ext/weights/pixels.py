"""Whether the model gets the pixels that its pretrained weights were trained on."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from detectron2.config import CfgNode

from ..errors import ConfigError

__all__ = ["check_timm_pixels", "refuse_other_pixels"]

_TIMM_BACKBONES = ("build_timm_backbone", "build_timm_fpn_p6p7")


def refuse_other_pixels(
    named: str,
    wanted: tuple[Sequence[float], Sequence[float]],
    input_format: str,
    pixel_mean: Sequence[float],
    pixel_std: Sequence[float],
) -> None:
    """Refuse pixels that weights were not trained on.

    Args:
        named: the weights, as the start of a sentence: the key and its value.
        wanted: their mean and standard deviation of red, green and blue, from 0 to 255.
        input_format: order of the channels, ``"RGB"`` or ``"BGR"``.
        pixel_mean, pixel_std: per channel, in that order.

    Raises:
        ConfigError: names the keys and their values.
    """
    values = {"MODEL.PIXEL_MEAN": wanted[0], "MODEL.PIXEL_STD": wanted[1]}
    given = {"MODEL.PIXEL_MEAN": pixel_mean, "MODEL.PIXEL_STD": pixel_std}
    right = input_format == "RGB" and all(
        len(given[k]) == 3 and all(abs(a - b) <= 0.5 for a, b in zip(given[k], v, strict=True))
        for k, v in values.items()
    )
    if not right:
        settings = " ".join(f'{k} "{[round(x, 3) for x in v]}"' for k, v in values.items())
        raise ConfigError(
            f"{named}, trained on other pixels than INPUT.FORMAT "
            f"'{input_format}' with MODEL.PIXEL_MEAN {list(pixel_mean)} and MODEL.PIXEL_STD "
            f"{list(pixel_std)}, which would make it worse without a word; set INPUT.FORMAT RGB "
            f"{settings}"
        )


def check_timm_pixels(cfg: CfgNode) -> None:
    """Refuse other pixels than those of the weights that MODEL.TIMM asks for.

    Nothing is checked where MODEL.WEIGHTS replace them, or where timm does not know.

    Raises:
        ConfigError: names the keys to set.
    """
    node, name = cfg.MODEL.get("TIMM"), cfg.MODEL.BACKBONE.NAME
    if name == "build_fpn_backbone_p6p7":
        name = cfg.MODEL.FPN.BOTTOM_UP
    if node is None or name not in _TIMM_BACKBONES or cfg.MODEL.WEIGHTS:
        return
    if not node.PRETRAINED and not node.CHECKPOINT:
        return
    try:
        found = importlib.import_module("timm").get_pretrained_cfg(node.NAME)
    except (ImportError, RuntimeError):  # of the network, its builder has to say more
        return
    if found is None:
        return
    statistics = tuple(tuple(255 * float(x) for x in v) for v in (found.mean, found.std))
    asked = "PRETRAINED is True" if node.PRETRAINED else f"CHECKPOINT is '{node.CHECKPOINT}'"
    named = f"MODEL.TIMM.{asked} with the weights of {node.NAME}"
    refuse_other_pixels(
        named,
        (statistics[0], statistics[1]),
        cfg.INPUT.FORMAT,
        cfg.MODEL.PIXEL_MEAN,
        cfg.MODEL.PIXEL_STD,
    )
