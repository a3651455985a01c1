"""On a GPU, every setting of MODEL.SPEEDUPS gives the numbers of the plain network."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone, build_model
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from retinanet_ext import get_cfg
from tests.helpers.parity import Batch, assert_same_boxes, make_batch, spread_predictions
from tests.helpers.steps import sgd
from tests.modeling.speedups.test_settings import assert_same, build, outcome

pytestmark = pytest.mark.cuda

K = 7


@pytest.mark.parametrize(
    "speedups",
    [{"CHANNELS_LAST": x} for x in ("all", "backbone", "none")] + [{"FOLD_FROZEN_BN": True}],
    ids=lambda speedups: str(*speedups.values()),
)
def test_exact_settings(gpu: torch.device, speedups: dict[str, Any]):
    # In float64, where rounding cannot hide a mistake.
    fast, plain = build(**speedups).to(gpu), build().to(gpu)
    assert fast.device.type == gpu.type
    in_float32, expected = outcome(fast), outcome(plain)
    for name, value in expected[0].items():
        torch.testing.assert_close(in_float32[0][name], value, rtol=1e-5, atol=0)
    fast.zero_grad(), plain.zero_grad()
    assert_same(outcome(fast.double()), outcome(plain.double()), 1e-7)


class ThreeConvolutions(Backbone):
    """A backbone that compiles within seconds, with a frozen norm to fold."""

    def __init__(self, cfg: Any, input_shape: ShapeSpec):
        super().__init__()
        norms = [FrozenBatchNorm2d(16) for _ in range(3)]
        for norm in norms:
            norm.running_mean.uniform_(-0.1, 0.1)
        self.p3 = Conv2d(3, 16, 8, stride=8, norm=norms[0], activation=torch.relu)
        self.p4 = Conv2d(16, 16, 3, stride=2, padding=1, norm=norms[1], activation=torch.relu)
        self.p5 = Conv2d(16, 16, 3, stride=2, padding=1, norm=norms[2], activation=torch.relu)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        p3 = self.p3(x / 50)
        p4 = self.p4(p3)
        return {"p3": p3, "p4": p4, "p5": self.p5(p4)}

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {f"p{i}": ShapeSpec(channels=16, stride=2**i) for i in (3, 4, 5)}


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    BACKBONE_REGISTRY.register(ThreeConvolutions)
    yield
    BACKBONE_REGISTRY._obj_map.pop("ThreeConvolutions")


@pytest.fixture
def compiler() -> Iterator[None]:
    """Compiled functions that no other test sees."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def build_small(device: torch.device, seed: int = 0, **speedups: Any) -> nn.Module:
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.DEVICE = "RetinaNetExt", str(device)
    cfg.MODEL.BACKBONE.NAME = "ThreeConvolutions"
    cfg.MODEL.ANCHOR_GENERATOR.NAME = "RetinaNetAnchorGenerator"
    cfg.MODEL.ANCHOR_GENERATOR.OCTAVE_BASE_SIZES = [32.0, 64.0, 128.0]
    cfg.MODEL.ANCHOR_GENERATOR.SCALES_PER_OCTAVE = 1
    cfg.MODEL.RETINANET.IN_FEATURES = ["p3", "p4", "p5"]
    cfg.MODEL.RETINANET.NUM_CLASSES, cfg.MODEL.RETINANET.NUM_CONVS = K, 1
    cfg.MODEL.RETINANET.SMOOTH_L1_LOSS_BETA = 1.0
    cfg.MODEL.SPEEDUPS.SPARSE_BOX_SUBNET = cfg.MODEL.SPEEDUPS.WINOGRAD = False
    for name, value in speedups.items():
        cfg.MODEL.SPEEDUPS[name] = value
    torch.manual_seed(seed)
    return build_model(cfg)


def pair(device: torch.device, seed: int = 0, **speedups: Any) -> tuple[nn.Module, nn.Module]:
    """A model that is not compiled, and one with the same weights that is."""
    plain = build_small(device, seed)
    compiled = build_small(device, seed, COMPILE=True, **speedups)
    assert compiled.backbone._compiled_call_impl is not None
    torch.manual_seed(seed)
    spread_predictions(plain)
    compiled.load_state_dict(copy.deepcopy(plain.state_dict()))
    return plain, compiled


def step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch) -> dict[str, float]:
    """One step of training; its losses."""
    model.train()
    with EventStorage():
        losses = model(batch)
    optimizer.zero_grad()
    sum(losses.values()).backward()
    optimizer.step()
    return {name: loss.item() for name, loss in losses.items()}


def assert_same_step(pairs: tuple[nn.Module, nn.Module], optimizers: list, batch: Batch) -> None:
    expected, got = (
        step(model, optimizer, batch) for model, optimizer in zip(pairs, optimizers, strict=True)
    )
    assert got == pytest.approx(expected, rel=1e-4)
    weights, ours = (dict(model.named_parameters()) for model in pairs)
    for name, value in weights.items():
        assert (ours[name] - value).abs().max() <= 1e-4 * value.abs().max() + 1e-6, name


def assert_same_inference(pairs: tuple[nn.Module, nn.Module], batch: Batch) -> None:
    """Head and detections; the detections of one batch stay as they are after the next."""
    plain, compiled = (model.eval() for model in pairs)
    with torch.no_grad():
        kept = [x["instances"] for x in compiled(batch)]
        others = compiled([{**x, "image": 255 - x["image"]} for x in batch])
        expected = [x["instances"] for x in plain(batch)]
    assert len(others) == len(batch)
    for got, wanted in zip(kept, expected, strict=True):
        assert_same_boxes(got, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled_training_and_inference(gpu: torch.device, compiler: None, mode: str):
    models, batch = pair(gpu, COMPILE_MODE=mode), make_batch(K)
    optimizers = [sgd(model, 0.001) for model in models]
    for _ in range(3):
        assert_same_step(models, optimizers, batch)
    for _ in range(3):  # the third replays the recorded graph
        assert_same_inference(models, batch)
    # Evaluation between training steps, and another size of the input.
    assert_same_step(models, optimizers, batch)
    assert_same_inference(models, batch[:1])
    assert_same_step(models, optimizers, batch[:1])


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_two_compiled_models_take_turns(gpu: torch.device, compiler: None, mode: str):
    batch = make_batch(K)
    pairs = [pair(gpu, seed, COMPILE_MODE=mode) for seed in (0, 1)]
    optimizers = [[sgd(model, 0.001) for model in models] for models in pairs]
    for _ in range(3):
        for models, of_models in zip(pairs, optimizers, strict=True):
            assert_same_step(models, of_models, batch)
    for _ in range(2):
        for models in pairs:
            assert_same_inference(models, batch)


@pytest.mark.slow
def test_losses_of_a_compiled_model_are_the_callers_to_keep(gpu: torch.device, compiler: None):
    # Graphs write into the same memory at every step, gradients too: those of the step before
    # have to be dropped before the next one begins, as training does.
    plain, compiled = pair(gpu, COMPILE_MODE="reduce-overhead")
    batch = make_batch(K)
    found = []
    for model in (plain, compiled):
        model.train()
        with EventStorage():
            for _ in range(2):
                sum(model(batch).values()).backward()
                model.zero_grad()
            losses = model(batch)
            values = {name: loss.item() for name, loss in losses.items()}
            sum(losses.values()).backward()
        assert {name: loss.item() for name, loss in losses.items()} == values
        found.append({name: x.grad for name, x in model.named_parameters()})
    for name, gradient in found[0].items():
        assert (found[1][name] - gradient).abs().max() <= 1e-3 * gradient.abs().max(), name
