"""Keys that nothing chosen reads, for every registered component and for those of users."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectron2.modeling import META_ARCH_REGISTRY

from retinanet_ext import get_cfg, register_config_key, validate_cfg
from retinanet_ext.config import flatten
from retinanet_ext.config.keys import KEYS, NOT_ADDED
from retinanet_ext.config.unread_keys import choosers, declared_keys
from retinanet_ext.engine.setup import fill_class_counts
from retinanet_ext.errors import ConfigError, InputError, MissingPackageError
from retinanet_ext.modeling import FocalLoss, RetinaNetExt, RetinaNetHead
from retinanet_ext.registry import (
    CLS_LOSS_REGISTRY,
    COMPONENT_REGISTRIES,
    CONFIG_CHECKS,
    DENSE_HEAD_REGISTRY,
    register_config_check,
)

NODE = "MODEL.RETINANET."


def is_ours(entry: Any) -> bool:
    return entry.__module__.startswith("retinanet_ext.")


# Key chooser, entry, and each key that it says it reads.
DECLARED = [
    (chooser, name, key)
    for chooser, registry in choosers().items()
    for name, entry in sorted(registry)
    if is_ours(entry)
    for key in sorted(declared_keys(entry, chooser) or ())
]
OWN_KEYS = [row for row in DECLARED if KEYS.get(row[2]) and KEYS[row[2]].default is not NOT_ADDED]


def base_cfg():
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "RetinaNetExt"
    cfg.MODEL.ANCHOR_GENERATOR.NAME = "RetinaNetAnchorGenerator"
    return cfg


def set_key(cfg, name: str, value: Any) -> None:
    *sections, last = name.split(".")
    for section in sections:
        cfg = cfg[section]
    cfg[last] = value


def another_value(name: str) -> Any:
    """A value that differs from the default; whether it can work does not matter."""
    default = dict(flatten(get_cfg()))[name]
    if isinstance(default, bool):
        return not default
    if isinstance(default, str):
        others = [x for x in KEYS[name].choices if x != default]
        return others[0] if others else "build_regnet_backbone"
    return [*default, 1.0] if isinstance(default, list) else 2 * default or 1


@pytest.fixture
def own_parts():
    """What a test registers is gone after it."""
    keys = dict(KEYS)
    entries = [dict(registry._obj_map) for registry in COMPONENT_REGISTRIES]
    yield
    KEYS.clear()
    KEYS.update(keys)
    for registry, before in zip(COMPONENT_REGISTRIES, entries, strict=True):
        registry._obj_map.clear()
        registry._obj_map.update(before)


def test_every_component_of_ours_says_what_it_reads():
    silent = [
        name
        for registry in COMPONENT_REGISTRIES
        for name, entry in registry
        if is_ours(entry) and declared_keys(entry, registry.config_key) is None
    ]
    assert silent == []


@pytest.mark.parametrize(("chooser", "name", "key"), DECLARED)
def test_a_declared_key_exists_and_is_read(chooser: str, name: str, key: str):
    assert key in dict(flatten(get_cfg()))
    cfg = base_cfg()
    set_key(cfg, key, another_value(key))
    set_key(cfg, chooser, name)
    if chooser == "MODEL.FPN.BOTTOM_UP":
        cfg.MODEL.BACKBONE.NAME = "build_fpn_backbone_p6p7"  # which reads that
    try:
        assert not any(key in warning for warning in validate_cfg(cfg))
    except MissingPackageError:  # timm, of a backbone
        pass
    except InputError as error:  # the value may be impossible, but it is not unread
        assert "which does not read it" not in str(error)


@pytest.mark.parametrize(("chooser", "name", "key"), OWN_KEYS)
def test_a_changed_key_is_refused_under_every_entry_that_does_not_read_it(chooser, name, key):
    registry = choosers()[chooser]
    others = [
        other
        for other, entry in sorted(registry)
        if is_ours(entry) and key not in (declared_keys(entry, chooser) or ())
    ]
    for other in others:
        cfg = base_cfg()
        set_key(cfg, chooser, other)
        set_key(cfg, key, another_value(key))
        # A backbone may be the whole of it or stand under the pyramid.
        where = f"({chooser}|MODEL.FPN.BOTTOM_UP)"
        with pytest.raises(
            InputError, match=rf"{key} is .*does not read it; set {where} to .*{name}"
        ):
            validate_cfg(cfg)


@pytest.mark.parametrize("key", ["DEPTH", "NORM", "SE_RATIO", "OUT_FEATURES"])
def test_regnet_keys_are_read_under_a_pyramid_and_by_no_resnet(key: str):
    cfg = base_cfg()
    cfg.MODEL.REGNET[key] = {"NORM": "BN", "OUT_FEATURES": ["s1", "s2", "s3", "s4"]}.get(key, 1)
    cfg.MODEL.BACKBONE.NAME = "build_retinanet_resnet_fpn_backbone"
    cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    with pytest.raises(InputError, match=rf"MODEL\.REGNET\.{key} is .*build_regnet_backbone"):
        validate_cfg(cfg)
    cfg.MODEL.BACKBONE.NAME = "build_fpn_backbone_p6p7"
    cfg.MODEL.FPN.BOTTOM_UP = "build_regnet_backbone"
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res4"]
    cfg.MODEL.FPN.IN_FEATURES = ["s2", "s3", "s4"]
    validate_cfg(cfg)


def test_a_key_of_detectron2_that_nothing_reads_is_a_warning():
    cfg = base_cfg()
    cfg.MODEL.RETINANET.FOCAL_LOSS_GAMMA = 1.0
    assert validate_cfg(cfg) == []
    cfg.MODEL.RETINANET.CLS_LOSS = "BCE"
    (warning,) = validate_cfg(cfg)
    assert "FOCAL_LOSS_GAMMA is 1.0, but CLS_LOSS is 'BCE', which does not read it" in warning


class PolyLoss(torch.nn.Module):
    """A user's loss with a key of its own and a rule about it."""

    config_keys = ("POLY_EPSILON", "FOCAL_LOSS_GAMMA")

    def __init__(self, cfg, node=None):
        super().__init__()
        self.epsilon = (node or cfg.MODEL.RETINANET).POLY_EPSILON

    @classmethod
    def check_config(cls, cfg, node=None):
        epsilon = (node or cfg.MODEL.RETINANET).POLY_EPSILON
        if epsilon <= -1:
            raise ValueError(f"MODEL.RETINANET.POLY_EPSILON is {epsilon}; set it above -1")
        return ["POLY_EPSILON is large"] if epsilon > 10 else []


