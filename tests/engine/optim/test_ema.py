"""The average of the weights: its closed form, what it holds, and its way through a run."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_model
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from retinanet_ext.engine.checkpoint.checkpointer import SafeCheckpointer
from retinanet_ext.engine.optim.ema import EMAHook, ModelEMA
from tests.helpers.two_ranks import run_on_two_ranks


def small_model() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2), FrozenBatchNorm2d(2))
    model.register_buffer("constant", torch.ones(2), persistent=False)
    model[2].bias.requires_grad_(False)
    return model


@torch.no_grad()
def move(model: nn.Module) -> None:
    """What stands for a step of an optimizer: everything changes."""
    for x in [*model.parameters(), *model.buffers()]:
        x.add_(torch.randn_like(x) if x.is_floating_point() else 1)


@pytest.mark.parametrize("warmup", [False, True])
def test_it_matches_the_closed_form(warmup):
    model, decay, steps = small_model(), 0.8, 60
    ema = ModelEMA(model, decay, warmup)
    history = [model[0].weight.detach().double().clone()]
    for _ in range(steps):
        move(model)
        ema.update()
        history.append(model[0].weight.detach().double().clone())
    decays = [min(decay, (1 + n) / (10 + n)) if warmup else decay for n in range(steps)]
    # Weight i is left over from step i with 1 - d_i, and shrinks with each later decay.
    shares = [1.0] + [1 - d for d in decays]
    expected = torch.zeros_like(history[0])
    for i, (share, weight) in enumerate(zip(shares, history, strict=True)):
        expected += share * torch.tensor(decays[i:], dtype=torch.float64).prod() * weight
    torch.testing.assert_close(ema.averages["0.weight"].double(), expected, rtol=0, atol=1e-5)
    assert ema.num_updates == steps


def test_warmup_ends_at_the_decay():
    ema = ModelEMA(small_model(), 0.5)
    found = []
    for _ in range(9):
        found.append(ema.next_decay())
        ema.update()
    assert found[:2] == [1 / 10, 2 / 11] and found[-2:] == [8 / 17, 0.5]


def test_floats_are_averaged_and_the_rest_is_the_models():
    model = small_model()
    ema = ModelEMA(model, 0.5, warmup=False)
    assert set(ema.averages) == {
        *("0.weight", "0.bias", "1.weight", "1.bias", "2.weight"),
        *("1.running_mean", "1.running_var"),
    }
    before = copy.deepcopy(model.state_dict())
    move(model)
    ema.update()
    with ema.applied():
        found = copy.deepcopy(model.state_dict())
    for name, value in model.state_dict().items():
        middle = (before[name] + value) / 2 if name in ema.averages else value
        torch.testing.assert_close(found[name], middle, msg=name)


def test_averages_are_float32_whatever_the_weights_are():
    model = nn.Linear(4, 4).to(torch.bfloat16)
    ema = ModelEMA(model, 0.999, warmup=False)
    start = model.weight.detach().float().clone()
    with torch.no_grad():
        model.weight += 0.5
    ema.update()
    assert ema.averages["weight"].dtype == torch.float32
    moved = ema.averages["weight"] - start  # less than bfloat16 could hold
    torch.testing.assert_close(moved, torch.full_like(start, 5e-4), rtol=0.02, atol=1e-6)


def test_weights_are_put_back_exactly_even_after_an_error():
    model = small_model()
    ema = ModelEMA(model)
    move(model)
    ema.update()
    move(model)
    before, pointers = copy.deepcopy(model.state_dict()), [x.data_ptr() for x in model.parameters()]
    with pytest.raises(RuntimeError, match="on purpose"), ema.applied():
        assert not torch.equal(model[0].weight, before["0.weight"])
        raise RuntimeError("on purpose")
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert [x.data_ptr() for x in model.parameters()] == pointers
    assert all(x.grad is None for x in model.parameters())


def test_updates_allocate_nothing_new():
    ema = ModelEMA(small_model())
    pointers = {name: x.data_ptr() for name, x in ema.averages.items()}
    for _ in range(3):
        ema.update()
    assert {name: x.data_ptr() for name, x in ema.averages.items()} == pointers


def test_its_state_goes_through_a_file_exactly(tmp_path):
    model = small_model()
    ema = ModelEMA(model, 0.9)
    for _ in range(5):
        move(model)
        ema.update()
    torch.save({"ema": ema.state_dict(), "model": model.state_dict()}, tmp_path / "x.pth")
    move(model)
    saved = torch.load(tmp_path / "x.pth", weights_only=True)
    other_model = small_model()
    other = ModelEMA(other_model, 0.9)
    other_model.load_state_dict(saved["model"])
    other.load_state_dict(saved["ema"])
    other_model.load_state_dict(model.state_dict())
    for x in (ema, other):
        x.update()
    assert other.num_updates == ema.num_updates == 6
    for name, value in ema.averages.items():
        assert torch.equal(other.averages[name], value), name


def test_what_was_frozen_starts_from_its_weights(caplog):
    model = small_model()
    state = ModelEMA(model).state_dict()
    model[2].bias.requires_grad_(True)
    ema = ModelEMA(model)
    with torch.no_grad():
        model[2].bias.fill_(7.0)
    ema.load_state_dict(state)
    assert ema.averages["2.bias"].tolist() == [7.0, 7.0]
    assert "2.bias" in caplog.text


def test_another_model_is_refused():
    state = ModelEMA(nn.Linear(3, 2)).state_dict()
    with pytest.raises(ValueError, match=r"EMA of weight .* \(2, 3\), the model \(2, 4\)"):
        ModelEMA(nn.Linear(4, 2)).load_state_dict(state)


def test_a_decay_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"decay must be"):
        ModelEMA(small_model(), 1.0)


def test_the_detector_computes_with_what_is_applied(cfg):
    model = build_model(cfg).eval()
    ema = ModelEMA(model, 0.5, warmup=False)
    torch.manual_seed(1)
    with torch.no_grad():
        for x in model.parameters():
            x.add_(0.01 * torch.randn_like(x))
    ema.update()
    features = torch.randn(1, 3, 64, 64)
    copied = copy.deepcopy(model)
    copied.load_state_dict({**model.state_dict(), **ema.averages})
    with torch.no_grad(), ema.applied():
        found = model.head(list(model.backbone(features).values()))
        expected = copied.head(list(copied.backbone(features).values()))
    for x, y in zip([*found[0], *found[1]], [*expected[0], *expected[1]], strict=True):
        assert torch.equal(x, y)
    assert "loss_normalizer.mean" in ema.averages


def _averages_of_rank(rank: int) -> tuple[list[str], dict]:
    model = small_model()
    ema = ModelEMA(DistributedDataParallel(model), 0.5)
    assert dist.get_world_size() == 2
    move(model)
    ema.update()
    with ema.applied():
        found = {name: x.detach().clone().numpy() for name, x in model.named_parameters()}
    return list(ema.averages), found


def test_a_model_wrapped_for_processes_is_averaged_by_its_own_names():
    (names, first), (_, second) = run_on_two_ranks(_averages_of_rank)
    assert names == list(ModelEMA(small_model()).averages)
    assert all((first[name] == second[name]).all() for name in first)


def run_hook(hook: EMAHook, model: nn.Module, skipped: list[bool], ended: bool = True) -> None:
    loop = SimpleNamespace(last_step_skipped=False)
    hook.trainer = SimpleNamespace(_trainer=loop, iter=0, max_iter=len(skipped))
    hook.before_train()
    for hook.trainer.iter, loop.last_step_skipped in enumerate(skipped):
        if not loop.last_step_skipped:
            move(model)
        hook.after_step()
    hook.trainer.iter += ended
    hook.after_train()


@pytest.fixture
def run(tmp_path: Path) -> tuple[nn.Module, ModelEMA, EMAHook]:
    model = small_model()
    ema = ModelEMA(model, 0.5, warmup=False)
    checkpointer = SafeCheckpointer(model, str(tmp_path), ema=ema)
    checkpointer.thing_classes = ["disc"]
    return model, ema, EMAHook(ema, checkpointer)


def test_the_hook_starts_from_loaded_weights_and_leaves_out_skipped_steps(run):
    model, ema, hook = run
    move(model)  # as loading weights does after the average was built
    start = model[0].weight.detach().clone()
    run_hook(hook, model, [False, True, True])
    assert ema.num_updates == 1
    torch.testing.assert_close(ema.averages["0.weight"], (start + model[0].weight.detach()) / 2)


def test_the_hook_goes_on_from_a_loaded_average(run):
    model, ema, hook = run
    run_hook(hook, model, [False, False])
    state = copy.deepcopy(ema.state_dict())
    other = ModelEMA(model, 0.5, warmup=False)
    other.load_state_dict(state)
    run_hook(EMAHook(other, hook._checkpointer), model, [True])
    assert other.num_updates == 2
    assert torch.equal(other.averages["0.weight"], state["averages"]["0.weight"])


def test_the_final_file_is_plain_weights_that_no_run_resumes_from(run, tmp_path):
    model, ema, hook = run
    run_hook(hook, model, [False, False])
    content = torch.load(tmp_path / "model_final_ema.pth", weights_only=True)
    assert content.keys() == {"model", "thing_classes"} and content["thing_classes"] == ["disc"]
    assert content["model"].keys() == model.state_dict().keys()
    for name, value in content["model"].items():
        expected = ema.averages.get(name, model.state_dict()[name])
        assert torch.equal(value, expected), name
    assert not (tmp_path / "last_checkpoint").exists()


def test_a_training_that_failed_leaves_no_final_file(run, tmp_path):
    model, _, hook = run
    run_hook(hook, model, [False, False], ended=False)
    assert not (tmp_path / "model_final_ema.pth").exists()


def test_a_final_file_that_cannot_be_written_is_one_error(run, caplog, monkeypatch):
    model, _, hook = run
    caplog.set_level(logging.ERROR)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SafeCheckpointer, "save", full)
    before = model.state_dict()["0.weight"]
    run_hook(hook, model, [False])
    assert "No space left on device" in caplog.text and "model_final_ema.pth" in caplog.text
    assert torch.equal(model.state_dict()["0.weight"], before)
