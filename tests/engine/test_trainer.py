"""Training, resuming and evaluating with a tiny network in one process."""

import json
import logging
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import DefaultTrainer, HookBase
from detectron2.utils.events import EventStorage

from retinanet_ext.engine import evaluate
from retinanet_ext.engine import trainer as trainer_module
from retinanet_ext.engine.failures.reports import MachineError
from retinanet_ext.engine.records import build as records_build
from retinanet_ext.engine.step.wrap_ddp import wrap_ddp
from retinanet_ext.engine.trainer import RetinaNetTrainer


def train(cfg, resume=False, until=None):
    """Train with ``cfg``; with ``until``, stop after so many iterations of its schedule."""
    torch.manual_seed(cfg.SEED)
    trainer = RetinaNetTrainer(cfg)
    trainer.resume_or_load(resume=resume)
    if until:
        trainer.max_iter = until
    return trainer, trainer.train()


@pytest.fixture
def one_image(cfg):
    """Name of a dataset with a single image."""
    name, whole = "tiny_one_image", cfg.DATASETS.TRAIN[0]
    if name not in DatasetCatalog:
        DatasetCatalog.register(name, lambda: DatasetCatalog.get(whole)[:1])
    DatasetCatalog.get(name)
    MetadataCatalog.get(name).thing_classes = MetadataCatalog.get(whole).thing_classes
    return name


def metrics(cfg):
    lines = (Path(cfg.OUTPUT_DIR) / "metrics.json").read_text().splitlines()
    return [json.loads(line) for line in lines]


def state(cfg, name="model_final.pth"):
    return torch.load(Path(cfg.OUTPUT_DIR) / name, weights_only=True)


def test_results_come_back_and_end_metrics_json(cfg):
    _, results = train(cfg)
    last = metrics(cfg)[-1]
    assert set(results) == {"bbox"}
    for name in ("AP", "AP50", "AR100", "AP-RBC"):
        assert last[f"bbox/{name}"] == results["bbox"][name]
    assert last["iteration"] == 5


def test_evaluation_in_between_is_written_too(cfg):
    cfg.TEST.EVAL_PERIOD = 3
    train(cfg)
    assert [line["iteration"] for line in metrics(cfg) if "bbox/AP" in line] == [2, 5]


def test_results_are_empty_without_test_datasets(cfg):
    cfg.DATASETS.TEST = ()
    assert train(cfg)[1] == {}


def test_missed_expectations_end_the_run(cfg):
    cfg.TEST.EXPECTED_RESULTS = [["bbox", "AP", 99.0, 0.5]]
    with pytest.raises(SystemExit):
        train(cfg)


def test_expectations_without_an_evaluation_are_an_error(cfg):
    cfg.DATASETS.TEST = ()
    cfg.TEST.EXPECTED_RESULTS = [["bbox", "AP", 99.0, 0.5]]
    with pytest.raises(RuntimeError, match="EXPECTED_RESULTS"):
        train(cfg)


@pytest.mark.parametrize(
    "optimizer, schedule", [("SGD", "WarmupMultiStepLR"), ("AdamW", "OneCycleLR")]
)
def test_straight_run_equals_interrupted_and_resumed_run(cfg, one_image, optimizer, schedule):
    cfg.SOLVER.OPTIMIZER, cfg.SOLVER.LR_SCHEDULER_NAME = optimizer, schedule
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS = 6, (4,)
    # Every batch is the same image, so only the state that resuming restores matters.
    cfg.DATASETS.TRAIN, cfg.SOLVER.IMS_PER_BATCH, cfg.DATASETS.TEST = (one_image,), 1, ()
    straight = cfg.clone()
    straight.OUTPUT_DIR += "_straight"
    train(straight)

    train(cfg, until=3)
    trainer, _ = train(cfg, resume=True)
    assert trainer.start_iter == 3
    ours, theirs = state(cfg), state(straight)
    assert ours["iteration"] == theirs["iteration"] == 5
    for name, value in theirs["model"].items():
        assert torch.equal(ours["model"][name], value), name
    ours, theirs = (s["trainer"]["_trainer"]["optimizer"]["param_groups"] for s in (ours, theirs))
    assert ours == theirs


def test_metrics_json_continues_after_a_resume(cfg):
    cfg.SOLVER.MAX_ITER = 4
    train(cfg, until=2)
    train(cfg, resume=True)
    iterations = [line["iteration"] for line in metrics(cfg)]
    # The evaluation after 2 of 2, the losses of 4 of 4, and the evaluation after it.
    assert iterations == [1, 3, 4]
    assert ["bbox/AP" in line for line in metrics(cfg)] == [True, False, True]


