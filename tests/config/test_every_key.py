"""Every key of Detectron2's defaults, changed once under RetinaNetExt: done, refused or warned of.

Nothing passes without a word. What a later version makes work moves from ``REFUSED`` to ``DONE``.
"""

from __future__ import annotations

import inspect
import re
from functools import cache
from pathlib import Path
from typing import Any

import detectron2
import pytest
import torch
from detectron2.config import get_cfg as get_detectron2_cfg
from detectron2.modeling import build_model

import retinanet_ext
from retinanet_ext import get_cfg, load_config_file, validate_cfg
from retinanet_ext.config import flatten
from retinanet_ext.errors import InputError

# Key -> a value that changes what is built, trained, written or evaluated.
DONE: dict[str, Any] = {
    "MODEL.DEVICE": "cpu",
    "MODEL.META_ARCHITECTURE": "RetinaNet",
    "MODEL.WEIGHTS": "model.pth",
    "MODEL.PIXEL_MEAN": [0.0, 0.0, 0.0],
    "MODEL.PIXEL_STD": [57.0, 57.0, 57.0],
    "MODEL.BACKBONE.NAME": "build_fpn_backbone_p6p7",
    "MODEL.BACKBONE.FREEZE_AT": 3,
    "MODEL.FPN.IN_FEATURES": ["res4", "res5"],
    "MODEL.FPN.OUT_CHANNELS": 64,
    "MODEL.FPN.NORM": "GN",
    "MODEL.FPN.FUSE_TYPE": "avg",
    "MODEL.ANCHOR_GENERATOR.NAME": "DefaultAnchorGenerator",
    "MODEL.ANCHOR_GENERATOR.SIZES": [[8.0], [16.0], [32.0], [64.0], [128.0]],
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[1.0]],
    "MODEL.ANCHOR_GENERATOR.OFFSET": 0.5,
    "MODEL.RETINANET.NUM_CLASSES": 3,
    "MODEL.RETINANET.IN_FEATURES": ["p4", "p5", "p6", "p7", "p3"],
    "MODEL.RETINANET.NUM_CONVS": 2,
    "MODEL.RETINANET.IOU_THRESHOLDS": [0.3, 0.5],
    "MODEL.RETINANET.IOU_LABELS": [0, 0, 1],
    "MODEL.RETINANET.PRIOR_PROB": 0.02,
    "MODEL.RETINANET.SCORE_THRESH_TEST": 0.1,
    "MODEL.RETINANET.TOPK_CANDIDATES_TEST": 500,
    "MODEL.RETINANET.NMS_THRESH_TEST": 0.6,
    "MODEL.RETINANET.BBOX_REG_WEIGHTS": (2.0, 2.0, 1.0, 1.0),
    "MODEL.RETINANET.FOCAL_LOSS_GAMMA": 1.0,
    "MODEL.RETINANET.FOCAL_LOSS_ALPHA": 0.5,
    "MODEL.RETINANET.SMOOTH_L1_LOSS_BETA": 0.5,
    "MODEL.RETINANET.BBOX_REG_LOSS_TYPE": "giou",
    "MODEL.RETINANET.NORM": "GN",
    "MODEL.RESNETS.DEPTH": 101,
    "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.RESNETS.NUM_GROUPS": 2,
    "MODEL.RESNETS.NORM": "BN",
    "MODEL.RESNETS.WIDTH_PER_GROUP": 32,
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.RESNETS.RES5_DILATION": 1,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 128,
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 32,
    "MODEL.RESNETS.DEFORM_ON_PER_STAGE": [False, False, False, True],
    "INPUT.MIN_SIZE_TRAIN": (640,),
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": "range",
    "INPUT.MAX_SIZE_TRAIN": 1000,
    "INPUT.MIN_SIZE_TEST": 640,
    "INPUT.MAX_SIZE_TEST": 1000,
    "INPUT.RANDOM_FLIP": "vertical",
    "INPUT.CROP.ENABLED": True,
    "INPUT.FORMAT": "RGB",
    "DATASETS.TRAIN": ("mine",),
    "DATASETS.TEST": ("mine",),
    "DATALOADER.NUM_WORKERS": 1,
    "DATALOADER.ASPECT_RATIO_GROUPING": False,
    "DATALOADER.SAMPLER_TRAIN": "RepeatFactorTrainingSampler",
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS": False,
    "SOLVER.LR_SCHEDULER_NAME": "WarmupCosineLR",
    "SOLVER.MAX_ITER": 100000,
    "SOLVER.BASE_LR": 0.01,
    "SOLVER.MOMENTUM": 0.8,
    "SOLVER.NESTEROV": True,
    "SOLVER.WEIGHT_DECAY": 0.001,
    "SOLVER.WEIGHT_DECAY_NORM": 0.1,
    "SOLVER.WEIGHT_DECAY_BIAS": 0.1,
    "SOLVER.GAMMA": 0.5,
    "SOLVER.STEPS": (1000,),
    "SOLVER.WARMUP_FACTOR": 0.1,
    "SOLVER.WARMUP_ITERS": 10,
    "SOLVER.WARMUP_METHOD": "constant",
    "SOLVER.RESCALE_INTERVAL": True,
    "SOLVER.CHECKPOINT_PERIOD": 100,
    "SOLVER.IMS_PER_BATCH": 2,
    "SOLVER.REFERENCE_WORLD_SIZE": 8,
    "SOLVER.BIAS_LR_FACTOR": 2.0,
    "SOLVER.CLIP_GRADIENTS.ENABLED": True,
    "SOLVER.AMP.ENABLED": True,
    "TEST.EVAL_PERIOD": 100,
    "TEST.DETECTIONS_PER_IMAGE": 50,
    "TEST.AUG.ENABLED": True,
    "TEST.PRECISE_BN.ENABLED": True,
    "OUTPUT_DIR": "elsewhere",
    "SEED": 3,
    "CUDNN_BENCHMARK": True,
    "VIS_PERIOD": 10,
}
# What makes a value of DONE a change that can work.
NEEDS: dict[str, dict[str, Any]] = {
    "MODEL.ANCHOR_GENERATOR.SIZES": {"MODEL.ANCHOR_GENERATOR.NAME": "DefaultAnchorGenerator"},
    "MODEL.FPN.IN_FEATURES": {"MODEL.RETINANET.IN_FEATURES": ["p4", "p5", "p6", "p7"]}
    | {"MODEL.ANCHOR_GENERATOR.OCTAVE_BASE_SIZES": [64.0, 128.0, 256.0, 512.0]},
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": {"INPUT.MIN_SIZE_TRAIN": (640, 800)},
    "MODEL.ANCHOR_GENERATOR.NAME": {"MODEL.ANCHOR_GENERATOR.SIZES": [[8.0]]},
    "SOLVER.LR_SCHEDULER_NAME": {"SOLVER.STEPS": ()},  # of the base config, which would be unread
}
# Without these compiled parts of Detectron2, the model cannot be built; see test_impossible_model.
NEEDS_COMPILED = {"MODEL.RESNETS.DEFORM_ON_PER_STAGE"}

