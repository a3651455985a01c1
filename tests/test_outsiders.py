"""What third parties changed of Detectron2's RetinaNet, as entries: the code of docs/extending.md.

Each is built from its yaml, trains a step with finite losses, and what it predicts beside class and
box leaves these alone.
"""

from __future__ import annotations

import math
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances

from retinanet_ext import validate_cfg
from retinanet_ext.registry import ASSIGNER_REGISTRY, CLS_LOSS_REGISTRY, DENSE_HEAD_REGISTRY
from retinanet_ext.structures import DenseTargets
from tests.helpers.tiny import NINE_ANCHORS, tiny_cfg
from tests.modeling.test_retinanet import example

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "extending.md").read_text()
FILES = dict(
    re.findall(r"^```(?:python|yaml)\n# (\S+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
)
OUTSIDERS = ("variance_head", "embedding_head", "nearest_centre", "ssh_head", "softmax_focal")
ADDS = {
    "variance_head": {"loss_box_variance", "loss_cls_variance"},
    "embedding_head": {"loss_pull", "loss_push"},
}
MOST_LINES = 40


@pytest.fixture(scope="module", autouse=True)
def modules() -> Iterator[dict[str, types.ModuleType]]:
    """The files of the page, imported; what they register is gone afterwards."""
    registries = (ASSIGNER_REGISTRY, CLS_LOSS_REGISTRY, DENSE_HEAD_REGISTRY)
    before = [dict(registry._obj_map) for registry in registries]
    loaded = {}
    for name in OUTSIDERS:
        module = loaded[name] = types.ModuleType(name)
        sys.modules[name] = module
        exec(compile(FILES[f"{name}.py"], f"{name}.py", "exec"), module.__dict__)
    yield loaded
    for registry, entries in zip(registries, before, strict=True):
        registry._obj_map.clear()
        registry._obj_map.update(entries)
    for name in OUTSIDERS:
        del sys.modules[name]


def cfg_of(outsider: str | None) -> CfgNode:
    cfg = tiny_cfg(keys=NINE_ANCHORS)
    if outsider is not None:
        cfg.merge_from_other_cfg(CfgNode(yaml.safe_load(FILES[f"{outsider}.yaml"])))
        assert validate_cfg(cfg) == []
    return cfg


def build(outsider: str | None) -> Any:
    torch.manual_seed(0)
    return build_model(cfg_of(outsider))


@pytest.mark.parametrize("outsider", OUTSIDERS)
def test_it_is_built_from_yaml_and_trains_a_step(outsider: str):
    model = build(outsider).train()
    losses = model([example(), example(classes=(), boxes=())])
    assert losses.keys() - {"loss_cls", "loss_box_reg"} == ADDS.get(outsider, set())
    assert all(x.isfinite() for x in losses.values())
    assert losses["loss_cls"] > 0 and losses["loss_box_reg"] > 0
    sum(losses.values()).backward()
    unused = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert unused == []
    torch.optim.SGD(model.parameters(), lr=1e-3).step()
    again = model([example(), example(classes=(), boxes=())])
    assert all(x.isfinite() for x in again.values()) and again["loss_cls"] != losses["loss_cls"]


@pytest.mark.parametrize("outsider", OUTSIDERS)
def test_a_batch_without_objects_has_finite_losses(outsider: str):
    losses = build(outsider).train()([example(classes=(), boxes=())])
    assert all(x.isfinite() for x in losses.values())
    sum(losses.values()).backward()


@pytest.mark.parametrize("outsider", sorted(ADDS))
def test_what_it_predicts_besides_leaves_scores_and_boxes_alone(outsider: str):
    own, usual = build(outsider), build(None)
    own.load_state_dict(usual.state_dict(), strict=False)
    for model in (own, usual):
        torch.nn.init.zeros_(model.head.cls_score.bias)
    got, expected = (model.eval()([example()])[0]["instances"] for model in (own, usual))
    assert len(expected) > 10
    assert torch.equal(got.scores, expected.scores)
    assert torch.equal(got.pred_boxes.tensor, expected.pred_boxes.tensor)
    losses, of_usual = own.train()([example()]), usual.train()([example()])
    for name, value in of_usual.items():
        torch.testing.assert_close(losses[name], value)


@pytest.mark.parametrize("outsider", OUTSIDERS)
def test_it_is_short(outsider: str):
    assert len(FILES[f"{outsider}.py"].splitlines()) <= MOST_LINES


def test_embeddings_of_one_object_are_pulled_and_those_of_two_pushed():
    model = build("embedding_head").train()
    head = model.head
    taken: list[tuple] = []
    head_losses = head.named_losses
    head.named_losses = lambda *args: taken.append(args) or head_losses(*args)
    model([example()])
    outputs, targets, anchors = taken[0]
    # All alike: nothing to pull, and two objects at distance 0 from each other.
    outputs.named["embedding"] = [torch.ones_like(x) for x in outputs.named["embedding"]]
    assert targets.matched_idxs.unique().tolist() == [-1, 0, 1]
    losses = head_losses(outputs, targets, anchors)
    assert losses["loss_pull"] == 0 and losses["loss_push"] == head.margin**2


def test_an_anchor_goes_to_the_nearest_centre_and_none_outside_of_the_image_takes_part():
    assigner = ASSIGNER_REGISTRY.get("NearestCentreAssigner")(tiny_cfg())
    # Centres 20, 27 and 40 in x, and one that stands out of the image.
    rows = [[10.0, 10, 30, 30], [17, 10, 37, 30], [30, 10, 50, 30], [-5, 10, 15, 30]]
    gt = Instances((64, 96))
    gt.gt_boxes = Boxes(torch.tensor([[12.0, 19, 32, 21], [18.0, 10, 38, 30]]))  # at 22 and 28
    gt.gt_classes = torch.tensor([2, 0])
    targets = assigner([Boxes(torch.tensor(rows))], [gt])
    assert targets.labels.tolist() == [[2, 0, 3, -1]]
    assert targets.matched_idxs.tolist() == [[0, 1, -1, -1]]


def softmax_focal(logits: list[float], label: int, **settings: float) -> float:
    """The loss of one anchor of two classes whose background logit is the last."""
    loss = CLS_LOSS_REGISTRY.get("SoftmaxFocal")(**settings)
    x = torch.tensor(logits[:2]).view(1, 2, 1, 1) - logits[2]
    targets = DenseTargets(torch.tensor([[label]]), torch.zeros(1, 1, 4), num_classes=2)
    return loss([x], targets).item()


@pytest.mark.parametrize(
    ("logits", "label", "expected"),
    [
        ([0.0, 0.0, 0.0], 2, 0.366204),
        ([2.0, 0.0, 0.0], 0, 0.002717),
        ([2.0, 0.0, 0.0], 2, 1.340921),
    ],
)
def test_softmax_focal_has_the_values_worked_out_by_hand(logits, label: int, expected: float):
    assert softmax_focal(logits, label) == pytest.approx(expected, abs=1e-5)
    shifted = [x + 3 for x in logits]  # a softmax does not change where all logits move
    assert softmax_focal(shifted, label) == pytest.approx(expected, abs=1e-5)
    plain = softmax_focal(logits, label, gamma=0.0, alpha=0.5)
    cross_entropy = -math.log(math.exp(logits[label]) / sum(map(math.exp, logits)))
    assert plain == pytest.approx(cross_entropy / 2, abs=1e-6)


def test_scores_of_the_softmax_head_are_probabilities_that_sum_below_1():
    head = build("softmax_focal").head.eval()
    torch.manual_seed(0)
    x = torch.randn(2, 2 * 3, 4, 5)
    got = head.log_odds(x).sigmoid().unflatten(1, (2, 3))
    raw = x.unflatten(1, (2, 3))
    expected = raw.exp() / (1 + raw.exp().sum(dim=2, keepdim=True))
    torch.testing.assert_close(got, expected)
    assert got.sum(dim=2).max() < 1