def test_the_loss_normalizer_is_saved(cfg):
    trainer, _ = train(cfg)
    assert state(cfg)["model"]["loss_normalizer.mean"] == trainer.model.loss_normalizer.mean
    assert trainer.model.loss_normalizer.mean != 100.0


def test_resume_without_a_checkpoint_starts_at_zero_and_says_so(cfg, caplog):
    trainer = RetinaNetTrainer(cfg)
    with caplog.at_level(logging.INFO):
        trainer.resume_or_load(resume=True)
    assert trainer.start_iter == 0
    assert any("no checkpoint in" in message for message in caplog.messages)


def test_a_fresh_run_over_an_old_one_gives_a_warning(cfg, caplog):
    train(cfg)
    trainer = RetinaNetTrainer(cfg)
    trainer.resume_or_load(resume=False)
    assert trainer.start_iter == 0
    assert any("earlier run" in message for message in caplog.messages)


def test_processes_with_different_checkpoints_are_refused(cfg, monkeypatch):
    trainer = RetinaNetTrainer(cfg)
    monkeypatch.setattr(trainer_module.comm, "all_gather", lambda start: [start, 7])
    with pytest.raises(RuntimeError, match=r"\[0, 7\].*OUTPUT_DIR"):
        trainer.resume_or_load(resume=True)


def test_evaluate_repeats_the_training_runs_results(cfg):
    cfg.MODEL.RETINANET.SCORE_THRESH_TEST = 0.001
    _, results = train(cfg)
    assert evaluate(cfg, resume=True)["bbox"] == pytest.approx(results["bbox"], nan_ok=True)
    cfg.MODEL.WEIGHTS = str(Path(cfg.OUTPUT_DIR) / "model_final.pth")
    assert evaluate(cfg)["bbox"] == pytest.approx(results["bbox"], nan_ok=True)


def test_training_runs_without_tensorboard(cfg, monkeypatch):
    monkeypatch.setattr(records_build.importlib.util, "find_spec", lambda name: None)
    trainer = RetinaNetTrainer(cfg)
    names = [type(writer).__name__ for writer in trainer.build_writers()]
    assert names == ["ProgressLine", "MetricsFile"]


def test_one_process_is_not_wrapped():
    model = torch.nn.Linear(2, 2)
    assert wrap_ddp(model) is model


@pytest.mark.cuda
@pytest.mark.parametrize("mixed_precision", [False, True])
def test_one_iteration_on_a_gpu(cfg, gpu, mixed_precision):
    cfg.MODEL.DEVICE, cfg.SOLVER.AMP.ENABLED = str(gpu), mixed_precision
    cfg.SOLVER.AMP.PRECISION = "float16" if gpu.type == "cuda" else "bfloat16"
    trainer = RetinaNetTrainer(cfg)
    with EventStorage(0) as trainer.storage:
        trainer.run_step()
        assert trainer.storage.latest()["total_loss"][0] > 0


@pytest.mark.parametrize(("thresh", "kept"), [(0.5, True), (1.0, True), (1.1, False)])
def test_ignored_regions_are_loaded_where_the_config_wants_them(cfg, thresh, kept):
    cfg.MODEL.RETINANET.IGNORE_IOF_THRESH = thresh
    batch = next(iter(RetinaNetTrainer.build_train_loader(cfg)))
    assert [("ignore_boxes" in sample) for sample in batch] == [kept] * len(batch)


def test_an_error_in_a_step_saves_the_state_before_it(cfg):
    cfg.DATASETS.TEST = ()
    straight = cfg.clone()
    straight.OUTPUT_DIR += "_straight"
    train(straight)

    torch.manual_seed(cfg.SEED)
    trainer = RetinaNetTrainer(cfg)
    trainer.resume_or_load(resume=False)
    step, forward = trainer._trainer, trainer.model.loss_normalizer.forward

    def fail_in_iteration_3(*args):
        divisor = forward(*args)  # which moves the running mean
        if step.iter == 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return divisor

    trainer.model.loss_normalizer.forward = fail_in_iteration_3
    with pytest.raises(MachineError, match="memory is full"):
        trainer.train()
    assert state(cfg, "model_0000002.pth")["iteration"] == 2
    train(cfg, resume=True)
    for name, value in state(straight)["model"].items():
        assert torch.equal(state(cfg)["model"][name], value), name


