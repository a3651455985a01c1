"""Everything that a config key can choose learns on generated scenes, and then detects.

The cases come from the registries and from the tuples of known values, so that a new entry is
trained here without being listed; what it needs beside its own key goes into SETTINGS.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.modeling import (
    ANCHOR_GENERATOR_REGISTRY,
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    build_model,
)

from retinanet_ext import get_cfg, validate_cfg
from retinanet_ext.config import flatten
from retinanet_ext.config.keys import KEYS
from retinanet_ext.data.datasets.register import register_coco_dataset
from retinanet_ext.data.quickstart.dataset import CLASS_NAMES, ensure_quickstart
from retinanet_ext.engine import RetinaNetTrainer
from retinanet_ext.engine.setup import fill_class_counts
from retinanet_ext.losses.cross_entropy import CLASS_BALANCES
from retinanet_ext.modeling import OHEM
from retinanet_ext.modeling.backbones.build import TOP_BLOCK_INPUTS
from retinanet_ext.modeling.criteria.normalizer import NORMALIZERS
from retinanet_ext.modeling.criteria.quality_branch import QUALITY_BRANCHES
from retinanet_ext.modeling.heads.towers import NORM_PER_LEVEL
from retinanet_ext.modeling.postprocess.candidates import SCORE_RULES
from retinanet_ext.modeling.postprocess.soft_nms import SOFT_NMS_METHODS
from retinanet_ext.modeling.postprocess.suppress import NMS_KINDS
from retinanet_ext.registry import (
    ASSIGNER_REGISTRY,
    BOX_CODER_REGISTRY,
    BOX_LOSS_REGISTRY,
    CLS_LOSS_REGISTRY,
    DENSE_HEAD_REGISTRY,
)
from tests.helpers.regnet import REGNET

SCENES, TWO_CLASSES = "every_entry_scenes", "every_entry_two_classes"
ITERATIONS = 20
BATCH, NUM_BATCHES = 2, 2
# The loss is compared over whole rounds through the batches.
ENDS = 2 * NUM_BATCHES

# Not of BASE, where nobody reads them: their defaults.
NO_REGNET = {
    key: get_cfg().MODEL.REGNET[key.removeprefix("MODEL.REGNET.")]
    for key in REGNET
    if key.startswith("MODEL.REGNET.")
}
RESNET_18 = {
    "MODEL.FPN.BOTTOM_UP": "build_resnet_backbone",
    "MODEL.FPN.IN_FEATURES": ["res3", "res4", "res5"],
    "MODEL.RESNETS.DEPTH": 18,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
    "MODEL.RESNETS.OUT_FEATURES": ["res3", "res4", "res5"],
    "MODEL.RESNETS.NORM": "BN",
    **NO_REGNET,
}
LITE = {"MODEL.EFFICIENTNET_LITE.NORM": "BN", **NO_REGNET}
# Needs timm, for two of Detectron2's layers at least.
TIMM_BACKBONES = (
    *("build_timm_backbone", "build_timm_fpn_p6p7", "build_swin_backbone"),
    "build_vit_simple_pyramid",
)
ONE_LEVEL = {
    "MODEL.FPN.BOTTOM_UP": "build_resnet_backbone",  # as by default: nobody reads it
    "MODEL.ANCHOR_GENERATOR.OCTAVE_BASE_SIZES": [16.0],
    **NO_REGNET,
}
MOBILENET = {"MODEL.TIMM.NAME": "mobilenetv3_small_050", **NO_REGNET}

BASE: dict[str, Any] = {
    "MODEL.META_ARCHITECTURE": "RetinaNetExt",
    "MODEL.DEVICE": "cpu",
    "MODEL.BACKBONE.NAME": "build_fpn_backbone_p6p7",
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.FPN.OUT_CHANNELS": 16,
    "MODEL.ANCHOR_GENERATOR.NAME": "RetinaNetAnchorGenerator",
    "MODEL.ANCHOR_GENERATOR.OCTAVE_BASE_SIZES": [8.0, 16.0, 32.0, 64.0, 128.0],
    "MODEL.ANCHOR_GENERATOR.SCALES_PER_OCTAVE": 2,
    "MODEL.RETINANET.NUM_CLASSES": len(CLASS_NAMES),
    "MODEL.RETINANET.NUM_CONVS": 1,
    # All candidates, so that there are detections however short the training.
    "MODEL.RETINANET.SCORE_THRESH_TEST": 0.0,
    "DATASETS.TRAIN": (SCENES,),
    "DATALOADER.NUM_WORKERS": 0,
    "DATALOADER.ASPECT_RATIO_GROUPING": False,
    "INPUT.MIN_SIZE_TRAIN": (64,),
    "SOLVER.IMS_PER_BATCH": BATCH,
    "SOLVER.MAX_ITER": ITERATIONS,
    # Its steps do not depend on the scale of the loss, which the normalizers make differ 1000-fold.
    "SOLVER.OPTIMIZER": "AdamW",
    "SOLVER.BASE_LR": 0.002,
    "SOLVER.STEPS": (),
    "SOLVER.WARMUP_ITERS": 0,
    **REGNET,
}

# What a value of a key needs beside itself; a case for each of the named sets of further keys.
SETTINGS: dict[tuple[str, Any], dict[str, dict[str, Any]]] = {
    ("MODEL.BACKBONE.NAME", "build_fpn_backbone_p6p7"): {
        f"{name}-{source}": {**bottom_up, "MODEL.FPN.TOP_BLOCK_IN": source}
        for name, bottom_up in (("ResNet18", RESNET_18), ("RegNet", REGNET))
        for source in TOP_BLOCK_INPUTS
    },
    ("MODEL.BACKBONE.NAME", "build_regnet_backbone"): {
        "": {
            "MODEL.FPN.BOTTOM_UP": "build_resnet_backbone",  # as by default: nobody reads it
            # One level: without a pyramid they differ in their channels.
            "MODEL.RETINANET.IN_FEATURES": ["s3"],
            "MODEL.ANCHOR_GENERATOR.OCTAVE_BASE_SIZES": [16.0],
        }
    },
    ("MODEL.BACKBONE.NAME", "build_efficientnet_lite_fpn_backbone"): {
        "": {
            "MODEL.FPN.BOTTOM_UP": "build_resnet_backbone",  # as by default: nobody reads it
            "MODEL.FPN.IN_FEATURES": ["c3", "c4", "c5"],
            **LITE,
        }
    },
    ("MODEL.BACKBONE.NAME", "build_efficientnet_lite_backbone"): {
        "": {
            "MODEL.FPN.BOTTOM_UP": "build_resnet_backbone",
            "MODEL.RETINANET.IN_FEATURES": ["c3"],
            "MODEL.ANCHOR_GENERATOR.OCTAVE_BASE_SIZES": [16.0],
            **LITE,
        }
    },
    ("MODEL.BACKBONE.NAME", "build_timm_backbone"): {
        "": {"MODEL.RETINANET.IN_FEATURES": ["c3"], **ONE_LEVEL, **MOBILENET}
    },
    ("MODEL.BACKBONE.NAME", "build_timm_fpn_p6p7"): {
        "": {
            "MODEL.FPN.BOTTOM_UP": "build_resnet_backbone",
            "MODEL.FPN.IN_FEATURES": ["c3", "c4", "c5"],
            **MOBILENET,
        }
    },
    ("MODEL.BACKBONE.NAME", "build_swin_backbone"): {
        "": {
            "MODEL.RETINANET.IN_FEATURES": ["p1"],
            **ONE_LEVEL,
            "MODEL.SWIN.EMBED_DIM": 8,
            "MODEL.SWIN.DEPTHS": [1, 1],
            "MODEL.SWIN.NUM_HEADS": [1, 2],
            "MODEL.SWIN.OUT_FEATURES": ["p1"],
        }
    },
    ("MODEL.BACKBONE.NAME", "build_vit_simple_pyramid"): {
        "": {
            "MODEL.FPN.BOTTOM_UP": "build_resnet_backbone",
            "MODEL.FPN.IN_FEATURES": [],
            **NO_REGNET,
            "MODEL.VIT.EMBED_DIM": 16,
            "MODEL.VIT.DEPTH": 2,
            "MODEL.VIT.NUM_HEADS": 2,
            "MODEL.VIT.IMG_SIZE": 64,
            "MODEL.VIT.GLOBAL_BLOCKS": [1],
        }
    },
    ("MODEL.RETINANET.CLS_LOSS", "OHEM"): {
        f"{mode}-{classifier}".removesuffix("-sigmoid"): {
            "MODEL.RETINANET.OHEM_MODE": mode,
            "MODEL.RETINANET.CLASSIFIER": classifier,
        }
        for mode in OHEM.MODES
        for classifier in OHEM.classifiers
    },
    **{
        ("MODEL.RETINANET.CLS_LOSS", name): {"": {"MODEL.RETINANET.CLASSIFIER": "softmax"}}
        for name in ("SoftmaxCE", "SoftmaxFocalLoss")
    },
    **{
        ("MODEL.RETINANET.SCORE_RULE", rule): {"": {"MODEL.RETINANET.QUALITY_BRANCH": "iou"}}
        for rule in SCORE_RULES
    },
    ("MODEL.RETINANET.CLS_LOSS", "ClassBalancedFocal"): {
        "given": {
            "MODEL.RETINANET.CLASS_BALANCE": "given",
            "MODEL.RETINANET.CLASS_ALPHA": [0.2, 0.25, 0.3, 0.25, 0.2],
        },
        **{kind: {"MODEL.RETINANET.CLASS_BALANCE": kind} for kind in CLASS_BALANCES},
    },
    ("MODEL.RETINANET.NMS_KIND", "soft"): {
        method: {"MODEL.RETINANET.SOFT_NMS_METHOD": method} for method in SOFT_NMS_METHODS
    },
    ("MODEL.RETINANET.ASSIGNER", "PointAssigner"): {
        "": {
            "MODEL.ANCHOR_GENERATOR.OCTAVE_BASE_SIZES": [8.0, 16.0, 32.0, 64.0, 128.0],
            "MODEL.ANCHOR_GENERATOR.SCALES_PER_OCTAVE": 1,
            "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[1.0]],
            "MODEL.ANCHOR_GENERATOR.OFFSET": 0.5,
        }
    },
    ("MODEL.RETINANET.CANDIDATES_BY", "score"): {
        kind: {"MODEL.RETINANET.QUALITY_BRANCH": kind} for kind in QUALITY_BRANCHES if kind
    },
    # Group norm has 32 groups.
    ("MODEL.RETINANET.NORM", "GN"): {"": {"MODEL.RETINANET.HEAD_WIDTH": 32}},
    # Its steps follow the scale of the loss.
    ("SOLVER.OPTIMIZER", "SGD"): {
        "": {"SOLVER.BASE_LR": 0.02, "MODEL.RETINANET.LOSS_NORMALIZER": "positives"}
    },
}


@dataclass(frozen=True)
class Case:
    """One training: ``key`` set to ``value``, and further keys."""

    key: str
    value: Any
    further: dict[str, Any]
    label: str = ""

    def __str__(self) -> str:
        parts = (self.key.rsplit(".", 1)[-1], str(self.value), self.label)
        return "-".join(part for part in parts if part)

    @property
    def settings(self) -> dict[str, Any]:
        return {**BASE, self.key: self.value, **self.further}


def ours(registry: Iterable[tuple[str, Any]]) -> list[str]:
    """Names of the entries that are this package's own, not Detectron2's or another test's."""
    return sorted(n for n, entry in registry if entry.__module__.startswith("retinanet_ext."))


