"""What is saved when, what is kept, and what a disk that cannot be written does to a run."""

import errno
import logging
import os
import weakref

import pytest
import torch
from detectron2.engine import HookBase, TrainerBase

from retinanet_ext import files, get_cfg, validate_cfg
from retinanet_ext.engine.checkpoint import hook
from retinanet_ext.engine.checkpoint.checkpointer import SafeCheckpointer
from retinanet_ext.engine.checkpoint.hook import CheckpointError, CheckpointHook, NonFiniteWeights
from retinanet_ext.files import find_damage


class Training(TrainerBase):
    """Counts the iterations that it has finished, in its weight."""

    def __init__(self, folder, period=2, keep_last=0, before=()):
        super().__init__()
        self.model = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.zeros_(self.model.weight)
        self.checkpointer = SafeCheckpointer(self.model, str(folder), trainer=weakref.proxy(self))
        self.hook = CheckpointHook(self.checkpointer, period, keep_last)
        self.register_hooks([*before, self.hook])

    def run_step(self):
        with torch.no_grad():
            self.model.weight += 1

    def resume(self):
        self.checkpointer.resume_or_load("", resume=True)
        self.start_iter = self.iter + 1
        return self

    def run(self, max_iter):
        self.train(self.start_iter, max_iter)
        return self


class Call(HookBase):
    """Calls a function after a step."""

    def __init__(self, iteration, function):
        self.iteration, self.function = iteration, function

    def after_step(self):
        if self.trainer.iter == self.iteration:
            self.function(self.trainer)


def saved(folder):
    """Checkpoint -> (its iteration, the trainer's, steps in its weight); files are intact."""
    found = {}
    for path in sorted(folder.glob("*.pth")):
        assert not find_damage(str(path)) and path.with_name(f"{path.name}.sha256").exists()
        content = torch.load(path, weights_only=True)
        steps = int(content["model"]["weight"].item())
        found[path.stem] = (content["iteration"], content["trainer"]["iteration"], steps)
    return found


def tag(folder):
    return (folder / "last_checkpoint").read_text()


def fail(*args):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_states_are_saved_every_period_and_at_the_end(tmp_path):
    Training(tmp_path).run(5)
    assert saved(tmp_path) == {
        "model_0000001": (1, 1, 2),
        "model_0000003": (3, 3, 4),
        "model_final": (4, 4, 5),
    }
    assert tag(tmp_path) == "model_final.pth"


def test_the_last_iteration_is_saved_under_both_names_as_in_detectron2(tmp_path):
    Training(tmp_path).run(4)
    assert saved(tmp_path)["model_0000003"] == saved(tmp_path)["model_final"] == (3, 3, 4)


def test_a_training_that_ends_early_is_saved_as_final(tmp_path):
    class Enough(SystemExit):
        pass

    class End(HookBase):
        def before_step(self):
            if self.trainer.iter == 3:
                self.trainer.max_iter = 3
                raise Enough

    training = Training(tmp_path, before=[End()])
    with pytest.raises(Enough):
        training.run(9)
    assert saved(tmp_path) == {"model_0000001": (1, 1, 2), "model_final": (2, 2, 3)}


def test_a_training_that_fails_is_not_saved_as_final(tmp_path):
    with pytest.raises(OSError):
        Training(tmp_path, before=[Call(2, fail)]).run(9)
    assert list(saved(tmp_path)) == ["model_0000001"]


def test_a_run_that_was_complete_writes_nothing_again(tmp_path):
    Training(tmp_path).run(4)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    Training(tmp_path).resume().run(4)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    for name in ("model_final.pth", "last_checkpoint"):  # killed between the two saves
        (tmp_path / name).unlink()
    Training(tmp_path).resume().run(4)
    assert saved(tmp_path)["model_final"] == (3, 3, 4)