def test_averages_are_evaluated_saved_and_chosen(cfg):
    cfg.SOLVER.EMA.ENABLED, cfg.TEST.EVAL_PERIOD, cfg.TEST.VAL_LOSS = True, 2, True
    cfg.TEST.BEST_METRIC = "ema/val_loss/total"
    train(cfg)
    record = json.loads((Path(cfg.OUTPUT_DIR) / "evaluations.json").read_text())
    assert [x["iteration"] for x in record] == [1, 3, 4]
    losses = [x["metrics"]["ema/val_loss/total"] for x in record]
    assert metrics(cfg)[-1]["ema/val_loss/total"] == losses[-1]
    assert state(cfg, "model_best.pth")["best_value"] == min(losses)
    final, averages = state(cfg), state(cfg, "model_final_ema.pth")["model"]
    for name, average in final["ema"]["averages"].items():
        assert torch.equal(averages[name], average), name
    name = "head.cls_score.weight"
    assert not torch.equal(averages[name], final["model"][name])


def test_training_stops_early_and_ends_as_a_whole_run(cfg):
    cfg.SOLVER.MAX_ITER, cfg.TEST.EVAL_PERIOD, cfg.TEST.EARLY_STOPPING_PATIENCE = 50, 1, 2
    cfg.SOLVER.BASE_LR = 1e-12  # nothing gets better
    _, results = train(cfg)
    assert state(cfg)["iteration"] == 2 and "AP" in results["bbox"]


def test_a_resume_with_another_config_lists_the_differences(cfg, caplog):
    train(cfg, until=2)
    cfg.SOLVER.BASE_LR = 0.0005
    with caplog.at_level(logging.WARNING):
        train(cfg, resume=True)
    (text,) = [x for x in caplog.messages if "another config" in x]
    assert text.splitlines()[1:] == ["  SOLVER.BASE_LR: 0.001 -> 0.0005"]


@pytest.mark.parametrize("schedule, told", [("WarmupCosineLR", 1), ("WarmupMultiStepLR", 0)])
def test_a_resume_at_the_tail_of_a_longer_curve_is_told(cfg, caplog, schedule, told):
    cfg.DATASETS.TEST, cfg.SOLVER.MAX_ITER, cfg.SOLVER.LR_SCHEDULER_NAME = (), 2, schedule
    train(cfg)
    cfg.SOLVER.MAX_ITER = 3
    trainer = RetinaNetTrainer(cfg)
    trainer.resume_or_load(resume=True)
    assert sum("schedule of the checkpoint had ended" in x for x in caplog.messages) == told


def test_a_resume_may_begin_a_whole_new_schedule(cfg, caplog):
    """Its learning rates are those of a fresh run, and a second resume continues on them."""
    cfg.DATASETS.TEST, solver = (), cfg.SOLVER
    solver.MAX_ITER, solver.LR_SCHEDULER_NAME = 4, "OneCycleLR"
    whole = rates(train(cfg))
    assert len(whole) == 4 and whole[-1] < 0.5 * max(whole)
    solver.MAX_ITER, solver.RESUME_SCHEDULE = 8, "restart"
    trainer, _ = train(cfg, resume=True, until=6)
    assert trainer.start_iter == trainer.schedule_start == 4
    assert any("new one of 4 iterations begins at iteration 4" in x for x in caplog.messages)
    assert not any("little is learned" in x for x in caplog.messages)
    trainer, _ = run = train(cfg, resume=True)
    assert (trainer.start_iter, trainer.schedule_start) == (6, 4)
    assert rates(run) == pytest.approx(whole * 2)
    # A run that is over, and is not made longer, stays over.
    trainer = RetinaNetTrainer(cfg)
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == 8 and trainer.schedule_start == 4
    solver.MAX_ITER, solver.BASE_LR = 10, 0.0002
    assert 0.0001 < max(rates(train(cfg, resume=True))[8:]) <= 0.0002


def rates(run) -> list[float]:
    """The learning rate of each iteration, those before a resume too."""
    return [value for value, _ in run[0].storage.history("lr").values()]


def test_a_new_schedule_counts_its_steps_from_its_start(cfg):
    cfg.DATASETS.TEST, solver = (), cfg.SOLVER
    solver.MAX_ITER, solver.STEPS, solver.GAMMA = 3, (2,), 0.5
    train(cfg)
    solver.MAX_ITER, solver.RESUME_SCHEDULE = 6, "restart"
    run = train(cfg, resume=True)
    assert rates(run) == pytest.approx([0.001, 0.001, 0.0005] * 2)
    solver.MAX_ITER = 8
    trainer = RetinaNetTrainer(cfg)
    with pytest.raises(ValueError, match=r"STEPS is \(2,\) with SOLVER.MAX_ITER 2.*iteration 6"):
        trainer.resume_or_load(resume=True)


def test_a_run_that_was_stopped_continues_on_its_own_schedule(cfg):
    cfg.DATASETS.TEST, cfg.SOLVER.RESUME_SCHEDULE = (), "restart"
    cfg.SOLVER.LR_SCHEDULER_NAME = "OneCycleLR"
    straight = cfg.clone()
    straight.OUTPUT_DIR += "_straight"
    expected = rates(train(straight))
    train(cfg, until=3)
    trainer, _ = run = train(cfg, resume=True)
    assert trainer.schedule_start == 0 and rates(run) == expected