def cases_of(
    key: str, values: Iterable[Any], label: str = "", common: dict[str, Any] | None = None
) -> list[Case]:
    """A case for each value, or for each of its SETTINGS."""
    return [
        Case(key, value, {**(common or {}), **further}, f"{label}-{name}".strip("-"))
        for value in values
        for name, further in SETTINGS.get((key, value), {"": {}}).items()
    ]


def all_cases() -> list[Case]:
    """Each value of each key once; those that come to the same config are trained once."""
    node = "MODEL.RETINANET."
    heads, assigners = ours(DENSE_HEAD_REGISTRY), ours(ASSIGNER_REGISTRY)
    cls_losses = ours(CLS_LOSS_REGISTRY)
    cases = [
        *cases_of("MODEL.META_ARCHITECTURE", ours(META_ARCH_REGISTRY)),
        *cases_of("MODEL.BACKBONE.NAME", ours(BACKBONE_REGISTRY)),
        *cases_of("MODEL.ANCHOR_GENERATOR.NAME", ours(ANCHOR_GENERATOR_REGISTRY)),
        *cases_of(node + "HEAD", heads),
        *cases_of(node + "CLS_LOSS", cls_losses),
        *cases_of(node + "BBOX_REG_LOSS_TYPE", ours(BOX_LOSS_REGISTRY)),
        *cases_of(node + "ASSIGNER", assigners),
        *cases_of(node + "BOX_CODER", ours(BOX_CODER_REGISTRY)),
        *cases_of(node + "CANDIDATES_BY", KEYS[node + "CANDIDATES_BY"].choices),
        *cases_of(node + "SCORE_RULE", SCORE_RULES),
        *cases_of(node + "NMS_KIND", NMS_KINDS),
        *cases_of(node + "LOSS_NORMALIZER", NORMALIZERS),
        *cases_of(node + "QUALITY_BRANCH", QUALITY_BRANCHES),
        *cases_of(node + "NORM", [""]),
        *cases_of("SOLVER.OPTIMIZER", KEYS["SOLVER.OPTIMIZER"].choices),
    ]
    for norms in NORM_PER_LEVEL:
        common = {node + "NORM_PER_LEVEL": norms}
        cases += cases_of(node + "NORM", ["BN", "GN", "LN"], norms, common)
    class_specific = {node + "CLS_AGNOSTIC_BBOX_REG": False}
    cases += cases_of(node + "HEAD", heads, "class_specific", class_specific)
    unequal = {"MODEL.ANCHOR_GENERATOR.SCALES_OF_LEVELS": [3, 3, 2, 2, 1]}
    cases += cases_of(node + "HEAD", heads, "unequal_levels", unequal)
    two_classes = {node + "MULTI_LABEL_IOU_THRESH": 0.9, "DATASETS.TRAIN": (TWO_CLASSES,)}
    able = [name for name in cls_losses if loss_has("multi_label", name)]
    cases += cases_of(node + "CLS_LOSS", able, "two_classes", two_classes)
    cases += cases_of(node + "ASSIGNER", assigners, "two_classes", two_classes)
    # Their targets follow the boxes, which stay as they are here.
    moving = [name for name in cls_losses if loss_has("needs_quality", name)]
    cases += cases_of(node + "CLS_LOSS", moving, "same_boxes", {node + "BOX_LOSS_WEIGHT": 0.0})
    return list({case_key(case): case for case in reversed(cases)}.values())[::-1]