def test_a_users_component_gets_the_same_service(own_parts: None):
    register_config_key(NODE + "POLY_EPSILON", 1.0)
    CLS_LOSS_REGISTRY.register(PolyLoss)
    cfg = base_cfg()
    cfg.MODEL.RETINANET.POLY_EPSILON = 2.0
    with pytest.raises(
        InputError, match=r"POLY_EPSILON is 2\.0, but CLS_LOSS is 'FocalLoss'.*Poly"
    ):
        validate_cfg(cfg)
    cfg.MODEL.RETINANET.CLS_LOSS = "PolyLoss"
    assert validate_cfg(cfg) == []
    cfg.MODEL.RETINANET.POLY_EPSILON = 11.0
    assert validate_cfg(cfg) == ["POLY_EPSILON is large"]
    cfg.MODEL.RETINANET.POLY_EPSILON = -1.0
    with pytest.raises(InputError, match=r"^MODEL\.RETINANET\.POLY_EPSILON is -1\.0; set it above"):
        validate_cfg(cfg)
    cfg.MODEL.RETINANET.POLY_EPSILON = 1.0
    cfg.MODEL.RETINANET.OHEM_BATCH = 7  # it declares what it reads, so the rest is not its own
    with pytest.raises(InputError, match=r"OHEM_BATCH is 7, but CLS_LOSS is 'PolyLoss'"):
        validate_cfg(cfg)
    cfg = base_cfg()
    cfg.MODEL.RETINANET.CLS_LOSS = "PolyLos"
    with pytest.raises(ConfigError, match="Did you mean 'PolyLoss'"):
        validate_cfg(cfg)


def test_a_loss_that_declares_a_key_of_detectron2_takes_it_from_nobody(own_parts: None):
    register_config_key(NODE + "POLY_EPSILON", 1.0)
    CLS_LOSS_REGISTRY.register(PolyLoss)
    cfg = base_cfg()
    cfg.MODEL.RETINANET.FOCAL_LOSS_GAMMA = 1.0
    assert validate_cfg(cfg) == []


def test_a_users_loss_has_its_classes_counted_if_it_says_so(own_parts: None, monkeypatch):
    class Counting(FocalLoss):
        needs_class_counts = True

    CLS_LOSS_REGISTRY.register(Counting)
    monkeypatch.setattr(
        "retinanet_ext.engine.setup.count_classes", lambda names, k, images: [3] * k
    )
    cfg = base_cfg()
    cfg.MODEL.RETINANET.NUM_CLASSES = 2
    cfg.DATASETS.TRAIN = ("somewhere",)
    fill_class_counts(cfg)
    assert cfg.MODEL.RETINANET.CLASS_COUNTS == []
    cfg.MODEL.RETINANET.CLS_LOSS = "Counting"
    fill_class_counts(cfg)
    assert cfg.MODEL.RETINANET.CLASS_COUNTS == [3, 3]


def test_parts_to_freeze_are_those_that_the_head_names(own_parts: None):
    class NamedHead(RetinaNetHead):
        freezable_parts = ("neck",)

    class SilentHead(RetinaNetHead):
        pass

    DENSE_HEAD_REGISTRY.register(NamedHead)
    DENSE_HEAD_REGISTRY.register(SilentHead)
    cfg = base_cfg()
    for head, part in (("NamedHead", "neck"), ("SilentHead", "anything")):
        cfg.MODEL.RETINANET.HEAD, cfg.MODEL.RETINANET.FREEZE = head, [part]
        assert validate_cfg(cfg) == []
    cfg.MODEL.RETINANET.HEAD, cfg.MODEL.RETINANET.FREEZE = "NamedHead", ["neckk"]
    with pytest.raises(ConfigError, match=r"FREEZE holds 'neckk'.*NamedHead.*Did you mean 'neck'"):
        validate_cfg(cfg)


def test_a_detector_made_from_ours_is_checked_like_ours(monkeypatch):
    class MyDetector(RetinaNetExt):
        pass

    monkeypatch.setitem(META_ARCH_REGISTRY._obj_map, "MyDetector", MyDetector)
    cfg = base_cfg()
    cfg.MODEL.META_ARCHITECTURE = "MyDetector"
    assert validate_cfg(cfg) == []
    cfg.MODEL.RETINANET.ATSS_TOPK = 15
    with pytest.raises(InputError, match=r"set MODEL\.RETINANET\.ASSIGNER to ATSSAssigner"):
        validate_cfg(cfg)


def test_checks_of_other_rooms_are_called_and_may_warn():
    def check(cfg):
        return ["a warning"] if cfg.SEED == 3 else None

    register_config_check(check)
    try:
        cfg = base_cfg()
        assert validate_cfg(cfg) == []
        cfg.SEED = 3
        assert validate_cfg(cfg) == ["a warning"]
    finally:
        del CONFIG_CHECKS[f"{check.__module__}.{check.__qualname__}"]