# Key -> a value that is refused, in a sentence that begins with the key.
REFUSED: dict[str, Any] = {
    "VERSION": 1,
    "MODEL.LOAD_PROPOSALS": True,
    "MODEL.MASK_ON": True,
    "MODEL.KEYPOINT_ON": True,
    "MODEL.ANCHOR_GENERATOR.ANGLES": [[0.0]],
    "MODEL.RESNETS.DEFORM_MODULATED": True,
    "MODEL.RESNETS.DEFORM_NUM_GROUPS": 2,
    "INPUT.MASK_FORMAT": "bitmask",
    "DATASETS.PROPOSAL_FILES_TRAIN": ("a.pkl",),
    "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TRAIN": 100,
    "DATASETS.PROPOSAL_FILES_TEST": ("a.pkl",),
    "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST": 100,
    "DATALOADER.REPEAT_THRESHOLD": 0.1,
    "SOLVER.BASE_LR_END": 0.0001,
    "SOLVER.NUM_DECAYS": 5,
    "TEST.KEYPOINT_OKS_SIGMAS": [0.1],
    "TEST.EXPECTED_RESULTS": [["bbox", "AP", 30.0, 0.1]],
    "GLOBAL.HACK": 2.0,
}
# Parts of a switch that is off.
WARNED: dict[str, Any] = {
    "INPUT.CROP.TYPE": "absolute",
    "INPUT.CROP.SIZE": [0.5, 0.5],
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": "norm",
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": 0.5,
    "SOLVER.CLIP_GRADIENTS.NORM_TYPE": 1.0,
    "TEST.PRECISE_BN.NUM_ITER": 50,
    "TEST.AUG.MIN_SIZES": (400,),
    "TEST.AUG.MAX_SIZE": 1000,
    "TEST.AUG.FLIP": False,
}
OF_OTHER_MODELS = (
    "MODEL.ROI_",
    "MODEL.RPN.",
    "MODEL.PROPOSAL_GENERATOR.",
    "MODEL.SEM_SEG_HEAD.",
    "MODEL.PANOPTIC_FPN.",
)
DEFAULTS = dict(flatten(get_detectron2_cfg()))
UNREAD = sorted(key for key in DEFAULTS if key.startswith(OF_OTHER_MODELS))


