"""A run continues from the last intact checkpoint, and says so where that is not the last one."""

import itertools
import logging
import multiprocessing
import os
import random
import re
import signal
import time
from pathlib import Path

import pytest
import torch

from retinanet_ext.engine.checkpoint.checkpointer import SafeCheckpointer
from retinanet_ext.engine.checkpoint.last_checkpoint import candidates
from retinanet_ext.weights.reading import WeightsError


class Counter:
    """Stands for the trainer."""

    def __init__(self, value=-1):
        self.value = value

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


def checkpointer(folder, value=-1):
    model = torch.nn.Linear(4, 4)
    torch.nn.init.constant_(model.weight, value)
    return SafeCheckpointer(model, str(folder), trainer=Counter(value))


def save(folder, *names):
    for value, name in enumerate(names, start=1):
        checkpointer(folder, value).save(name)


def resume(folder):
    """The number of the checkpoint that was resumed from, by weights and by state."""
    fresh = checkpointer(folder)
    fresh.resume_or_load("", resume=True)
    values = {int(x) for x in fresh.model.weight.unique().tolist()}
    assert values == {fresh.checkpointables["trainer"].value}
    return fresh


@pytest.fixture
def folder(tmp_path):
    """Holds 1: model_0000004, 2: model_0000009, 3: model_0000014, the last one."""
    save(tmp_path, "model_0000004", "model_0000009", "model_0000014")
    return tmp_path


def flip_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def truncate_without_checksum(path):
    truncate(path)
    Path(f"{path}.sha256").unlink()


def empty_without_checksum(path):
    path.write_bytes(b"")
    Path(f"{path}.sha256").unlink()


def weights_alone(path):
    torch.save({"model": torch.nn.Linear(4, 4).state_dict()}, path)
    Path(f"{path}.sha256").unlink()


def weights_not_finite(path):
    content = torch.load(path, weights_only=True)
    content["model"]["weight"][1, 2] = float("nan")
    torch.save(content, path)
    Path(f"{path}.sha256").unlink()


@pytest.mark.parametrize(
    "harm, reason",
    [
        (flip_byte, r"differs from its checksum in model_0000014\.pth\.sha256"),
        (truncate, "differs from its checksum"),
        (truncate_without_checksum, "is no file of weights, or broken"),
        (empty_without_checksum, "is no file of weights, or broken"),
        (weights_alone, r"holds only weights, and not the state of training \(trainer\)"),
        (weights_not_finite, r"holds weights that are not finite \(weight\)"),
        (os.remove, "does not exist, but last_checkpoint names it"),
    ],
)
def test_a_bad_checkpoint_is_named_and_the_one_before_it_used(folder, caplog, harm, reason):
    harm(folder / "model_0000014.pth")
    with caplog.at_level(logging.WARNING):
        fresh = resume(folder)
    assert fresh.checkpointables["trainer"].value == 2
    [warning] = caplog.messages
    assert re.search(reason, warning)
    assert warning.startswith(str(folder / "model_0000014.pth"))
    assert warning.endswith(f"; resuming from {folder / 'model_0000009.pth'} instead")
    assert fresh.get_checkpoint_file() == str(folder / "model_0000009.pth")
    # Until the next one is saved, which is the last one then.
    fresh.save("model_0000019")
    assert fresh.get_checkpoint_file() == str(folder / "model_0000019.pth")


@pytest.mark.parametrize("harm", [flip_byte, truncate_without_checksum, weights_not_finite])
def test_a_damaged_best_model_is_named(folder, caplog, harm):
    checkpointer(folder).save("model_best", tag=False)
    resume(folder)
    assert not [x for x in caplog.records if x.levelno >= logging.WARNING]
    harm(folder / "model_best.pth")
    assert resume(folder).checkpointables["trainer"].value == 3
    [warning] = [x.getMessage() for x in caplog.records if x.levelno >= logging.WARNING]
    assert warning.startswith(str(folder / "model_best.pth")) and "intact copy" in warning


def test_a_state_of_training_of_another_kind_is_one_sentence(folder):
    path = folder / "model_0000014.pth"
    content = torch.load(path, weights_only=True)
    torch.save({**content, "trainer": {"other": 1}}, path)
    Path(f"{path}.sha256").unlink()
    with pytest.raises(WeightsError, match=r"0014\.pth' holds a state.*KeyError: value"):
        resume(folder)


def test_an_intact_one_is_resumed_without_a_word_and_read_once(folder, caplog, monkeypatch):
    load, reads = torch.load, []
    monkeypatch.setattr(torch, "load", lambda *a, **k: (reads.append(a), load(*a, **k))[1])
    with caplog.at_level(logging.WARNING):
        assert resume(folder).checkpointables["trainer"].value == 3
    assert not caplog.messages and len(reads) == 1


@pytest.mark.parametrize("tag", [None, "", "model_0000024.pth"])
def test_a_tag_that_says_nothing_is_reported_and_the_newest_used(folder, caplog, tag):
    (folder / "last_checkpoint").unlink()
    if tag is not None:
        (folder / "last_checkpoint").write_text(tag)
    with caplog.at_level(logging.WARNING):
        assert resume(folder).checkpointables["trainer"].value == 3
    [warning] = caplog.messages
    assert "is missing" in warning if tag is None else "does not exist" in warning


