"""Box coders: those of the package, and one of a user's that takes five numbers and the stride."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.structures import Boxes
from detectron2.utils.events import EventStorage
from torch import Tensor

from retinanet_ext import UserError, validate_cfg
from retinanet_ext.modeling.coders import (
    decode_boxes,
    encode_boxes,
    num_box_outputs,
    strides_of_anchors,
)
from retinanet_ext.registry import BOX_CODER_REGISTRY
from tests.helpers.parity import make_batch, small_cfg, spread_predictions


class CellCoder:
    """Centre in cells of the level, size in logs of the stride, and a number that means nothing."""

    num_outputs = 5
    needs_strides = True

    def get_deltas(self, anchors: Tensor, boxes: Tensor, strides: Tensor) -> Tensor:
        centre = ((boxes[:, :2] + boxes[:, 2:]) - (anchors[:, :2] + anchors[:, 2:])) / 2
        size = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-3) / strides[:, None]
        nothing = torch.zeros_like(centre[:, :1])
        return torch.cat([centre / strides[:, None], size.log(), nothing], dim=1)

    def apply_deltas(self, numbers: Tensor, anchors: Tensor, strides: Tensor) -> Tensor:
        centre = (anchors[:, :2] + anchors[:, 2:]) / 2 + numbers[:, :2] * strides[:, None]
        half = numbers[:, 2:4].exp() * strides[:, None] / 2
        return torch.cat([centre - half, centre + half], dim=1)


@pytest.fixture
def cells() -> Iterator[str]:
    """CellCoder, by name."""

    def cells(cfg: CfgNode, node: CfgNode | None = None) -> CellCoder:
        return CellCoder()

    BOX_CODER_REGISTRY.register(cells)
    yield "cells"
    BOX_CODER_REGISTRY._obj_map.pop("cells")


def coder_cfg(name: str, **retinanet: object) -> CfgNode:
    cfg = small_cfg(BOX_CODER=name, **retinanet)
    cfg.MODEL.META_ARCHITECTURE = "RetinaNetExt"
    return cfg


def test_linear_coder_by_hand():
    anchor, box = torch.tensor([[12.0, 12, 20, 20]]), torch.tensor([[8.0, 4, 40, 36]])
    coder = BOX_CODER_REGISTRY.build(coder_cfg("ltrb"))
    assert encode_boxes(coder, anchor, box, None).tolist() == [[1, 1.5, 3, 2.5]]
    # Distances are never negative: the box holds the centre of its anchor.
    got = decode_boxes(coder, torch.tensor([[-1.0, 1, 1, -2]]), anchor, None)
    assert got.tolist() == [[16, 8, 24, 16]]


@pytest.mark.parametrize("name", ["deltas", "ltrb", "cells"])
def test_decoding_undoes_encoding(name: str, cells: str):
    torch.manual_seed(0)
    coder, centre = BOX_CODER_REGISTRY.build(coder_cfg(name)), torch.rand(50, 2) * 100
    strides = torch.tensor([8.0, 16]).repeat(25)
    anchors = torch.cat([centre - 16, centre + 16], dim=1)
    boxes = torch.cat([centre - torch.rand(50, 2) * 40, centre + torch.rand(50, 2) * 40], dim=1)
    numbers = encode_boxes(coder, anchors, boxes, strides)
    assert numbers.shape == (50, num_box_outputs(coder))
    got = decode_boxes(coder, numbers, anchors, strides)
    torch.testing.assert_close(got, boxes, rtol=0, atol=1e-4)


@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("loss", ["smooth_l1", "giou"])
@pytest.mark.parametrize("name", ["ltrb", "cells"])
def test_loss_is_zero_and_boxes_are_the_objects_where_the_head_says_what_the_coder_wants(
    name: str, loss: str, per_class: bool, cells: str
):
    """Training, with all fast paths on, and inference ask the same coder for the same anchors."""
    cfg = coder_cfg(
        name,
        BBOX_REG_LOSS_TYPE=loss,
        CLS_AGNOSTIC_BBOX_REG=not per_class,
        ASSIGNER="ATSSAssigner",  # centres in the boxes, as "ltrb" needs them
        NUM_CONVS=1,
    )
    torch.manual_seed(0)
    model = build_model(cfg).train()
    spread_predictions(model)
    model.train()
    batch = make_batch(cfg.MODEL.RETINANET.NUM_CLASSES)[:1]
    with EventStorage():
        plain = model(batch)["loss_box_reg"]
        images = model.preprocess_image(batch)
        features = [model.backbone(images.tensor)[x] for x in model.head_in_features]
        outputs = model.head(features)
        anchors = model.anchor_generator(features)
        targets = model.label_anchors(anchors, batch)
        strides = strides_of_anchors(CellCoder(), anchors, model.anchor_generator)
        coder = model.box2box_transform
        all_anchors = torch.cat([x.tensor for x in anchors])
        wanted = encode_boxes(coder, all_anchors, targets.boxes[0], strides)
        wanted = wanted.nan_to_num(0, 0, 0)
        count = num_box_outputs(coder)
        assert wanted.shape[1] == count
        classes = cfg.MODEL.RETINANET.NUM_CLASSES if per_class else 1
        perfect, start = [], 0
        for x in outputs.deltas:
            height, width = x.shape[2:]
            num_anchors = x.shape[1] // count // classes
            rows = wanted[start : start + height * width * num_anchors]
            start += len(rows)
            rows = rows.view(height, width, num_anchors, 1, count)
            rows = rows.expand(-1, -1, -1, classes, -1)
            perfect.append(rows.permute(2, 3, 4, 0, 1).reshape(1, -1, height, width))
        outputs.deltas = perfect
        losses = model.losses(anchors, outputs, targets)
    assert plain > 0.05
    assert losses["loss_box_reg"].abs() < 1e-5
    # Every anchor that matches is a sure object of its class now.
    outputs.logits = [torch.full_like(x, -20) for x in outputs.logits]
    start = 0
    for x in outputs.logits:
        height, width = x.shape[2:]
        here = targets.labels[0, start : start + height * width * 9].view(height, width, 9)
        start += height * width * 9
        for i, j, a in (here < cfg.MODEL.RETINANET.NUM_CLASSES).nonzero().tolist():
            x[0, a * cfg.MODEL.RETINANET.NUM_CLASSES + here[i, j, a], i, j] = 5.0
    (found,) = model.eval().forward_inference(images, features, outputs)
    objects = batch[0]["instances"].gt_boxes.tensor
    assert len(found) > 0
    distances = (found.pred_boxes.tensor[:, None] - objects).abs().amax(2).amin(1)
    assert distances.max() < 1e-2


def test_box_subnet_around_positives_gives_the_same_with_other_numbers_per_box(cells: str):
    losses = []
    for sparse in (True, False):
        cfg = coder_cfg("cells")
        cfg.MODEL.SPEEDUPS.SPARSE_BOX_SUBNET = sparse
        torch.manual_seed(0)
        model = build_model(cfg)
        spread_predictions(model)
        model.train()
        with EventStorage():
            losses.append(model(make_batch(7))["loss_box_reg"])
    torch.testing.assert_close(*losses)


def test_a_coder_that_needs_strides_refuses_an_anchor_generator_without():
    anchors = [Boxes(torch.rand(4, 4))]
    two_levels = DefaultAnchorGenerator(sizes=[[8]], aspect_ratios=[1.0], strides=[8, 16])
    for generator in (torch.nn.Identity(), two_levels):
        with pytest.raises(UserError, match="CellCoder needs the stride of each level"):
            strides_of_anchors(CellCoder(), anchors, generator)


def test_an_unknown_coder_names_the_known_ones():
    with pytest.raises(UserError, match=r"BOX_CODER is 'ltbr'.*ltrb"):
        validate_cfg(coder_cfg("ltbr"))
