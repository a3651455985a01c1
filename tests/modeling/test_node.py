"""A component reads the section that it is given, so that one config holds several."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectron2.layers import ShapeSpec

from retinanet_ext import get_cfg, validate_cfg
from retinanet_ext.modeling import DenseDecoder, build_loss_normalizer
from retinanet_ext.modeling.check_config import check_retinanet
from retinanet_ext.modeling.criteria.box import build_box_loss
from retinanet_ext.modeling.heads.build import build_dense_head
from retinanet_ext.registry import (
    ASSIGNER_REGISTRY,
    BOX_LOSS_REGISTRY,
    CLS_LOSS_REGISTRY,
    DENSE_HEAD_REGISTRY,
    ComponentRegistry,
)

SHAPES = [ShapeSpec(channels=8, stride=8), ShapeSpec(channels=8, stride=16)]

BUILT_FROM_CFG = (ASSIGNER_REGISTRY, BOX_LOSS_REGISTRY, CLS_LOSS_REGISTRY)


def names_of(registry: ComponentRegistry) -> list[str]:
    return sorted(n for n, e in registry if e.__module__.startswith("retinanet_ext."))


def second_node() -> Any:
    """A section whose values differ from the defaults of MODEL.RETINANET."""
    node = get_cfg().MODEL.RETINANET.clone()
    node.NUM_CLASSES = 3
    node.NUM_CONVS = 1
    node.FOCAL_LOSS_ALPHA, node.FOCAL_LOSS_GAMMA = 0.6, 1.0
    node.FOCAL_STAR_GAMMA, node.FOCAL_STAR_BETA = 4.0, 0.0
    node.OHEM_BATCH = 7
    node.QUALITY_FOCAL_BETA, node.VARIFOCAL_ALPHA = 1.5, 0.5
    node.CLASS_COUNTS = [1, 20, 300]
    node.LOSS_KERNEL = "reference"
    node.SMOOTH_L1_LOSS_BETA = 0.3
    node.BBOX_REG_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
    node.IOU_THRESHOLDS, node.ATSS_TOPK = [0.3, 0.6], 4
    for registry in BUILT_FROM_CFG:
        for name in names_of(registry):
            halve_own_keys(registry.get(name), node)
    return node


def halve_own_keys(entry: Any, node: Any) -> None:
    """Change the numbers that ``entry`` says it reads, where it can work with half of them."""
    for key in (x for x in entry.config_keys if isinstance(node[x], float)):
        before = node[key]
        node[key] = before / 2
        try:
            entry(get_cfg(), node=node)
        except ValueError:
            node[key] = before


def cfg_with_second() -> Any:
    cfg = get_cfg()
    cfg.MODEL.SECOND = second_node()
    return cfg


def state(component: Any) -> dict[str, Any]:
    """What a component was built with: all plain values that it holds."""
    found = {}
    for name, value in vars(component).items():
        if name == "box2box_transform":
            found[name] = value.weights
        elif name == "matcher":
            found[name] = (value.thresholds, value.labels)
        elif isinstance(value, (int, float, str, tuple, list)):
            found[name] = value
    buffers = component.named_buffers() if isinstance(component, torch.nn.Module) else ()
    return {**found, **{name: buffer.tolist() for name, buffer in buffers}}


@pytest.mark.parametrize(
    ("registry", "name"),
    [(registry, name) for registry in BUILT_FROM_CFG for name in names_of(registry)],
    ids=lambda x: x if isinstance(x, str) else x.config_key,
)
def test_an_entry_reads_its_node_as_it_reads_the_default_one(registry, name: str):
    cfg = cfg_with_second()
    in_place = get_cfg()
    in_place.MODEL.RETINANET = second_node()
    entry = registry.get(name)
    by_node = state(entry(cfg, node=cfg.MODEL.SECOND))
    assert by_node == state(entry(in_place))
    assert by_node != state(entry(cfg)) or name == "SoftmaxCE"  # which reads nothing


@pytest.mark.parametrize("name", names_of(DENSE_HEAD_REGISTRY))
def test_two_heads_of_one_config(name: str):
    cfg = cfg_with_second()
    cfg.MODEL.SECOND.HEAD = name
    second = build_dense_head(cfg, SHAPES, [2, 2], node=cfg.MODEL.SECOND)
    first = build_dense_head(cfg, SHAPES, [2, 2])
    assert first.cls_score.out_channels == 2 * 80 and second.cls_score.out_channels == 2 * 3
    features = [torch.zeros(1, 8, 4, 4), torch.zeros(1, 8, 2, 2)]
    assert [x.shape[1] for x in second(features)[0]] == [6, 6]


def test_what_is_built_around_the_entries_reads_the_node_too():
    cfg = cfg_with_second()
    node = cfg.MODEL.SECOND
    node.BBOX_REG_LOSS_TYPE, node.BOX_LOSS_WEIGHT = "giou", 2.0
    node.LOSS_NORMALIZER, node.LOSS_NORMALIZER_VALUE = "constant", 7.0
    node.NMS_KIND = "soft"
    box_loss = build_box_loss(cfg, node)
    assert type(box_loss.box_loss).__name__ == "GIoU" and box_loss.weight == 2.0
    assert build_loss_normalizer(cfg, node).value == 7.0
    decoder = DenseDecoder.from_cfg(cfg, node)
    assert (decoder.num_classes, decoder.nms_kind) == (3, "soft")
    assert DenseDecoder.from_cfg(cfg).num_classes == 80


def test_a_node_is_checked_like_the_default_one():
    cfg = cfg_with_second()
    node = cfg.MODEL.SECOND
    check_retinanet(cfg, node)
    assert CLS_LOSS_REGISTRY.check(cfg, node) == []
    node.FOCAL_LOSS_GAMMA = -1.0
    with pytest.raises(ValueError, match=r"CLS_LOSS is 'FocalLoss', and gamma must be"):
        CLS_LOSS_REGISTRY.check(cfg, node)
    node.LOSS_NORMALIZER_VALUE = -1.0
    with pytest.raises(ValueError, match="LOSS_NORMALIZER_VALUE"):
        check_retinanet(cfg, node)


@pytest.mark.parametrize(
    ("registry", "key"),
    [
        (ASSIGNER_REGISTRY, "ASSIGNER"),
        (BOX_LOSS_REGISTRY, "BBOX_REG_LOSS_TYPE"),
        (CLS_LOSS_REGISTRY, "CLS_LOSS"),
    ],
)
def test_an_entry_that_knows_no_node_works_with_the_default_one(registry, key, monkeypatch):
    class Plain(torch.nn.Module):
        def __init__(self, cfg):
            super().__init__()
            self.classes = cfg.MODEL.RETINANET.NUM_CLASSES

    monkeypatch.setitem(registry._obj_map, "Plain", Plain)
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "RetinaNetExt"
    cfg.MODEL.RETINANET[key] = "Plain"
    assert validate_cfg(cfg) == []
    assert registry.build(cfg).classes == 80