BOMB = "\n".join(["a0: &a0 [x, x]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40))])


@pytest.mark.parametrize(
    "entry, value",
    [
        *(("config", x) for x in (5, "[", "a: *b", "just text", BOMB)),
        *(("seed", x) for x in ("7", -1, None, [1], True)),
        *(("events", x) for x in (5, [1], {"scalars": 3}, {"scalars": {"loss": {"values": 1}}})),
        *(("data", x) for x in (5, {}, {"seed": "x", "images": 3}, {"seed": 1, "images": -4})),
    ],
    ids=lambda x: str(x)[:20],
)
def test_an_odd_entry_of_a_checkpoint_is_named_and_left_out(cfg, caplog, entry, value):
    cfg.DATASETS.TEST = ()
    trainer = RetinaNetTrainer(cfg)
    with EventStorage(0) as trainer.storage:
        state = trainer.state_dict()
    state["iteration"] = 2
    caplog.clear()
    trainer.load_state_dict({**state, entry: value})
    told = [x for x in caplog.messages if "cannot be used" in x]
    assert len(told) == 1 and f"entry '{entry}' cannot be used" in told[0]
    assert trainer.run_seed == 7 and trainer.iter == 2


def test_without_a_seed_a_resumed_run_keeps_the_one_it_drew(cfg):
    cfg.SEED, cfg.DATASETS.TEST, cfg.INPUT.RANDOM_FLIP = -1, (), "horizontal"
    straight = cfg.clone()
    straight.OUTPUT_DIR += "_straight"
    np.random.seed(5)
    train(straight)
    np.random.seed(5)
    train(cfg, until=3)
    np.random.seed(99)
    train(cfg, resume=True)
    for name, value in state(straight)["model"].items():
        assert torch.equal(state(cfg)["model"][name], value), name
    runs = [json.loads((Path(x.OUTPUT_DIR) / "run.json").read_text()) for x in (straight, cfg)]
    assert runs[0]["seed"] == runs[1]["seed"]


def test_public_attributes_are_those_of_detectron2s_trainer(cfg):
    class Detectron2Trainer(DefaultTrainer):
        build_evaluator = RetinaNetTrainer.build_evaluator
        build_lr_scheduler = RetinaNetTrainer.build_lr_scheduler
        build_optimizer = RetinaNetTrainer.build_optimizer

    names = {"model", "optimizer", "data_loader", "scheduler", "checkpointer", "cfg"}
    names |= {"start_iter", "max_iter"}
    theirs, ours = Detectron2Trainer(cfg), RetinaNetTrainer(cfg)
    for trainer in (theirs, ours):
        assert all(getattr(trainer, name) is not None for name in names)
    # The day Detectron2 sets one more, this says so.
    assert {x for x in vars(theirs) if x[0] != "_"} <= {x for x in vars(ours) if x[0] != "_"}
    assert type(ours.scheduler) is type(theirs.scheduler)
    assert (ours.start_iter, ours.max_iter) == (theirs.start_iter, theirs.max_iter) == (0, 5)


class Counts(HookBase):
    def __init__(self):
        self.steps = 0

    def after_step(self):
        self.steps += 1


class OnlyOwnHooks(RetinaNetTrainer):
    def build_hooks(self):
        return [Counts()]


class OneMoreHook(RetinaNetTrainer):
    def build_hooks(self):
        return [*super().build_hooks(), Counts()]


class FailsInTheEnd(Counts):
    def after_step(self):
        super().after_step()
        if self.steps == 3:
            raise RuntimeError("of the user's own")


@pytest.mark.parametrize("kind, saves", [(OnlyOwnHooks, False), (OneMoreHook, True)])
def test_a_subclass_may_override_the_hooks(cfg, kind, saves):
    trainer = kind(cfg)
    trainer.resume_or_load(resume=False)
    results = trainer.train()
    assert trainer._hooks[-1].steps == 5
    assert (Path(cfg.OUTPUT_DIR) / "model_final.pth").exists() is saves
    assert ("bbox" in results) is saves


def test_without_our_hooks_an_error_is_still_rescued(cfg):
    class Trainer(RetinaNetTrainer):
        def build_hooks(self):
            return [FailsInTheEnd()]

    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    with pytest.raises(RuntimeError, match="own"):
        trainer.train()
    assert state(cfg, "model_0000002.pth")["iteration"] == 2


def test_hooks_do_not_keep_a_trainer_alive(cfg):
    trainer = RetinaNetTrainer(cfg)
    gone = weakref.ref(trainer)
    del trainer
    assert gone() is None