def changed(**values: Any):
    cfg = get_cfg()
    load_config_file(cfg, "retinanet_R_50_FPN_1x.yaml")
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ()
    for name, value in values.items():
        *sections, last = name.split(".")
        node = cfg
        for section in sections:
            node = node[section]
        node[last] = value
    return cfg


def another(value: Any) -> Any:
    """A value of the same type that differs."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return f"{value}x"
    if isinstance(value, (list, tuple)):
        return type(value)([*value, *(value[:1] or [1])])
    return value + 1


@cache
def code() -> str:
    """What runs with RetinaNet: this package, and Detectron2 without configs and other heads."""
    files = [
        x for x in Path(retinanet_ext.__file__).parent.rglob("*.py") if "config" not in x.parts
    ]
    root = Path(inspect.getfile(detectron2)).parent
    left_out = {"config", "roi_heads", "proposal_generator", "projects", "export", "model_zoo"}
    files += [x for x in root.rglob("*.py") if not left_out & set(x.relative_to(root).parts)]
    return "\n".join(x.read_text(encoding="utf-8") for x in files)


def test_the_tables_name_every_key_once():
    rows = [*DONE, *REFUSED, *WARNED, *UNREAD]
    assert len(rows) == len(set(rows))
    missing, gone = set(DEFAULTS) - set(rows), set(rows) - set(DEFAULTS)
    assert not missing, f"in none of the tables: {sorted(missing)}"
    assert not gone, f"no keys of this Detectron2: {sorted(gone)}"


@pytest.mark.parametrize("key", sorted(DONE))
def test_a_key_that_works_is_read_by_some_code(key: str):
    assert validate_cfg(changed(**NEEDS.get(key, {}), **{key: DONE[key]})) == []
    assert re.search(rf"\b{key.rpartition('.')[2]}\b", code()), f"no code names {key}"


@pytest.mark.parametrize(
    "key", sorted(k for k in DONE if k.startswith("MODEL.") and k not in NEEDS_COMPILED)
)
def test_a_key_of_the_model_that_works_builds_one(key: str):
    cfg = changed(**NEEDS.get(key, {}), **{key: DONE[key]})
    cfg.MODEL.DEVICE = "meta"  # takes no memory
    with torch.device("meta"):
        assert build_model(cfg) is not None


@pytest.mark.parametrize("key", sorted(REFUSED))
def test_a_key_that_nothing_does_is_refused_by_its_name(key: str):
    with pytest.raises(InputError, match=rf"^{re.escape(key)} is "):
        validate_cfg(changed(**{key: REFUSED[key]}))


@pytest.mark.parametrize("key", UNREAD)
def test_a_key_of_other_models_is_refused_by_its_name(key: str):
    with pytest.raises(InputError, match=rf"^{re.escape(key)} is .*does not read that section"):
        validate_cfg(changed(**{key: another(DEFAULTS[key])}))


@pytest.mark.parametrize("key", sorted(WARNED))
def test_a_part_of_what_is_switched_off_is_a_warning(key: str):
    needs = {"SOLVER.CLIP_GRADIENTS.CLIP_TYPE": "norm"} if key.endswith("NORM_TYPE") else {}
    warnings = validate_cfg(changed(**needs, **{key: WARNED[key]}))
    assert any(x.startswith(f"{key.replace('NORM_TYPE', 'CLIP_TYPE')} is ") for x in warnings)
    assert all("nothing reads it" in x for x in warnings)


@pytest.mark.parametrize("schedule", ["OneCycleLR", "WarmupCosineLR"])
def test_gamma_is_refused_where_no_step_multiplies_by_it(schedule: str):
    values = {"SOLVER.LR_SCHEDULER_NAME": schedule, "SOLVER.GAMMA": 0.5}
    with pytest.raises(InputError, match=rf"^SOLVER\.GAMMA is 0\.5, .* is '{schedule}'"):
        validate_cfg(changed(**values))


def test_classes_of_two_stage_models_beside_the_right_ones_are_to_be_removed():
    cfg = changed(**{"MODEL.ROI_HEADS.NUM_CLASSES": 3, "MODEL.RETINANET.NUM_CLASSES": 3})
    with pytest.raises(InputError, match=r"remove it, MODEL\.RETINANET\.NUM_CLASSES .* is 3$"):
        validate_cfg(cfg)


IMPOSSIBLE = [
    ("MODEL.RESNETS.NORM", "batchnorm"),
    ("MODEL.FPN.NORM", "foo"),
    ("MODEL.FPN.OUT_CHANNELS", 0),
    ("MODEL.FPN.FUSE_TYPE", "max"),
    ("MODEL.PIXEL_MEAN", [1.0, 2.0, 3.0, 4.0]),
    ("MODEL.PIXEL_STD", [0.0, 1.0, 1.0]),
    ("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", []),
    ("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", [[]]),
    ("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", [[0.0]]),
    ("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", [["a"]]),
    ("MODEL.ANCHOR_GENERATOR.OFFSET", 3.0),
    ("MODEL.RETINANET.IN_FEATURES", ["p3", "p3"]),
    ("MODEL.RETINANET.IN_FEATURES", [3]),
    ("MODEL.RETINANET.BBOX_REG_WEIGHTS", (1.0, 1.0)),
    ("INPUT.FORMAT", "XYZ"),
    ("INPUT.MIN_SIZE_TRAIN", ()),
    ("INPUT.MIN_SIZE_TRAIN", (-5,)),
    ("INPUT.MAX_SIZE_TRAIN", 0),
    ("INPUT.MAX_SIZE_TRAIN", 300),
    ("INPUT.MAX_SIZE_TEST", 300),
    ("DATALOADER.NUM_WORKERS", -1),
    ("DATALOADER.SAMPLER_TRAIN", "Foo"),
    ("DATALOADER.SAMPLER_TRAIN", "RandomSubsetTrainingSampler"),
    ("DATALOADER.REPEAT_THRESHOLD", 5.0),
    ("SOLVER.BASE_LR", float("inf")),
    ("SOLVER.MOMENTUM", 2.0),
    ("SOLVER.WEIGHT_DECAY", -1.0),
    ("SOLVER.WEIGHT_DECAY_BIAS", -1.0),
    ("SOLVER.WARMUP_METHOD", "foo"),
    ("TEST.EXPECTED_RESULTS", [["bbox", "AP"]]),
]


@pytest.mark.parametrize(("key", "value"), IMPOSSIBLE)
def test_an_impossible_value_is_refused_by_the_name_of_its_key(key: str, value: Any):
    with pytest.raises(InputError, match=rf"^{re.escape(key)} (is|has|must) "):
        validate_cfg(changed(**{key: value}))


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        ("foo", [0.9, 0.9]),
        ("relative", [5.0, 5.0]),
        ("relative", [0.5]),
        ("absolute", [0.5, 0.5]),
        ("absolute_range", [300, 200]),
    ],
)
def test_a_crop_that_cannot_be_done_is_refused(kind: str, size: list[float]):
    values = {"INPUT.CROP.ENABLED": True, "INPUT.CROP.TYPE": kind, "INPUT.CROP.SIZE": size}
    with pytest.raises(InputError, match=r"^INPUT\.CROP\.(TYPE|SIZE) is "):
        validate_cfg(changed(**values))


def test_nesterov_needs_momentum():
    with pytest.raises(InputError, match=r"^SOLVER\.NESTEROV is True, but SOLVER\.MOMENTUM is 0"):
        validate_cfg(changed(**{"SOLVER.NESTEROV": True, "SOLVER.MOMENTUM": 0.0}))


def test_images_of_other_modes_of_pillow_have_as_many_channels():
    cfg = changed(**{"INPUT.FORMAT": "L", "MODEL.PIXEL_MEAN": [1.0], "MODEL.PIXEL_STD": [1.0]})
    assert validate_cfg(cfg) == []
    values = {"MODEL.PIXEL_MEAN": [1.0] * 4, "MODEL.PIXEL_STD": [1.0] * 4}
    assert validate_cfg(changed(**{"INPUT.FORMAT": "CMYK"}, **values)) == []
