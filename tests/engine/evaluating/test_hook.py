"""Evaluation in training: records that survive a kill, the best checkpoint, early stopping."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import pytest
from detectron2.engine import HookBase, TrainerBase
from torch import distributed as dist

from retinanet_ext import get_cfg
from retinanet_ext.engine.evaluating.best_metric import Evaluation, MetricError
from retinanet_ext.engine.evaluating.hook import EarlyStop, EvaluationHook, build_evaluation_hook
from tests.helpers.two_ranks import run_on_two_ranks


class Checkpoint(HookBase):
    """Keeps the state of the loop every three iterations, as a checkpoint would."""

    def __init__(self):
        self.states = {}

    def after_step(self):
        if (self.trainer.iter + 1) % 3 == 0:
            text = json.dumps(self.trainer.state_dict())  # plain Python alone
            self.states[self.trainer.iter] = text


class Loop(TrainerBase):
    """A training without a model: the result of an evaluation follows from the iteration."""

    def __init__(self, folder, values, period=3, resume=None, **options):
        super().__init__()
        self.values, self.evaluated, self.saved, self.stopped = values, [], [], None
        self.checkpoint = Checkpoint()
        options.setdefault("best_metric", "bbox/AP")
        self.hook = EvaluationHook(
            period, self.evaluate, str(folder), save_best=self.save_best, **options
        )
        self.register_hooks([self.checkpoint, self.hook])
        if resume is not None:
            self.load_state_dict(json.loads(resume))
            self.start_iter = self.iter + 1

    def before_train(self):
        self.done = self.start_iter
        super().before_train()

    def run_step(self):
        self.done += 1

    def evaluate(self):
        self.evaluated.append(self.done)
        return {"bbox": {"AP": self.values[self.done], "AP50": 2.0 * self.done}}

    def save_best(self, metric, value, iteration):
        self.saved.append((metric, value, iteration))

    def run(self, until=12, stop_at=None):
        """Train; with ``stop_at``, be killed after the step of that iteration."""
        if stop_at is not None:
            self.register_hooks([Kill(stop_at)])
        try:
            self.train(self.start_iter, until)
        except Killed:
            pass
        except EarlyStop as stop:
            self.stopped = stop
        return self

    def curve(self, name="bbox/AP"):
        return self.storage.history(name).values()


class Killed(BaseException):
    pass


class Kill(HookBase):
    def __init__(self, iteration):
        self.iteration = iteration

    def after_step(self):
        if self.trainer.iter == self.iteration:
            raise Killed


RISING = {i: float(i) for i in range(1, 40)}


def in_file(folder: Path):
    return json.loads((folder / "evaluations.json").read_text())


def test_each_period_and_the_end_are_evaluated_once(tmp_path):
    loop = Loop(tmp_path, RISING, period=5).run(until=12)
    assert loop.evaluated == [5, 10, 12]
    # The last one at max_iter, as Detectron2 writes it.
    assert loop.curve() == [(5.0, 4), (10.0, 9), (12.0, 12)]
    assert loop.storage.smoothing_hints()["bbox/AP"] is False
    assert [x["iteration"] for x in in_file(tmp_path)] == [4, 9, 11]
    assert in_file(tmp_path)[0]["metrics"] == {"bbox/AP": 5.0, "bbox/AP50": 10.0}
    assert loop._last_eval_results == {"bbox": {"AP": 12.0, "AP50": 24.0}}


def test_without_a_period_the_end_alone_is_evaluated_and_nothing_is_best(tmp_path):
    loop = Loop(tmp_path, RISING, period=0).run()
    assert loop.evaluated == [12] and loop.saved == []


def test_a_failed_training_is_not_evaluated(tmp_path):
    loop = Loop(tmp_path, RISING, period=0).run(until=12, stop_at=11)
    assert loop.evaluated == []


def test_no_results_are_fine(tmp_path):
    loop = Loop(tmp_path, RISING)
    loop.hook._evaluate = dict
    loop.run()
    assert loop.hook.evaluations == [] and not (tmp_path / "evaluations.json").exists()


def test_what_is_no_number_is_named(tmp_path):
    loop = Loop(tmp_path, RISING)
    loop.hook._evaluate = lambda: {"bbox": {"AP": 1.0, "name": "x"}}
    with pytest.raises(ValueError, match="got 'x' as bbox/name"):
        loop.run()


@pytest.mark.parametrize("evaluation_finished", [True, False])
def test_a_resumed_run_ends_as_one_that_was_never_stopped(tmp_path, evaluation_finished):
    values = {3: 1.0, 6: 5.0, 9: 4.0, 12: 2.0}
    whole = Loop(tmp_path / "whole", values).run()
    first = Loop(tmp_path / "cut", values).run(stop_at=7)
    state = first.checkpoint.states[5]  # written before the evaluation of its iteration
    if not evaluation_finished:
        entries = [x for x in in_file(tmp_path / "cut") if x["iteration"] != 5]
        (tmp_path / "cut" / "evaluations.json").write_text(json.dumps(entries))
    second = Loop(tmp_path / "cut", values, resume=state).run()
    assert second.evaluated == ([9, 12] if evaluation_finished else [6, 9, 12])
    assert second.hook.evaluations == whole.hook.evaluations
    assert in_file(tmp_path / "cut") == in_file(tmp_path / "whole")
    assert second.curve() == whole.curve()[1:]
    # Saved again, since the kill may have come before it was.
    assert second.saved == [("bbox/AP", 5.0, 5)] == whole.saved[-1:]


def test_entries_after_the_checkpoint_are_cut_off(tmp_path):
    first = Loop(tmp_path, RISING).run(stop_at=9)
    assert [x["iteration"] for x in in_file(tmp_path)] == [2, 5, 8]
    second = Loop(tmp_path, RISING, resume=first.checkpoint.states[5]).run(stop_at=6)
    assert [x["iteration"] for x in in_file(tmp_path)] == [2, 5]
    assert second.evaluated == []


def test_a_checkpoint_of_after_the_evaluation_has_it(tmp_path):
    first = Loop(tmp_path, RISING).run(stop_at=5)
    state = json.dumps(first.state_dict())  # as a signal right after the evaluation would save
    (tmp_path / "evaluations.json").unlink()
    second = Loop(tmp_path, RISING, resume=state).run(stop_at=7)
    assert second.evaluated == []
    assert [x["iteration"] for x in in_file(tmp_path)] == [2, 5]


def test_a_run_that_starts_again_knows_no_evaluations(tmp_path):
    loop = Loop(tmp_path, RISING)
    loop.hook.evaluations = [Evaluation(20, {"bbox/AP": 99.0})]
    loop.run(stop_at=4)
    assert [x.iteration for x in loop.hook.evaluations] == [2]


def test_a_damaged_file_is_evaluated_again(tmp_path, caplog):
    first = Loop(tmp_path, RISING).run(stop_at=7)
    (tmp_path / "evaluations.json").write_text('[{"iteration": 5, "met')
    second = Loop(tmp_path, RISING, resume=first.checkpoint.states[5]).run()
    assert second.evaluated == [6, 9, 12]
    assert "evaluations.json" in caplog.text and "evaluating again" in caplog.text


def test_the_file_of_an_earlier_run_is_not_taken(tmp_path):
    Loop(tmp_path, RISING).run()
    Loop(tmp_path, RISING).run(stop_at=1)
    assert not (tmp_path / "evaluations.json").exists()


def test_a_finished_run_is_evaluated_again_without_a_second_entry(tmp_path):
    first = Loop(tmp_path, RISING).run()
    second = Loop(tmp_path, RISING, resume=first.checkpoint.states[11]).run()
    assert second.evaluated == [12]
    assert second.hook.evaluations == first.hook.evaluations
    assert first.curve()[-1] == (12.0, 12) and second.curve() == [(12.0, 12)]


def test_a_file_that_cannot_be_written_does_not_end_training(tmp_path, caplog):
    (tmp_path / "evaluations.json").mkdir()
    loop = Loop(tmp_path, RISING).run()
    assert loop.evaluated == [3, 6, 9, 12]
    assert "evaluations.json cannot be written" in caplog.text


def test_what_is_not_finite_is_null_in_strict_json(tmp_path):
    loop = Loop(tmp_path, {3: math.nan, 6: math.inf, 9: 1.0, 12: -math.inf}).run()

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    text = (tmp_path / "evaluations.json").read_text()
    values = [x["metrics"]["bbox/AP"] for x in json.loads(text, parse_constant=refuse)]
    assert values == [None, None, 1.0, None]
    other = EvaluationHook(3, dict, str(tmp_path))
    other.load_state_dict(json.loads(json.dumps(loop.hook.state_dict())))
    assert str(other.evaluations) == str(loop.hook.evaluations)


def test_each_better_model_is_saved(tmp_path):
    loop = Loop(tmp_path, {3: 2.0, 6: 1.0, 9: 2.0, 12: 3.0}).run()
    assert loop.saved == [("bbox/AP", 2.0, 2), ("bbox/AP", 3.0, 11)]


def test_a_misspelt_metric_is_named_at_the_first_evaluation(tmp_path):
    loop = Loop(tmp_path, RISING, best_metric="bbox/AP5", metric_required=True)
    with pytest.raises(MetricError, match=r"BEST_METRIC is 'bbox/AP5'.* gives bbox/AP50"):
        loop.run()
    assert loop.evaluated == [3]
    # Nothing is lost: with the right name, the run continues from its checkpoint.
    state = loop.checkpoint.states[2]
    again = Loop(tmp_path, RISING, resume=state, best_metric="bbox/AP50").run(stop_at=4)
    assert again.evaluated == [] and again.saved == [("bbox/AP50", 6.0, 2)]


def test_of_several_sets_the_full_name_comes_first(tmp_path):
    loop = Loop(tmp_path, RISING, metric_required=True)
    loop.hook._evaluate = lambda: {"a": {"bbox": {"AP": 1.0}, "x": {"AP": 1.0}}}
    with pytest.raises(MetricError, match="gives a/bbox/AP, "):
        loop.run()


def test_the_default_metric_may_be_missing_with_one_line(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    loop = Loop(tmp_path, RISING, best_metric="segm/AP").run()
    assert loop.evaluated == [3, 6, 9, 12] and loop.saved == []
    assert caplog.text.count("no best checkpoint is kept") == 1


@pytest.mark.parametrize(
    ("opts", "required"),
    [
        ([], False),
        (["TEST.BEST_METRIC", "bbox/AP75"], True),
        (["TEST.EARLY_STOPPING_PATIENCE", "2"], True),
    ],
)
def test_what_the_user_asked_for_must_be_there(tmp_path, opts, required):
    cfg = get_cfg()
    cfg.merge_from_list([*opts, "OUTPUT_DIR", str(tmp_path), "TEST.EVAL_PERIOD", "3"])
    hook = build_evaluation_hook(cfg, lambda: {"segm": {"AP": 1.0}}, lambda *_: None)
    loop = Loop(tmp_path, RISING)
    loop._hooks[-1] = hook
    hook.trainer = loop
    if required:
        with pytest.raises(MetricError, match="segm/AP"):
            loop.run()
    else:
        loop.run()
        assert len(hook.evaluations) == 4


FALLING = {3: 5.0, 6: 4.0, 9: 5.0, 12: 5.1, 15: 1.0, 18: 0.0, 21: 0.0}


def test_training_ends_when_it_gets_no_better(tmp_path):
    loop = Loop(tmp_path, FALLING, patience=2).run(until=21)
    assert loop.evaluated == [3, 6, 9] and loop.saved == [("bbox/AP", 5.0, 2)]
    assert loop.iter == loop.max_iter == 9, "as after a schedule of 9 iterations"
    assert loop.stopped.code == 0
    assert "9 iterations" in str(loop.stopped) and "TEST.EARLY_STOPPING_PATIENCE" in str(
        loop.stopped
    )
    assert loop._last_eval_results["bbox"]["AP"] == 5.0


def test_all_hooks_are_through_with_the_iteration_of_the_stop(tmp_path):
    seen = []

    class After(HookBase):
        def after_step(self):
            seen.append(self.trainer.iter)

    loop = Loop(tmp_path, FALLING, patience=2)
    loop.register_hooks([After()])
    loop.run(until=21)
    assert seen[-1] == 8


def test_a_better_evaluation_renews_the_patience(tmp_path):
    loop = Loop(tmp_path, FALLING, patience=3).run(until=18)
    assert loop.stopped is None and loop.evaluated == [3, 6, 9, 12, 15, 18]


def test_a_run_that_stopped_stays_stopped_and_gives_its_results(tmp_path):
    first = Loop(tmp_path, FALLING, patience=2).run(until=21)
    state = first.checkpoint.states[8]
    second = Loop(tmp_path, FALLING, resume=state, patience=2).run(until=21)
    assert second.stopped is not None and second.max_iter == 9
    assert second.evaluated == [9] and second._last_eval_results["bbox"]["AP"] == 5.0
    assert second.hook.evaluations == first.hook.evaluations
    assert second.curve() == [(5.0, 8)]
    # More patience continues from there.
    third = Loop(tmp_path, FALLING, resume=state, patience=3).run(until=21)
    assert third.evaluated[0] == 12


def _loop_of_rank(rank: int, folder: str) -> tuple:
    loop = Loop(Path(folder), FALLING, patience=2)
    if rank:  # as Detectron2's evaluators: the main process alone has results
        loop.hook._evaluate = dict
    loop.run(until=21)
    return loop.max_iter, loop.saved, loop.stopped is not None, dist.get_world_size()


def test_processes_decide_together(tmp_path):
    results = run_on_two_ranks(_loop_of_rank, str(tmp_path))
    assert results[0] == results[1] == (9, [("bbox/AP", 5.0, 2)], True, 2)