@pytest.mark.parametrize("keep_last, kept", [(1, [7]), (2, [5, 7]), (0, [1, 3, 5, 7])])
def test_the_newest_numbered_files_are_kept_also_over_a_resume(tmp_path, keep_last, kept):
    Training(tmp_path, keep_last=keep_last).run(4)
    training = Training(tmp_path, keep_last=keep_last).resume()
    (tmp_path / "model_best.pth").touch()
    (tmp_path / "model_mine.pth").touch()
    training.run(9)
    expected = [f"model_{i:07d}" for i in kept]
    assert sorted(x.stem for x in tmp_path.glob("model_0*.pth")) == expected
    assert sorted(x.name for x in tmp_path.glob("*.sha256")) == [
        *(f"{name}.pth.sha256" for name in expected),
        "model_final.pth.sha256",
    ]
    assert (tmp_path / "model_best.pth").exists() and (tmp_path / "model_mine.pth").exists()


def test_later_numbers_and_the_tagged_file_are_not_removed(tmp_path):
    (tmp_path / "model_0000099.pth").touch()

    def tag_the_first(trainer):
        (tmp_path / "last_checkpoint").write_text("model_0000001.pth")
        trainer.hook._keep_last = 1
        trainer.hook._remove_older(trainer.iter)

    Training(tmp_path, keep_last=2, before=[Call(4, tag_the_first)]).run(5)
    assert sorted(x.stem for x in tmp_path.glob("model_0*.pth")) == [
        "model_0000001",
        "model_0000003",
        "model_0000099",
    ]


@pytest.mark.parametrize(
    "opened, words", [(fail, "No space left on device"), (None, "Not a directory")]
)
def test_a_save_that_fails_is_one_error_and_the_next_is_tried(
    tmp_path, monkeypatch, caplog, opened, words
):
    folder = tmp_path / "output"
    if opened is None:  # permissions do not bind every user
        (tmp_path / "file").touch()
        broken = str(tmp_path / "file" / "output")

    def break_disk(trainer):
        if opened is None:
            trainer.checkpointer.save_dir = broken
        else:
            monkeypatch.setattr(files, "open", opened, raising=False)

    def mend_disk(trainer):
        trainer.checkpointer.save_dir = str(folder)
        monkeypatch.undo()

    with caplog.at_level(logging.WARNING):
        Training(folder, before=[Call(3, break_disk), Call(5, mend_disk)]).run(7)
    [error] = caplog.records
    assert error.levelno == logging.ERROR
    message = error.getMessage()
    assert "model_0000003.pth was not saved" in message and words in message
    assert "free in" in message or "unknown space" in message
    assert "tried again with the next checkpoint" in message and "CHECKPOINTS_KEPT" in message
    assert list(saved(folder)) == ["model_0000001", "model_0000005", "model_final"]
    assert not list(folder.glob("*.unfinished"))


def test_a_final_state_that_cannot_be_saved_is_tried_again_and_then_an_error(
    tmp_path, monkeypatch, caplog
):
    with monkeypatch.context() as patch:
        breaks = Call(3, lambda trainer: patch.setattr(files, "open", fail, raising=False))
        training = Training(tmp_path, period=2, before=[breaks]).run(4)
        assert "tried again after the last evaluation" in caplog.messages[-1]
        with pytest.raises(CheckpointError, match=r"model_final\.pth' could not be saved"):
            training.hook.require_saved()
    assert tag(tmp_path) == "model_0000001.pth"
    training.hook.require_saved()  # there is room now
    assert saved(tmp_path)["model_final"] == (3, 3, 4)
    Training(tmp_path).resume().run(6).hook.require_saved()


def test_old_files_stay_where_the_new_one_cannot_be_written(tmp_path, monkeypatch):
    training = Training(tmp_path, keep_last=1).run(2)
    training.start_iter = 2
    with monkeypatch.context() as patch:
        patch.setattr(files, "open", fail, raising=False)
        training.run(4)
    assert list(saved(tmp_path)) == ["model_0000001", "model_final"]


def spoil(trainer):
    with torch.no_grad():
        trainer.model.weight.fill_(float("nan"))


