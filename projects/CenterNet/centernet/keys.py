"""The config keys of CenterNet, MODEL.CENTERNET, and what they must be together."""

from __future__ import annotations

from detectron2.config import CfgNode

from retinanet_ext import get_cfg, register_config_key
from retinanet_ext.config.keys import differ
from retinanet_ext.config.load import flatten
from retinanet_ext.errors import InputError
from retinanet_ext.registry import CLS_LOSS_REGISTRY

__all__ = ["RADII", "SECTION", "SIZE_UNITS", "check_centernet"]

SECTION = "MODEL.CENTERNET"
RADII = ("correct", "authors")
SIZE_UNITS = ("cells", "object")

register_config_key(
    f"{SECTION}.NUM_CLASSES", 80, at_least=1, meaning="the number of object classes"
)
# The output of the backbone that the head stands on; of stride 4 in the paper.
register_config_key(f"{SECTION}.IN_FEATURE", "p2")
# Channels of the 3x3 convolution of each of the three branches (the paper: 64, or 256 over DLA).
register_config_key(f"{SECTION}.HEAD_WIDTH", 64, at_least=1, meaning="a number of channels")
# "" (the paper), or the norm after these convolutions. GN delays the classes: see README.md.
register_config_key(f"{SECTION}.HEAD_NORM", "", choices=("", "BN", "GN", "SyncBN"))
# What the branch of the sizes is multiplied by, in cells; 1 is the paper. An optimizer that moves
# each weight by about the learning rate reaches sizes of tens of cells only after many steps.
register_config_key(f"{SECTION}.SIZE_SCALE", 1.0, above=0)
# Channels of the three steps up of build_resnet_upsampling_backbone, from stride 32 to 4.
register_config_key(f"{SECTION}.UPSAMPLING_CHANNELS", [256, 128, 64])

# How far from the centre of an object the heat reaches: as far as a box of its size, moved or
# grown that much, keeps MIN_OVERLAP with it. "correct" solves that; "authors" is the formula of the
# authors' code, whose roots are 3.3 times as large at 0.7.
register_config_key(f"{SECTION}.RADIUS", "correct", choices=RADII)
register_config_key(
    f"{SECTION}.MIN_OVERLAP", 0.7, above=0, below=1, meaning="an IoU that the heat goes by"
)
# Entry of CLS_LOSS_REGISTRY that has uses_heat; HeatmapFocal reads the next two: the paper's alpha,
# an exponent of the score, and its beta, one of 1 minus the heat.
register_config_key(f"{SECTION}.CLS_LOSS", "HeatmapFocal")
register_config_key(f"{SECTION}.FOCAL_LOSS_GAMMA", 2.0, at_least=0)
register_config_key(f"{SECTION}.HEATMAP_FOCAL_BETA", 4.0, at_least=0)
# How many cells around the centre learn size and offset too: 0 is the paper. Peaks are often a cell
# off, above all after few steps, and one cell per object teaches little.
register_config_key(f"{SECTION}.BOX_REACH", 0, at_least=0, at_most=8, meaning="a number of cells")
# What the size's error is counted in: "cells" (the paper), where large objects outweigh small ones
# and the heat; or "object", shares of the object's own width and height, as an IoU sees it.
register_config_key(f"{SECTION}.SIZE_LOSS_UNIT", "cells", choices=SIZE_UNITS)
# What the L1 losses of size and offset are multiplied by.
register_config_key(f"{SECTION}.SIZE_LOSS_WEIGHT", 0.1, at_least=0)
register_config_key(f"{SECTION}.OFFSET_LOSS_WEIGHT", 1.0, at_least=0)

# Peaks with a score above this are detections, TEST.DETECTIONS_PER_IMAGE at most.
register_config_key(f"{SECTION}.SCORE_THRESH_TEST", 0.05, at_least=0, at_most=1)
# NMS among the peaks: "none" (the paper), among those of one class, or among all.
register_config_key(f"{SECTION}.NMS_KIND", "none", choices=("none", "per_class", "class_agnostic"))
register_config_key(
    f"{SECTION}.NMS_THRESH_TEST",
    0.5,
    at_least=0,
    at_most=1,
    only_with=("NMS_KIND", ("per_class", "class_agnostic")),
)

# Sections of other detectors, none of which is read here.
_OF_OTHERS = (
    "MODEL.RETINANET",
    "MODEL.SPEEDUPS",
    "MODEL.ANCHOR_GENERATOR",
    "MODEL.PROPOSAL_GENERATOR",
    "MODEL.RPN",
    "MODEL.ROI_HEADS",
    "MODEL.ROI_BOX_HEAD",
    "MODEL.ROI_MASK_HEAD",
    "MODEL.ROI_KEYPOINT_HEAD",
    "MODEL.SEM_SEG_HEAD",
    "MODEL.PANOPTIC_FPN",
)


def check_centernet(cfg: CfgNode) -> None:
    """Raise InputError for a loss that reads no heat map, or for a key that nobody reads."""
    name = cfg.MODEL.CENTERNET.CLS_LOSS
    known = [x for x, loss in sorted(CLS_LOSS_REGISTRY) if getattr(loss, "uses_heat", False)]
    if name not in known:
        raise InputError(
            f"{SECTION}.CLS_LOSS is '{name}', which is no loss of a heat map; set it to "
            f"{' or '.join(known)}, or give a loss of yours uses_heat = True"
        )
    _refuse_keys_of_others(cfg)
    for key in ("MASK_ON", "KEYPOINT_ON"):
        if cfg.MODEL[key]:
            raise InputError(f"MODEL.{key} is True, but CenterNet gives boxes only; set it False")


def _refuse_keys_of_others(cfg: CfgNode) -> None:
    """Raise InputError for a changed key that other detectors read, with the one that is meant."""
    defaults, values = dict(flatten(get_cfg())), dict(flatten(cfg))
    for key, value in values.items():
        section, _, last = key.rpartition(".")
        # The trainer reads FREEZE, whatever the model is.
        if section not in _OF_OTHERS or last == "FREEZE" or not differ(value, defaults[key]):
            continue
        own = f"{SECTION}.{last}"
        hint = f"set {own} instead" if own in values else "remove it"
        raise InputError(f"{key} is {value!r}, but CenterNet does not read {section}; {hint}")
