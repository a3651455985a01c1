"""No setting is silently ignored."""

from __future__ import annotations

from pathlib import Path

import pytest
from detectron2.modeling import ANCHOR_GENERATOR_REGISTRY

from retinanet_ext import add_retinanet_ext_config, get_cfg, load_config_file, validate_cfg
from retinanet_ext.modeling.anchors import RetinaNetAnchorGenerator
from retinanet_ext.registry import CLS_LOSS_REGISTRY

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def shipped_cfg(name: str = "retinanet_R_50_FPN_1x.yaml"):
    cfg = get_cfg()
    load_config_file(cfg, CONFIGS / name)
    return cfg


def set_key(cfg, key: str, value) -> None:
    *sections, last = key.split(".")
    for section in sections:
        cfg = getattr(cfg, section)
    setattr(cfg, last, value)


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_config_is_valid(path: Path):
    cfg = get_cfg()
    load_config_file(cfg, path)
    assert validate_cfg(cfg) == []


@pytest.mark.parametrize("arch", ["RetinaNet", "RetinaNetExt"])
@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("BASE_LR", 1e-5, "'BASE_LR'.*Did you mean 'SOLVER.BASE_LR'"),
        ("MODEL.RETINANET.NUM_CLASES", 3, "Did you mean 'MODEL.RETINANET.NUM_CLASSES'"),
        ("MODEL.NUM_CLASSES", 3, "'MODEL.NUM_CLASSES'.*Did you mean"),
        ("SOLVER.MAXITER", 3, "Did you mean 'SOLVER.MAX_ITER'"),
        ("MODEL.ROI_HEADS.NUM_CLASSES", 3, "set MODEL.RETINANET.NUM_CLASSES instead"),
        ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.7, "set MODEL.RETINANET.SCORE_THRESH_TEST"),
        ("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 64, "does not read that section; remove it"),
        ("MODEL.RPN.NMS_THRESH", 0.9, "set MODEL.RETINANET.NMS_THRESH_TEST"),
        ("DATASETS.TEST", ("x"), r"DATASETS\.TEST must be a tuple.*\(\"x\",\)"),
        ("MODEL.META_ARCHITECTURE", "RetinaNtExt", "Did you mean 'RetinaNetExt'"),
        ("MODEL.BACKBONE.NAME", "build_resnet_fpn", "Known: .*build_retinanet_resnet_fpn"),
        ("MODEL.ANCHOR_GENERATOR.NAME", "Anchors", "Known: .*RetinaNetAnchorGenerator"),
        ("MODEL.RETINANET.NUM_CLASSES", 0, "NUM_CLASSES must be at least 1, got 0"),
        ("MODEL.RETINANET.IOU_LABELS", [0, 1], "IOU_LABELS must hold 3"),
        ("SOLVER.MAX_ITER", 0, "MAX_ITER must be positive"),
        ("SOLVER.MAX_ITER", 70000, "STEPS is .*must rise and lie below MAX_ITER"),
        ("SOLVER.STEPS", (80000, 60000), "STEPS is"),
        ("SOLVER.ONE_CYCLE_PCT_START", 0.5, "set SOLVER.LR_SCHEDULER_NAME to OneCycleLR"),
        ("SOLVER.OPTIMIZER", "Adamw", "Did you mean 'AdamW'"),
        ("SOLVER.LR_SCHEDULER_NAME", "CosineLR", "Did you mean 'WarmupCosineLR'"),
    ],
)
def test_stops_and_names_the_way_out(arch: str, key: str, value, words: str):
    cfg = shipped_cfg()
    cfg.MODEL.META_ARCHITECTURE = arch
    set_key(cfg, key, value)
    with pytest.raises((KeyError, ValueError), match=words):
        validate_cfg(cfg)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("MODEL.RETINANET.CLS_LOSS", "FocalLos", "Did you mean 'FocalLoss'"),
        ("MODEL.RETINANET.LOSS_KERNEL", "fast", "LOSS_KERNEL is 'fast'.*auto, reference"),
        ("MODEL.RETINANET.FOCAL_LOSS_GAMMA", -1.0, "CLS_LOSS is 'FocalLoss', and gamma must be"),
        ("MODEL.RETINANET.HEAD", "FastRCNNHead", "Known: .*RetinaNetHead"),
        ("MODEL.RETINANET.ASSIGNER", "Max", "Known: .*IoUAssigner"),
        ("MODEL.RETINANET.BBOX_REG_LOSS_TYPE", "gioU", "Did you mean 'giou'|Did you mean 'GIoU'"),
        ("MODEL.ANCHOR_GENERATOR.SIZES", [[8.0]], "reads OCTAVE_BASE_SIZES"),
    ],
)
def test_components_are_resolved_before_anything_is_built(key: str, value, words: str):
    cfg = shipped_cfg()
    set_key(cfg, key, value)
    with pytest.raises((KeyError, ValueError), match=words):
        validate_cfg(cfg)


