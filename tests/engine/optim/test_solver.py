"""Optimizers and learning-rate schedules, against values computed by hand."""

import copy
import math

import pytest
import torch
from detectron2.solver import build_lr_scheduler as build_detectron2_lr_scheduler
from torch import nn

from retinanet_ext import get_cfg
from retinanet_ext.engine.optim.solver import build_lr_scheduler, build_optimizer


@pytest.fixture
def cfg():
    cfg = get_cfg()
    cfg.SOLVER.BASE_LR = 0.5
    cfg.SOLVER.MAX_ITER = 10
    cfg.SOLVER.STEPS = ()
    return cfg


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def learning_rates(cfg, steps):
    """The rate used in each of the first ``steps`` iterations."""
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=cfg.SOLVER.BASE_LR)
    scheduler = build_lr_scheduler(cfg, optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_sgd_takes_detectron2s_step(cfg):
    cfg.SOLVER.MOMENTUM, cfg.SOLVER.WEIGHT_DECAY = 0.0, 0.1
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 2.0)
    optimizer = build_optimizer(cfg, model)
    model.weight.grad = torch.tensor([[1.0]])
    optimizer.step()
    # w - lr * (gradient + decay * w) = 2 - 0.5 * (1 + 0.2)
    assert isinstance(optimizer, torch.optim.SGD)
    assert model.weight.item() == pytest.approx(1.4)


def test_adamw_decays_apart_from_the_gradient(cfg):
    cfg.SOLVER.OPTIMIZER, cfg.SOLVER.WEIGHT_DECAY = "AdamW", 0.1
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 2.0)
    optimizer = build_optimizer(cfg, model)
    model.weight.grad = torch.tensor([[3.0]])
    optimizer.step()
    # First step of Adam has length lr; decay first: 2 * (1 - 0.5 * 0.1) - 0.5 * 3 / 3
    assert model.weight.item() == pytest.approx(1.9 - 0.5, abs=1e-6)


def step_many(optimizer, model):
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        for p in model.parameters():
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_adamw_steps_in_one_pass_on_the_cpu(cfg):
    """Fused: a step of ResNet-18's parameters took 3.3 ms where PyTorch's default took 29 ms."""
    cfg.SOLVER.OPTIMIZER, cfg.SOLVER.WEIGHT_DECAY = "AdamW", 0.1
    model, other = network(), network()
    optimizer = build_optimizer(cfg, model)
    assert all(group["fused"] for group in optimizer.param_groups)
    groups = [
        {"params": other[0].parameters(), "weight_decay": 0.1},
        {"params": other[1].parameters(), "weight_decay": 0.0},
    ]
    plain = torch.optim.AdamW(groups, lr=0.5)
    expected = step_many(plain, other)
    torch.testing.assert_close(step_many(optimizer, model), expected, rtol=1e-5, atol=1e-6)


def test_adamw_is_not_fused_where_pytorch_cannot(cfg, monkeypatch):
    cfg.SOLVER.OPTIMIZER = "AdamW"
    adamw = torch.optim.AdamW

    def before_2_4(*args, fused=None, **kwargs):
        if fused:
            raise RuntimeError("`fused=True` requires all the params to be on CUDA")
        return adamw(*args, **kwargs)

    monkeypatch.setattr(torch.optim, "AdamW", before_2_4)
    step_many(build_optimizer(cfg, model := network()), model)
    monkeypatch.undo()
    groups = build_optimizer(cfg, network().to("meta")).param_groups
    assert all(group["fused"] is None for group in groups)


def test_a_checkpoint_of_an_adamw_that_was_not_fused_continues_as_it_began(cfg):
    cfg.SOLVER.OPTIMIZER = "AdamW"
    model, other = network(), network()
    plain = torch.optim.AdamW(build_optimizer(cfg, model).param_groups, lr=0.5, fused=False)
    for group in plain.param_groups:
        group["fused"] = None
    step_many(plain, model)
    optimizer = build_optimizer(cfg, other)
    other.load_state_dict(model.state_dict())
    optimizer.load_state_dict(copy.deepcopy(plain.state_dict()))
    assert torch.equal(step_many(optimizer, other), step_many(plain, model))