def loss_has(attribute: str, name: str) -> bool:
    return bool(getattr(CLS_LOSS_REGISTRY.get(name), attribute, False))


def case_key(case: Case) -> str:
    """Equal for cases whose configs are equal."""
    defaults = {k: v for k, v in flatten(get_cfg()) if k in case.settings}
    return str(sorted((k, str(v)) for k, v in case.settings.items() if v != defaults[k]))


def case_cfg(case: Case) -> CfgNode:
    cfg = get_cfg()
    cfg.merge_from_list([x for pair in case.settings.items() for x in pair])
    validate_cfg(cfg)
    fill_class_counts(cfg)
    return cfg


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Register four scenes, and the same with every box twice, the second of another class."""
    folder = ensure_quickstart(tmp_path_factory.mktemp("datasets"), num_train=4, num_val=1)
    json_file = folder / "annotations" / "instances_train.json"
    content = json.loads(json_file.read_text())
    for box in list(content["annotations"]):
        number, kind = len(content["annotations"]) + 1, box["category_id"] % len(CLASS_NAMES) + 1
        content["annotations"].append({**box, "id": number, "category_id": kind})
    twice = json_file.with_name("two_classes.json")
    twice.write_text(json.dumps(content))
    register_coco_dataset(SCENES, str(json_file), str(folder / "train"))
    register_coco_dataset(TWO_CLASSES, str(twice), str(folder / "train"))
    yield
    for name in (SCENES, TWO_CLASSES):
        DatasetCatalog.remove(name)


def batches_of(cfg: CfgNode) -> list[list[dict[str, Any]]]:
    """The first batches of the training loader."""
    return list(itertools.islice(RetinaNetTrainer.build_train_loader(cfg), NUM_BATCHES))


def train(cfg: CfgNode, model: torch.nn.Module, batches: list) -> dict[str, torch.Tensor]:
    """Each loss at each iteration (ITERATIONS,), as the sum before the normalizer.

    The running mean of positives starts far from theirs: what is divided by it need not fall.
    """
    normalizers: list[torch.Tensor] = []
    model.loss_normalizer.register_forward_hook(lambda *args: normalizers.append(args[-1].clone()))
    optimizer = RetinaNetTrainer.build_optimizer(cfg, model)
    history = []
    for _, batch in zip(range(cfg.SOLVER.MAX_ITER), itertools.cycle(batches), strict=False):
        losses = model(batch)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        history.append({name: loss.detach() * normalizers[-1] for name, loss in losses.items()})
    return {name: torch.stack([x[name] for x in history]) for name in history[0]}


@pytest.mark.parametrize("case", all_cases(), ids=str)
def test_it_trains_and_detects(case: Case, scenes: None):
    if case.value in TIMM_BACKBONES:
        pytest.importorskip("timm", reason="timm is not installed: pip install timm")
    try:
        cfg = case_cfg(case)
        model = build_model(cfg).train()
    except (KeyError, ValueError) as error:
        pytest.fail(f"add settings for ('{case.key}', '{case.value}') to SETTINGS: {error}")
    batches = batches_of(cfg)
    losses = train(cfg, model, batches)
    assert all(loss.isfinite().all() for loss in losses.values()), losses
    node = cfg.MODEL.RETINANET
    # Targets that are the IoU of the boxes rise as these improve, and their loss with them.
    moving = loss_has("needs_quality", node.CLS_LOSS) and node.BOX_LOSS_WEIGHT > 0
    for name, loss in losses.items():
        first, last = loss[:ENDS].mean(), loss[-ENDS:].mean()
        no_need = {"loss_cls": moving, "loss_box_reg": node.BOX_LOSS_WEIGHT == 0}
        assert last < first or no_need.get(name), f"{name} did not fall: {loss.tolist()}"
    assert all(p.isfinite().all() for p in model.parameters())
    with torch.no_grad():
        outputs = model.eval()(batches[0])
    for output in outputs:
        found = output["instances"]
        assert len(found) > 0
        assert found.pred_boxes.tensor.isfinite().all() and found.scores.isfinite().all()
        assert found.scores.min() >= 0 and found.scores.max() <= 1
        assert found.pred_classes.min() >= 0
        assert found.pred_classes.max() < node.NUM_CLASSES


def test_cases_differ():
    ids = [str(case) for case in all_cases()]
    assert len(set(ids)) == len(ids)
