"""Hooks on any module fire as in Detectron2's RetinaNet, in training and in evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from retinanet_ext.modeling import RetinaNetHead
from retinanet_ext.modeling.speedups import settings, sparse_tower, winograd

from ..test_detectron2_parity import build_pair, make_batch, small_cfg
from .test_settings import assert_same, outcome
from .test_settings import build as build_plain

# The detector itself, and what Detectron2 has no module for.
OURS_ONLY = ("", "loss_normalizer", "cls_loss", "box_loss")


@pytest.fixture
def pair(monkeypatch) -> Iterator[tuple[nn.Module, nn.Module]]:
    """Detectron2's model and ours, each fast path of ours at work."""
    monkeypatch.setattr(sparse_tower, "MAX_SHARE", 1.0)
    if winograd.is_available():
        monkeypatch.setattr(winograd, "MIN_CHANNELS", 16)
        monkeypatch.setattr(winograd, "MIN_LOCATIONS", 1)
        monkeypatch.setattr(winograd, "MUCH_WORK", 1)
    cfg = small_cfg(FUSED_CLS_LOSS_MIN_CLASSES=1)
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    yield build_pair(cfg)


def run(model: nn.Module, training: bool) -> None:
    model.train(training)
    if training:
        with EventStorage():
            sum(model(make_batch(7)).values()).backward()
        return
    with torch.no_grad():
        model(make_batch(7))


def calls(model: nn.Module, training: bool, listen: str, of: str = "") -> Counter:
    """How often a hook on each module was called, all of those whose name starts with ``of``."""
    seen: Counter = Counter()

    def hook_of(name: str) -> Callable[..., None]:
        return lambda *_: seen.update([name])

    for name, module in model.named_modules():
        if name not in OURS_ONLY and name.startswith(of):
            getattr(module, listen)(hook_of(name))
    run(model, training)
    return seen


@pytest.mark.parametrize(
    ("listen", "training"),
    [
        ("register_forward_hook", True),
        ("register_forward_hook", False),
        ("register_forward_pre_hook", True),
    ],
)
def test_all_hooks_are_called_as_often_as_detectron2_calls_them(pair, listen: str, training: bool):
    theirs, ours = (calls(model, training, listen) for model in pair)
    assert theirs == ours
    assert theirs["backbone.bottom_up.res2.0.conv1.norm"] == 1
    assert theirs["head.bbox_subnet.0"] == theirs["head.cls_score"] == 5


@pytest.mark.parametrize("listen", ["register_full_backward_hook", "register_forward_hook"])
def test_hooks_on_the_head_see_gradients(pair, listen: str):
    # In the backbone, PyTorch refuses most of them beside Detectron2's ReLUs in place.
    theirs, ours = (calls(model, True, listen, of="head.") for model in pair)
    assert theirs == ours and theirs["head.bbox_subnet.1"] == 5


NAMES = [
    "backbone.bottom_up.stem.conv1.norm",
    "backbone.bottom_up.res4",
    "backbone.bottom_up.res5.1.conv2.norm",
    "backbone.fpn_output4",
    "head.cls_subnet.2",
    "head.bbox_subnet.0",
    "head.cls_score",
    "head.bbox_pred",
]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_a_single_hook_sees_what_detectron2s_sees(pair, name: str, training: bool):
    seen: list[list[Tensor]] = []
    for model in pair:
        outputs: list[Tensor] = []
        module = model.get_submodule(name)
        # Copies: Detectron2 rectifies in place.
        module.register_forward_hook(
            lambda _, inputs, out, to=outputs: to.append(out.detach().clone())
        )
        run(model, training)
        seen.append(outputs)
    theirs, ours = seen
    assert len(theirs) == len(ours) > 0
    for expected, got in zip(theirs, ours, strict=True):
        # Winograd's algorithm rounds in another way.
        torch.testing.assert_close(got, expected, rtol=1e-2, atol=1e-3 * expected.abs().max())


def test_what_a_hook_returns_in_place_of_an_output_is_used(pair):
    _, ours = pair
    ours.eval()
    images = ours.preprocess_image(make_batch(7)).tensor
    with torch.no_grad():
        before = ours.backbone(images)["p3"]
        norm = ours.get_submodule("backbone.bottom_up.res3.0.conv2.norm")
        handle = norm.register_forward_hook(lambda _, inputs, out: torch.zeros_like(out))
        assert not torch.allclose(ours.backbone(images)["p3"], before)
        handle.remove()
        assert torch.equal(ours.backbone(images)["p3"], before)


def test_a_hook_for_all_modules_is_called_too(pair):
    _, ours = pair
    norms = {id(x) for x in ours.modules() if isinstance(x, FrozenBatchNorm2d)}
    seen: set[int] = set()
    handle = nn.modules.module.register_module_forward_hook(lambda m, *_: seen.add(id(m)))
    try:
        run(ours, training=True)
    finally:
        handle.remove()
    assert norms <= seen
    assert {id(x) for x in ours.head.modules() if isinstance(x, nn.Conv2d)} <= seen


def test_where_nobody_listens_norms_are_folded(pair, monkeypatch):
    _, ours = pair
    called = []
    forward = FrozenBatchNorm2d.forward
    monkeypatch.setattr(
        FrozenBatchNorm2d, "forward", lambda self, x: called.append(self) or forward(self, x)
    )
    run(ours, training=False)
    assert called == []
    norm = ours.get_submodule("backbone.bottom_up.res3.0.conv2.norm")
    norm.register_forward_hook(lambda *_: None)
    run(ours, training=False)
    assert called == [norm]


def test_a_folded_norm_and_one_that_is_listened_to_give_the_same_numbers():
    folded, listened = (build_plain(FOLD_FROZEN_BN=True).double() for _ in range(2))
    for module in listened.modules():
        if isinstance(module, settings.FastNormConv2d) and module.norm is not None:
            module.norm.register_forward_hook(lambda *_: None)
    assert_same(outcome(listened), outcome(folded), 1e-9)


def test_levels_of_fewer_anchors_call_a_predictor_that_is_listened_to():
    shapes = [ShapeSpec(channels=4, stride=8), ShapeSpec(channels=4, stride=16)]
    head = RetinaNetHead(input_shape=shapes, num_classes=2, num_anchors=[3, 1], conv_dims=[4])
    features = [torch.randn(1, 4, 4, 4), torch.randn(1, 4, 2, 2)]
    expected = head(features)
    seen = []
    head.cls_score.register_forward_hook(lambda _, inputs, out: seen.append(out.shape))
    got = head(features)
    assert len(seen) == len(features)
    torch.testing.assert_close(got.logits, expected.logits)