def test_a_tag_set_back_by_hand_is_followed(folder, caplog):
    (folder / "last_checkpoint").write_text("model_0000009.pth")
    with caplog.at_level(logging.WARNING):
        assert resume(folder).checkpointables["trainer"].value == 2
    assert not caplog.messages


def test_the_order_is_tag_then_before_then_after_then_unnumbered(tmp_path):
    names = ["model_0000004", "model_0000009", "model_0000014", "model_0010000", "model_0000019"]
    save(tmp_path, *names, "model_best", "model_final", "other")
    (tmp_path / "last_checkpoint").write_text("model_0000014.pth")
    assert [Path(path).stem for path in candidates(str(tmp_path))] == [
        "model_0000014",
        "model_0000009",
        "model_0000004",
        "model_0010000",
        "model_0000019",
        "model_final",
        "model_best",
    ]
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    stems = [Path(path).stem for path in candidates(str(tmp_path))]
    assert stems[:3] == ["model_final", "model_0010000", "model_0000019"]


def test_the_best_model_is_used_where_nothing_else_is_left(folder):
    save(folder, "model_best")
    for path in folder.glob("model_0*.pth"):
        truncate(path)
    assert resume(folder).checkpointables["trainer"].value == 1


def test_where_none_is_intact_each_is_named(folder, caplog):
    flip_byte(folder / "model_0000014.pth")
    truncate_without_checksum(folder / "model_0000009.pth")
    weights_alone(folder / "model_0000004.pth")
    with pytest.raises(WeightsError, match="start again without --resume") as caught:
        resume(folder)
    text = str(caught.value)
    for number, reason in ((14, "differs"), (9, "broken"), (4, "holds only weights")):
        assert f"model_{number:07d}.pth {reason}" in text.replace("is no file of weights, or ", "")


def test_processes_that_do_not_see_the_main_ones_file_are_an_error(folder, monkeypatch):
    seen = [[True, True], [True, False]]
    monkeypatch.setattr(
        "retinanet_ext.engine.checkpoint.checkpointer.comm.all_gather",
        lambda x: seen.pop(0) if isinstance(x, bool) else [x, ("", None)],
    )
    with pytest.raises(WeightsError, match=r"14\.pth': OUTPUT_DIR must be one folder that all"):
        resume(folder)


def test_an_evaluation_takes_weights_alone(folder):
    weights_alone(folder / "model_0000014.pth")
    evaluated = SafeCheckpointer(torch.nn.Linear(4, 4), str(folder))
    evaluated.resume_or_load("", resume=True)
    assert evaluated.get_checkpoint_file() == str(folder / "model_0000014.pth")


def test_without_resume_the_folder_says_nothing(folder):
    fresh = checkpointer(folder)
    assert fresh.has_checkpoint()
    fresh.resume_or_load("", resume=False)
    assert fresh.model.weight.unique().tolist() == [-1]


def test_an_empty_folder_has_no_checkpoint(tmp_path):
    fresh = checkpointer(tmp_path / "none")
    assert not fresh.has_checkpoint()
    assert fresh.resume_or_load("", resume=True) == {}


def test_detectron2s_own_checkpoints_resume(tmp_path):
    from detectron2.checkpoint import DetectionCheckpointer

    model = torch.nn.Linear(4, 4)
    torch.nn.init.constant_(model.weight, 5)
    DetectionCheckpointer(model, str(tmp_path), trainer=Counter(5)).save("model_0000009")
    assert resume(tmp_path).checkpointables["trainer"].value == 5


def save_for_ever(folder):
    torch.set_num_threads(1)
    large = torch.nn.Linear(300, 300)
    counter = Counter()
    saver = SafeCheckpointer(large, str(folder), trainer=counter)
    for counter.value in itertools.count(1):
        with torch.no_grad():
            large.weight.fill_(counter.value)
        # Names that return, as in a run that starts over, with model_final among them.
        number = counter.value % 3
        saver.save(f"model_{number:07d}" if number else "model_final")


def test_a_kill_at_any_moment_leaves_an_intact_checkpoint(tmp_path, caplog):
    unfinished, last = 0, 0
    for trial in range(12):
        process = multiprocessing.get_context("fork").Process(
            target=save_for_ever, args=(tmp_path / str(trial),)
        )
        process.start()
        while not (tmp_path / str(trial) / "last_checkpoint").exists():
            time.sleep(0.002)
        time.sleep(random.random() * 0.3)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        unfinished += bool(list((tmp_path / str(trial)).glob("*.unfinished")))
        model, counter = torch.nn.Linear(300, 300), Counter()
        fresh = SafeCheckpointer(model, str(tmp_path / str(trial)), trainer=counter)
        fresh.resume_or_load("", resume=True)
        assert model.weight.unique().tolist() == [counter.value]
        last = max(last, counter.value)
    # What the tag names is intact in itself, and the test did hit saves.
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert unfinished > 3 and last > 1