@pytest.mark.parametrize("loss", ["OHEM", "QualityFocalLoss", "VarifocalLoss"])
def test_a_loss_of_one_class_per_anchor_goes_with_no_multi_label_truth(loss: str):
    cfg = shipped_cfg()
    cfg.MODEL.RETINANET.CLS_LOSS = loss
    assert validate_cfg(cfg) == []
    cfg.MODEL.RETINANET.MULTI_LABEL_IOU_THRESH = 0.9
    with pytest.raises(ValueError, match=rf"MULTI_LABEL_IOU_THRESH is 0.9.*{loss}.*FocalLoss"):
        validate_cfg(cfg)


@pytest.mark.parametrize("schedule", ["WarmupCosineLR", "OneCycleLR"])
def test_learning_rate_must_fall_to_its_end(schedule: str):
    cfg = shipped_cfg()
    cfg.SOLVER.LR_SCHEDULER_NAME, cfg.SOLVER.STEPS = schedule, ()
    cfg.SOLVER.BASE_LR_END = cfg.SOLVER.BASE_LR
    assert validate_cfg(cfg) == []
    cfg.SOLVER.BASE_LR_END = 2 * cfg.SOLVER.BASE_LR
    with pytest.raises(ValueError, match=f"BASE_LR_END is .*{schedule}"):
        validate_cfg(cfg)


def test_octave_keys_under_another_generator_are_refused():
    cfg = shipped_cfg()
    cfg.MODEL.ANCHOR_GENERATOR.NAME = "DefaultAnchorGenerator"
    cfg.MODEL.ANCHOR_GENERATOR.SCALES_PER_OCTAVE = 2
    with pytest.raises(ValueError, match=r"set MODEL\.ANCHOR_GENERATOR\.NAME"):
        validate_cfg(cfg)


def test_sizes_that_say_the_same_as_the_octaves_are_fine():
    cfg = shipped_cfg()
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [
        [x, x * 2 ** (1 / 3), x * 2 ** (2 / 3)] for x in (32.0, 64.0, 128.0, 256.0, 512.0)
    ]
    assert validate_cfg(cfg) == []


def test_two_stage_models_keep_their_sections():
    cfg = get_cfg()
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 3
    cfg.MODEL.RPN.NMS_THRESH = 0.6
    assert validate_cfg(cfg) == []


def test_keys_of_another_project_pass_with_its_reference():
    def project_cfg():
        cfg = get_cfg()
        cfg.MY_PROJECT_SWITCH = True
        return cfg

    with pytest.raises(KeyError, match="MY_PROJECT_SWITCH"):
        validate_cfg(project_cfg())
    assert validate_cfg(project_cfg(), reference=project_cfg()) == []


def test_validation_changes_nothing():
    cfg = shipped_cfg()
    before = cfg.dump()
    assert validate_cfg(cfg) == []
    assert cfg.dump() == before


def test_adding_the_keys_twice_keeps_their_values():
    cfg = get_cfg()
    cfg.MODEL.RETINANET.CLS_LOSS = "Mine"
    add_retinanet_ext_config(cfg)
    assert cfg.MODEL.RETINANET.CLS_LOSS == "Mine"