@pytest.mark.parametrize("iteration, name", [(3, "model_0000003"), (8, "model_final")])
def test_weights_that_are_not_finite_end_the_training_and_are_never_saved(
    tmp_path, iteration, name
):
    training = Training(tmp_path, keep_last=1, before=[Call(iteration, spoil)])
    with pytest.raises(NonFiniteWeights, match=rf"{name}\.pth is not saved.*weight is not finite"):
        training.run(9)
    last = f"model_{iteration - 2 if iteration == 3 else 7:07d}"
    assert list(saved(tmp_path)) == [last] and tag(tmp_path) == f"{last}.pth"
    assert Training(tmp_path).resume().model.weight.isfinite().all()


def test_a_state_saved_at_once_is_looked_at_too(tmp_path, caplog):
    paths = []
    training = Training(tmp_path, before=[Call(2, spoil)])
    training.register_hooks([Call(2, lambda t: paths.append(t.hook.save_now("after the error")))])
    with pytest.raises(NonFiniteWeights):
        training.run(9)
    assert paths == [""] and list(saved(tmp_path)) == ["model_0000001"]
    assert "after the error: nothing is saved, since weight is not finite" in caplog.text


def test_files_that_cannot_be_removed_are_a_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(hook, "remove_checked", fail)
    with caplog.at_level(logging.WARNING):
        Training(tmp_path, keep_last=1).run(4)
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "model_0000001.pth cannot be removed: No space" in caplog.text
    assert len(saved(tmp_path)) == 3


def test_a_state_is_saved_at_once_but_not_twice(tmp_path, monkeypatch):
    training = Training(tmp_path, period=2)
    paths = []
    training.register_hooks(
        [Call(i, lambda t: paths.append(t.hook.save_now("test"))) for i in (2, 3)]
    )
    written = []
    save = training.checkpointer.save
    monkeypatch.setattr(
        training.checkpointer, "save", lambda name, **k: (written.append(name), save(name, **k))
    )
    training.run(6)
    assert paths == [str(tmp_path / f"model_000000{i}.pth") for i in (2, 3)]
    assert written == [f"model_000000{i}" for i in (1, 2, 3, 5)] + ["model_final"]
    assert saved(tmp_path)["model_0000002"] == (2, 2, 3)


def test_a_state_that_cannot_be_saved_at_once_gives_no_path(tmp_path, monkeypatch):
    training = Training(tmp_path, period=9)
    training.register_hooks(
        [
            Call(1, lambda t: monkeypatch.setattr(files, "open", fail, raising=False)),
            Call(1, lambda t: results.append((t.hook.save_now("test"), t.hook.is_saved))),
            Call(1, lambda t: monkeypatch.undo()),
            Call(2, lambda t: results.append((bool(t.hook.save_now("test")), t.hook.is_saved))),
        ]
    )
    results = []
    training.run(4)
    assert results == [("", False), (True, True)]


def test_the_best_state_is_beside_the_others_and_complete(tmp_path):
    def best(trainer):
        assert trainer.hook.save_best("bbox/AP", 31.5, trainer.iter - 1)

    Training(tmp_path, before=[Call(2, best)]).run(3)
    content = torch.load(tmp_path / "model_best.pth", weights_only=True)
    assert (content["best_metric"], content["best_value"]) == ("bbox/AP", 31.5)
    assert content["iteration"] == content["trainer"]["iteration"] == 1
    assert tag(tmp_path) == "model_final.pth" and saved(tmp_path)["model_final"] == (2, 2, 3)
    for path in tmp_path.glob("model_*.pth"):
        if path.stem != "model_best":
            path.unlink()
    assert Training(tmp_path).resume().start_iter == 2


def test_a_negative_number_of_files_is_refused():
    cfg = get_cfg()
    cfg.SOLVER.CHECKPOINTS_KEPT = -1
    with pytest.raises(ValueError, match=r"SOLVER\.CHECKPOINTS_KEPT must be at least 0, got -1"):
        validate_cfg(cfg)
