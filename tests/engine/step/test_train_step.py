"""A training step: equal to Detectron2's, to the large batch, and safe from NaN."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.engine import SimpleTrainer
from detectron2.utils.events import EventStorage, get_event_storage
from torch import Tensor, multiprocessing, nn
from torch import distributed as dist

from retinanet_ext.engine.failures.nonfinite import NonFiniteLoss
from retinanet_ext.engine.step.bad_batches import SkipBadBatches
from retinanet_ext.engine.step.build import build_train_step
from retinanet_ext.engine.step.micro_batches import split_batch
from retinanet_ext.engine.step.train_step import TrainStep
from tests.helpers.steps import Batch, make_batch, make_model, sgd, train
from tests.helpers.tiny import tiny_cfg


def scalars(storage: EventStorage, name: str) -> list[float]:
    return [value for value, _ in storage.history(name).values()]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_plain_step_is_detectron2s_bit_for_bit(tmp_path: Path):
    batches = [make_batch(seed, images=2) for seed in range(2)]
    models = [make_model(tmp_path, norm="BN") for _ in range(2)]
    for model, kind in zip(models, (SimpleTrainer, TrainStep), strict=True):
        storage = train(kind(model, batches, sgd(model)), 2)
        assert {"loss_cls", "loss_box_reg", "total_loss", "data_time"} <= set(storage.histories())
    expected = models[0].state_dict()
    for name, value in models[1].state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_two_parts_of_four_equal_a_batch_of_eight(tmp_path: Path):
    batches = [make_batch(seed, images=8, size=32) for seed in range(2)]
    # In double precision: what is left is no rounding.
    start = make_model(tmp_path).double()
    models, storages = [copy.deepcopy(start) for _ in range(2)], []
    for model, parts in zip(models, (1, 2), strict=True):
        step = TrainStep(model, batches, sgd(model), accum_steps=parts)
        storages.append(train(step, 2))
    whole, parts, before = (model.state_dict() for model in (*models, start))
    assert max((value - before[name]).abs().max() for name, value in whole.items()) > 1e-3
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=0, atol=1e-9)
    for name in ("loss_cls", "loss_box_reg", "total_loss", "num_pos_anchors"):
        one, two = (scalars(storage, name) for storage in storages)
        assert two == pytest.approx(one, rel=1e-6) and len(two) == 2


class Linear(nn.Module):
    """A model without a loss normalizer: the mean over the batch, as most others."""

    def __init__(self, loss: float | None = None):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, -2.0]))
        self.register_buffer("seen", torch.zeros(()))
        self.dtypes: list[torch.dtype] = []

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        self.seen += len(batch)
        get_event_storage().put_scalar("images", len(batch), smoothing_hint=False)
        x = torch.stack([sample["x"] for sample in batch])
        self.dtypes.append((x @ torch.eye(2, device=x.device)).dtype)
        return {"loss": ((x * self.weight).sum(1) ** 2).mean()}


def numbers(*values: float) -> Batch:
    return [{"x": torch.tensor([value, 1.0]), "file_name": f"{value}.png"} for value in values]


def test_losses_of_other_models_are_means_over_the_parts():
    whole, parts = Linear(), Linear()
    for model, count in ((whole, 1), (parts, 3)):
        step = TrainStep(model, [numbers(1, 2, 3, 4, 5, 6)], sgd(model), accum_steps=count)
        storage = train(step, 1)
        assert scalars(storage, "total_loss") == pytest.approx([31 / 6])
    torch.testing.assert_close(whole.weight, parts.weight)


def test_each_curve_gets_one_number_per_step():
    model = Linear()
    step = TrainStep(model, [numbers(1, 2, 3, 4)] * 3, sgd(model), accum_steps=2)
    storage = train(step, 3)
    assert storage.history("images").values() == [(2.0, 0), (2.0, 1), (2.0, 2)]
    assert storage.smoothing_hints()["images"] is False


def test_a_batch_that_does_not_split_is_refused():
    assert [len(part) for part in split_batch(numbers(*range(6)), 3)] == [2, 2, 2]
    with pytest.raises(ValueError, match=r"ACCUM_STEPS is 3, but a process has 2"):
        split_batch(numbers(1, 2), 3)


def test_bfloat16_on_the_cpu_and_float16_only_on_cuda():
    model = Linear()
    train(TrainStep(model, [numbers(1, 2)], sgd(model), precision=torch.bfloat16), 1)
    assert model.dtypes == [torch.bfloat16] and model.weight.dtype == torch.float32
    with pytest.raises(ValueError, match=r"float16 needs CUDA.*'cpu'; use bfloat16"):
        TrainStep(model, [], sgd(model), precision=torch.float16)


@pytest.mark.parametrize("parts", [1, 2])
def test_scaled_steps_that_overflow_are_skipped_and_counted(parts: int):
    batches = [numbers(5, 6), numbers(1, 2), numbers(2, 3)]
    model, plain, seen = Linear(), Linear(), []
    optimizer = sgd(model)
    optimizer.register_step_pre_hook(lambda *_: seen.append(model.weight.grad.clone()))
    step = TrainStep(model, batches, optimizer, accum_steps=parts, unscale=True)
    step.use_scaler(torch.amp.GradScaler("cpu", init_scale=2.0**127))  # inf in float32, times 2
    storage = train(step, 1)
    assert step.last_step_skipped and step.amp_skipped_steps == 1
    assert storage.latest()["amp_skipped_steps"] == (1.0, 0)
    assert torch.equal(model.weight, plain.weight) and not seen

    state = copy.deepcopy(step.state_dict())
    resumed = TrainStep(model, batches[1:], optimizer, accum_steps=parts, unscale=True)
    resumed.use_scaler(torch.amp.GradScaler("cpu"))
    resumed.load_state_dict(state)
    assert resumed.grad_scaler.get_scale() == 2.0**126 and resumed.amp_skipped_steps == 1
    resumed.use_scaler(torch.amp.GradScaler("cpu", init_scale=8.0))
    train(resumed, 2)
    assert not resumed.last_step_skipped
    train(TrainStep(plain, batches[1:], sgd(plain)), 2)
    torch.testing.assert_close(model.weight, plain.weight)
    torch.testing.assert_close(seen[-1], plain.weight.grad)


@pytest.mark.cuda(needs="CUDA, which float16 is for")
def test_float16_scales_on_cuda():
    model = Linear().cuda()
    batch = [{"x": x["x"].cuda()} for x in numbers(1, 2)]
    step = TrainStep(model, [batch] * 3, sgd(model), precision=torch.float16, accum_steps=2)
    train(step, 3)
    assert step.grad_scaler.get_scale() > 1 and model.dtypes[0] == torch.float16
    assert "grad_scaler" in step.state_dict()


def test_nan_loss_raises_before_it_reaches_the_weights():
    model, told = Linear(), []

    def tell(step: TrainStep, batch: Batch, losses: dict[str, float]) -> str:
        told.append((batch, losses))
        assert model.seen == 2  # as before the step
        assert not model.weight.grad.isfinite().all()  # for the report
        return "some/folder"

    batches = [numbers(1, 2), numbers(3, math.nan)]
    step = TrainStep(model, batches, sgd(model), bad_batches=SkipBadBatches(0, tell, "Lower it."))
    with pytest.raises(NonFiniteLoss) as caught:
        train(step, 2)
    text = str(caught.value)
    assert text.startswith("iteration 1: loss is nan, with the images 3.png, nan.png. Report: some")
    assert "python -m retinanet_ext replay-step some/folder/snapshot.pth. Lower it." in text
    assert isinstance(caught.value, FloatingPointError)
    assert told[0][0] is batches[1] and math.isnan(told[0][1]["loss"])
    clean = Linear()
    train(TrainStep(clean, batches, sgd(clean)), 1)
    assert torch.equal(model.weight, clean.weight) and model.seen == clean.seen
    assert step.finished_iter == 0 and step.weights_intact


def test_a_bad_batch_is_skipped_as_if_it_were_never_drawn(caplog):
    good, bad = [numbers(1, 2), numbers(3, 4)], numbers(math.inf, 1)
    model, clean = Linear(), Linear()
    step = TrainStep(model, [good[0], bad, good[1]], sgd(model), bad_batches=SkipBadBatches(1))
    storage = train(step, 3)
    train(TrainStep(clean, good, sgd(clean)), 2)
    assert torch.equal(model.weight, clean.weight) and model.seen == clean.seen
    assert step.skipped_batches == 1 and not step.last_step_skipped
    assert storage.latest()["skipped_batches"] == (1.0, 2)
    assert [i for _, i in storage.history("total_loss").values()] == [0, 2]
    assert "inf.png" in caplog.text and "1 of SOLVER.MAX_SKIPPED_BATCHES 1" in caplog.text


def test_skipped_batches_are_counted_over_the_whole_run():
    bad = numbers(math.nan)
    first = Linear()
    step = TrainStep(first, [bad], sgd(first), bad_batches=SkipBadBatches(1))
    train(step, 1)
    assert step.last_step_skipped
    model = Linear()
    resumed = TrainStep(model, [bad], sgd(model), bad_batches=SkipBadBatches(1))
    resumed.load_state_dict(copy.deepcopy(step.state_dict()))
    with pytest.raises(NonFiniteLoss):
        train(resumed, 1)


class Steep(Linear):
    """A finite loss whose gradient is infinite: the square root at zero."""

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        loss = super().forward(batch)["loss"]
        return {"loss": loss + (self.weight[0] * batch[0].get("zero", 1)).abs().sqrt()}


def steep_batches() -> list[Batch]:
    """The second one has a finite loss and no finite gradient."""
    bad = numbers(1)
    bad[0]["zero"] = 0
    return [numbers(1), bad]


def test_where_batches_may_be_skipped_so_are_bad_gradients():
    model = Steep()
    step = TrainStep(model, steep_batches(), sgd(model), bad_batches=SkipBadBatches(1))
    train(step, 2)
    assert step.last_step_skipped and model.weight.isfinite().all()


@pytest.mark.parametrize("parts", [1, 2])
def test_a_gradient_that_is_not_finite_raises_before_it_reaches_the_weights(parts: int):
    model, clean, told = Steep(), Steep(), []
    batches = [batch * parts for batch in steep_batches()]

    def tell(step: TrainStep, batch: Batch, numbers: dict[str, float]) -> str:
        told.append(numbers)
        return ""

    optimizer = sgd(model)
    step = TrainStep(
        model, batches, optimizer, accum_steps=parts, bad_batches=SkipBadBatches(0, tell)
    )
    with pytest.raises(NonFiniteLoss, match=r"iteration 1: norm of the gradients is (nan|inf)"):
        train(step, 2)
    assert math.isfinite(told[0]["loss"])
    train(TrainStep(clean, batches, sgd(clean), accum_steps=parts), 1)
    assert torch.equal(model.weight, clean.weight) and step.finished_iter == 0
    assert optimizer.state[model.weight]["momentum_buffer"].isfinite().all()


def test_gradients_of_half_precision_are_measured_without_overflow():
    big = torch.full((4,), 6e4, dtype=torch.float16)
    values, finite = SkipBadBatches().examine({"loss": torch.ones(())}, [big, torch.ones(2)])
    assert finite and values["norm of the gradients"] == pytest.approx(1.2e5, rel=1e-2)


def test_a_failed_step_is_rolled_back():
    model = Linear()
    step = TrainStep(model, [numbers(1), [{}]], sgd(model))
    with pytest.raises(KeyError):
        train(step, 2)
    assert model.seen == 2
    assert step.roll_back() and step.finished_iter == 0
    assert model.seen == 1 and model.weight.grad is None


def test_a_finished_step_is_not_rolled_back():
    model = Linear()
    step = TrainStep(model, [numbers(1)], sgd(model))
    train(step, 1)
    assert step.roll_back() and model.seen == 1 and step.finished_iter == 0


def test_an_error_inside_of_the_optimizer_is_told():
    model = Linear()
    optimizer = sgd(model)
    step = TrainStep(model, [numbers(1)], optimizer)
    optimizer.step = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        train(step, 1)
    assert not step.weights_intact and not step.roll_back() and step.finished_iter == -1


def test_evaluation_mode_is_refused():
    model = Linear()
    step = TrainStep(model, [numbers(1)], sgd(model))
    model.eval()
    with pytest.raises(RuntimeError, match="evaluation mode"):
        train(step, 1)


def test_config_keys_arrive(tmp_path: Path):
    cfg: CfgNode = tiny_cfg(tmp_path)
    cfg.SOLVER.ACCUM_STEPS, cfg.SOLVER.MAX_SKIPPED_BATCHES = 2, 7
    cfg.SOLVER.AMP.ENABLED, cfg.SOLVER.AMP.PRECISION = True, "bfloat16"
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    model = Linear()
    step = build_train_step(cfg, model, [], sgd(model))
    assert (step.accum_steps, step.bad_batches.max_skipped, step.unscale) == (2, 7, True)
    assert (
        step.precision == torch.bfloat16 and "SOLVER.BASE_LR (now 0.001)" in step.bad_batches.hint
    )
    cfg.SOLVER.AMP.ENABLED = False
    assert build_train_step(cfg, model, [], sgd(model)).precision is None


def _process(rank: int, folder: str) -> None:
    """One of two processes: two steps in two parts, and one between them that is skipped.

    The first process sees a good batch in it, the second one too bright for float32.
    """
    from detectron2.utils import comm

    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", world_size=2, rank=rank)
    comm.create_local_process_group(2)
    model = make_model(Path(folder) / str(rank))
    batches = [make_batch(seed)[2 * rank : 2 * rank + 2] for seed in range(2)]
    bright = [{**x, "image": torch.full_like(x["image"], 1e38)} for x in batches[0]]
    batches.insert(1, bright if rank else batches[0])
    ddp = nn.parallel.DistributedDataParallel(model)
    step = TrainStep(ddp, batches, sgd(model), accum_steps=2, bad_batches=SkipBadBatches(1))
    train(step, len(batches))
    torch.save((model.state_dict(), step.skipped_batches), f"{folder}/{rank}.pth")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_in_parts_equal_one_and_skip_together(tmp_path: Path):
    for rank in range(2):
        (tmp_path / str(rank)).mkdir()
    multiprocessing.spawn(_process, (str(tmp_path),), nprocs=2)
    (tmp_path / "one").mkdir()
    model = make_model(tmp_path / "one")
    train(TrainStep(model, [make_batch(seed) for seed in range(2)], sgd(model)), 2)
    expected = model.state_dict()
    for rank in range(2):
        state, skipped = torch.load(tmp_path / f"{rank}.pth")
        assert skipped == 1
        for name, value in state.items():
            torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6)
