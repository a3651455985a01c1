"""Registries: lookup errors, idempotent registration."""

from __future__ import annotations

import importlib

import pytest
from detectron2.modeling import ANCHOR_GENERATOR_REGISTRY, META_ARCH_REGISTRY

import retinanet_ext.modeling.anchors
import retinanet_ext.modeling.heads.build
import retinanet_ext.modeling.retinanet
from retinanet_ext.compat import replace_entry
from retinanet_ext.registry import (
    ASSIGNER_REGISTRY,
    BOX_LOSS_REGISTRY,
    CLS_LOSS_REGISTRY,
    DENSE_HEAD_REGISTRY,
    ComponentRegistry,
)


@pytest.mark.parametrize(
    ("registry", "names"),
    [
        (META_ARCH_REGISTRY, ["RetinaNetExt"]),
        (ANCHOR_GENERATOR_REGISTRY, ["RetinaNetAnchorGenerator"]),
        (DENSE_HEAD_REGISTRY, ["RetinaNetHead"]),
        (ASSIGNER_REGISTRY, ["IoUAssigner"]),
        (CLS_LOSS_REGISTRY, ["FocalLoss"]),
        (BOX_LOSS_REGISTRY, ["SmoothL1", "GIoU", "DIoU", "CIoU"]),
    ],
)
def test_import_registers_the_components(registry, names: list[str]):
    assert [name for name in names if name not in registry] == []


@pytest.mark.parametrize(
    "module",
    [
        retinanet_ext.modeling.anchors,
        retinanet_ext.modeling.heads.build,
        retinanet_ext.modeling.retinanet,
    ],
    ids=lambda module: module.__name__,
)
def test_reload_registers_the_new_class(module):
    registries = (META_ARCH_REGISTRY, ANCHOR_GENERATOR_REGISTRY, DENSE_HEAD_REGISTRY)
    before, entries = dict(vars(module)), [dict(registry) for registry in registries]
    try:
        importlib.reload(module)
        for registry in registries:
            for name, entry in registry:
                if entry.__module__ == module.__name__:
                    assert entry is getattr(module, name) is not before[name]
    finally:  # other tests have imported the old classes
        vars(module).update(before)
        for registry, old in zip(registries, entries, strict=True):
            for name, entry in old.items():
                replace_entry(registry, name, entry)


def test_unknown_name_lists_choices_and_suggests():
    registry = ComponentRegistry("thing", "MODEL.THING")

    @registry.register()
    class Alpha:
        pass

    with pytest.raises(KeyError, match=r"MODEL\.THING is 'alpa'.*Did you mean 'Alpha'.*import"):
        registry.get("alpa")
    assert registry.get("Alpha") is Alpha


def test_another_class_of_the_same_name_is_refused():
    registry = ComponentRegistry("thing", "MODEL.THING")
    registry.register(type("Alpha", (), {"__module__": "one"}))
    with pytest.raises(KeyError, match="already registered by one"):
        registry.register(type("Alpha", (), {"__module__": "two"}))