# Key, value, the choice that reads it.
UNREAD = [
    ("FOCAL_STAR_GAMMA", 4.0, "CLS_LOSS", "FocalLossStar"),
    ("OHEM_BATCH", 256, "CLS_LOSS", "OHEM"),
    ("CLASS_COUNTS", [1] * 80, "CLS_LOSS", "ClassBalancedFocal"),
    ("QUALITY_FOCAL_BETA", 1.5, "CLS_LOSS", "QualityFocalLoss"),
    ("VARIFOCAL_ALPHA", 0.5, "CLS_LOSS", "VarifocalLoss"),
    ("ATSS_TOPK", 15, "ASSIGNER", "ATSSAssigner"),
    ("TASK_ALIGNED_TOPK", 5, "ASSIGNER", "TaskAlignedAssigner"),
    ("SOFT_NMS_SIGMA", 0.3, "NMS_KIND", "soft"),
    ("LOSS_NORMALIZER_VALUE", 50.0, "LOSS_NORMALIZER", "constant"),
]


@pytest.mark.parametrize(("key", "value", "chooser", "choice"), UNREAD)
def test_keys_of_what_was_not_chosen_are_refused(key: str, value, chooser: str, choice: str):
    cfg = shipped_cfg()
    cfg.MODEL.RETINANET[key] = value
    with pytest.raises(ValueError, match=rf"{key} is .*set MODEL.RETINANET.{chooser} to {choice}"):
        validate_cfg(cfg)
    cfg.MODEL.RETINANET[chooser] = choice
    assert validate_cfg(cfg) == []


def test_keys_that_an_assigner_does_not_read_are_refused():
    cfg = shipped_cfg()
    cfg.MODEL.RETINANET.ALLOW_LOW_QUALITY_MATCHES = False
    assert validate_cfg(cfg) == []
    cfg.MODEL.RETINANET.ASSIGNER = "ATSSAssigner"
    with pytest.raises(ValueError, match=r"ALLOW_LOW_QUALITY_MATCHES is False.*'ATSSAssigner'"):
        validate_cfg(cfg)


def test_somebody_elses_loss_may_read_any_key():
    class ReadsAllKeys:
        def __init__(self, cfg):
            pass

    CLS_LOSS_REGISTRY.register(ReadsAllKeys)
    cfg = shipped_cfg()
    cfg.MODEL.RETINANET.CLS_LOSS = "ReadsAllKeys"
    cfg.MODEL.RETINANET.OHEM_BATCH = 7
    assert validate_cfg(cfg) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODEL.RETINANET.CLS_LOSS", "BCE"),
        ("MODEL.RETINANET.NMS_KIND", "soft"),
        ("MODEL.SPEEDUPS.COMPILE", True),
    ],
)
def test_added_keys_under_detectron2s_retinanet_are_refused(key: str, value):
    cfg = shipped_cfg()
    set_key(cfg, key, value)
    assert validate_cfg(cfg) == []
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    with pytest.raises(ValueError, match=rf"{key} is .*set MODEL.META_ARCHITECTURE to Retina"):
        validate_cfg(cfg)


def test_detectron2s_retinanet_keeps_its_own_keys_and_the_trainers():
    cfg = shipped_cfg()
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    cfg.MODEL.RETINANET.BBOX_REG_LOSS_TYPE = "giou"
    cfg.MODEL.RETINANET.FOCAL_LOSS_GAMMA = 1.0
    cfg.MODEL.RETINANET.FREEZE = ["fpn"]
    assert validate_cfg(cfg) == []


def test_a_users_kind_of_our_anchor_generator_reads_the_same_keys(monkeypatch):
    class TallAnchorGenerator(RetinaNetAnchorGenerator):
        pass

    monkeypatch.setitem(
        ANCHOR_GENERATOR_REGISTRY._obj_map, "TallAnchorGenerator", TallAnchorGenerator
    )
    cfg = shipped_cfg()
    cfg.MODEL.ANCHOR_GENERATOR.NAME = "TallAnchorGenerator"
    cfg.MODEL.ANCHOR_GENERATOR.SCALES_PER_OCTAVE = 2
    assert validate_cfg(cfg) == []
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[8.0]]
    with pytest.raises(ValueError, match="TallAnchorGenerator reads OCTAVE_BASE_SIZES"):
        validate_cfg(cfg)