def test_adamw_reads_momentum_and_the_decay_of_norms_and_biases(cfg):
    cfg.SOLVER.OPTIMIZER = "AdamW"
    cfg.SOLVER.MOMENTUM = 0.8
    cfg.SOLVER.WEIGHT_DECAY, cfg.SOLVER.WEIGHT_DECAY_NORM = 0.05, 0.01
    cfg.SOLVER.WEIGHT_DECAY_BIAS, cfg.SOLVER.BIAS_LR_FACTOR = 0.0, 2.0
    linear, norm = model = network()
    optimizer = build_optimizer(cfg, model)
    found = {
        parameter: (group["weight_decay"], group["lr"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert found == {
        linear.weight: (0.05, 0.5),
        linear.bias: (0.0, 1.0),
        norm.weight: (0.01, 0.5),
        norm.bias: (0.0, 1.0),
    }
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.999)


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_gradients_are_clipped_when_asked(cfg, name):
    cfg.SOLVER.OPTIMIZER = name
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 0.25
    model = nn.Linear(2, 1, bias=False)
    optimizer = build_optimizer(cfg, model)
    build_lr_scheduler(cfg, optimizer)
    model.weight.grad = torch.tensor([[10.0, -0.1]])
    optimizer.step()
    assert model.weight.grad.tolist() == [[0.25, pytest.approx(-0.1)]]


def clipped(cfg, norm_type):
    """A network of three parameters in two groups, and its optimizer that clips to norm 1."""
    clipping = cfg.SOLVER.CLIP_GRADIENTS
    clipping.ENABLED, clipping.CLIP_TYPE = True, "full_model"
    clipping.CLIP_VALUE, clipping.NORM_TYPE = 1.0, norm_type
    cfg.SOLVER.BIAS_LR_FACTOR = 2.0
    model = nn.Sequential(nn.Linear(2, 1), nn.Linear(1, 1, bias=False))
    optimizer = build_optimizer(cfg, model)
    assert len(optimizer.param_groups) == 2
    return model, optimizer


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
@pytest.mark.parametrize("norm_type, norm", [(2.0, 10.0), (1.0, 16.0), (math.inf, 8.0)])
def test_the_norm_of_all_gradients_together_is_clipped(cfg, name, norm_type, norm):
    cfg.SOLVER.OPTIMIZER = name
    (first, second), optimizer = clipped(cfg, norm_type)
    build_lr_scheduler(cfg, optimizer)
    first.weight.grad = torch.tensor([[0.0, 8.0]])
    first.bias.grad = torch.tensor([-4.0])
    second.weight.grad = torch.tensor([[math.sqrt(20.0)]] if norm_type == 2 else [[4.0]])
    # 2-norm: sqrt(64 + 16 + 20) = 10; 1-norm: 8 + 4 + 4 = 16; the largest: 8.
    optimizer.step()
    assert first.weight.grad.tolist() == [[0.0, pytest.approx(8 / norm, rel=1e-5)]]
    assert first.bias.grad.tolist() == [pytest.approx(-4 / norm, rel=1e-5)]


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_a_short_gradient_is_left_as_it_is(cfg, name):
    cfg.SOLVER.OPTIMIZER = name
    (first, _), optimizer = clipped(cfg, 2.0)
    first.weight.grad = torch.tensor([[0.3, -0.4]])
    optimizer.step()
    assert torch.equal(first.weight.grad, torch.tensor([[0.3, -0.4]]))


def test_sgd_steps_by_the_clipped_gradient(cfg):
    cfg.SOLVER.MOMENTUM, cfg.SOLVER.WEIGHT_DECAY = 0.0, 0.0
    (first, second), optimizer = clipped(cfg, 2.0)
    before = first.weight.detach().clone()
    first.weight.grad = torch.tensor([[3.0, 0.0]])
    second.weight.grad = torch.tensor([[4.0]])
    optimizer.step()
    # Norm 5, so the gradient is 0.6, and the learning rate 0.5.
    step = (before - first.weight.detach()).tolist()
    assert step == [[pytest.approx(0.3, rel=1e-5), 0.0]]


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_clipping_changes_neither_the_optimizer_nor_its_state(cfg, name):
    cfg.SOLVER.OPTIMIZER = name
    model, optimizer = clipped(cfg, 2.0)
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = False
    plain = build_optimizer(cfg, model)
    assert type(optimizer) is type(plain)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 0.01)
    optimizer.step()
    state = optimizer.state_dict()
    plain.load_state_dict(state)
    assert plain.state_dict().keys() == state.keys()
    assert plain.state_dict()["param_groups"] == state["param_groups"]
    clipped(cfg, 2.0)[1].load_state_dict(plain.state_dict())


def test_building_an_optimizer_leaves_a_frozen_config_alone(cfg):
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "full_model"
    before = cfg.clone()
    cfg.freeze()
    build_optimizer(cfg, network())
    assert cfg == before and cfg.is_frozen()


def test_a_gradient_scaler_divides_before_clipping(cfg):
    (first, second), optimizer = clipped(cfg, 2.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    loss = 0.3 * first.weight.sum() + 0.0 * (first.bias.sum() + second.weight.sum())
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    assert first.weight.grad.flatten().tolist() == pytest.approx([0.3, 0.3], rel=1e-6)


def test_frozen_parameters_are_left_out(cfg):
    cfg.SOLVER.OPTIMIZER = "AdamW"
    model = network()
    model[0].requires_grad_(False)
    optimizer = build_optimizer(cfg, model)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 2


def test_unknown_optimizer_lists_the_choices(cfg):
    cfg.SOLVER.OPTIMIZER = "Adam"
    with pytest.raises(ValueError, match=r"'Adam'; set it to one of SGD, AdamW"):
        build_optimizer(cfg, network())


def test_nesterov_is_refused_by_adamw(cfg):
    cfg.SOLVER.OPTIMIZER, cfg.SOLVER.NESTEROV = "AdamW", True
    with pytest.raises(ValueError, match="NESTEROV"):
        build_optimizer(cfg, network())


def test_one_cycle_rises_and_falls_along_cosines(cfg):
    cfg.SOLVER.LR_SCHEDULER_NAME = "OneCycleLR"
    cfg.SOLVER.ONE_CYCLE_PCT_START = 0.4
    cfg.SOLVER.WARMUP_FACTOR = 0.1
    cfg.SOLVER.BASE_LR_END = 0.05
    # Rise over 4 iterations from 0.05 to 0.5, fall over 6 from 0.5 to 0.05.
    rise = [0.05 + 0.45 * (1 - math.cos(math.pi * i / 4)) / 2 for i in range(4)]
    fall = [0.05 + 0.45 * (1 + math.cos(math.pi * i / 6)) / 2 for i in range(6)]
    rates = learning_rates(cfg, 10)
    assert rates == pytest.approx(rise + fall, rel=1e-6)
    assert rates[0] == pytest.approx(0.05) and rates[2] == pytest.approx(0.275)
    assert rates[4] == pytest.approx(0.5) and rates[7] == pytest.approx(0.275)


def test_one_cycle_survives_the_step_after_the_last_iteration(cfg):
    cfg.SOLVER.LR_SCHEDULER_NAME = "OneCycleLR"
    # Trainers step the schedule after each iteration, the last one too.
    assert learning_rates(cfg, 11)[-1] == pytest.approx(cfg.SOLVER.BASE_LR_END, abs=1e-9)


def test_one_cycle_continues_from_its_state(cfg):
    cfg.SOLVER.LR_SCHEDULER_NAME = "OneCycleLR"
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=cfg.SOLVER.BASE_LR)
    scheduler = build_lr_scheduler(cfg, optimizer)
    scheduler.load_state_dict({"base_lrs": [0.5], "last_epoch": 6})
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(learning_rates(cfg, 8)[7])


@pytest.mark.parametrize(
    "key, value", [("ONE_CYCLE_PCT_START", 0.0), ("ONE_CYCLE_PCT_START", 1.0), ("BASE_LR_END", 0.6)]
)
def test_impossible_one_cycle_values_are_refused(cfg, key, value):
    cfg.SOLVER.LR_SCHEDULER_NAME = "OneCycleLR"
    cfg.SOLVER[key] = value
    with pytest.raises(ValueError, match=rf"SOLVER.{key} (is|must be in \(0, 1\), got) {value}"):
        learning_rates(cfg, 1)


@pytest.mark.parametrize(
    "name", ["WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR"]
)
def test_other_schedules_are_detectron2s(cfg, name):
    cfg.SOLVER.LR_SCHEDULER_NAME = name
    cfg.SOLVER.STEPS, cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.NUM_DECAYS = (6,), 3, 2
    ours = build_lr_scheduler(cfg, torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5))
    theirs = build_detectron2_lr_scheduler(
        cfg, torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    )
    for _ in range(9):
        assert ours.get_last_lr() == theirs.get_last_lr()
        ours.optimizer.step(), theirs.optimizer.step()
        ours.step(), theirs.step()


def test_unknown_schedule_lists_the_choices(cfg):
    cfg.SOLVER.LR_SCHEDULER_NAME = "Cosine"
    with pytest.raises(ValueError, match=r"'Cosine'; set it to one of .*WarmupCosineLR"):
        learning_rates(cfg, 1)
