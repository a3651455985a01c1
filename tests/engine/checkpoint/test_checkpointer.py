"""Checkpoints: safe to load, complete at any moment, and never silently useless."""

import logging
import os
import pickle

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model
from iopath.common.file_io import PathHandler, PathManager

from retinanet_ext.engine.checkpoint.checkpointer import SafeCheckpointer
from retinanet_ext.engine.trainer import RetinaNetTrainer
from retinanet_ext.weights.reading import WeightsError, save_weights


def filled(model, value):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)
    return model


def equal(model, other):
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in model.state_dict().items())


def linear():
    return torch.nn.Sequential(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_load_from_both_formats(tmp_path, suffix):
    if suffix == ".safetensors":
        pytest.importorskip("safetensors", reason="the package safetensors is not installed")
    path, theirs, ours = tmp_path / f"w{suffix}", filled(linear(), 3), filled(linear(), 1)
    save_weights(path, theirs.state_dict(), ["a", "b"])
    extra = SafeCheckpointer(ours).load(str(path))
    assert equal(ours, theirs) and extra["thing_classes"] == ["a", "b"]


def test_detectron2s_zoo_format_loads_as_detectron2_loads_it(cfg, tmp_path):
    source = build_model(cfg)
    content = {
        "model": {name: value.numpy() for name, value in source.state_dict().items()},
        "__author__": "Detectron2 Model Zoo",
    }
    path = tmp_path / "model_final.pkl"
    path.write_bytes(pickle.dumps(content))
    ours, theirs = build_model(cfg), build_model(cfg)
    SafeCheckpointer(ours).load(str(path))
    DetectionCheckpointer(theirs).load(str(path))
    assert equal(ours, theirs) and equal(ours, source)


def test_caffe2_names_are_matched_as_detectron2_matches_them(cfg, tmp_path):
    rng = np.random.default_rng(0)
    content = {
        "conv1_w": rng.normal(size=(64, 3, 7, 7)).astype("float32"),
        "res_conv1_bn_s": rng.normal(size=64).astype("float32"),
        "res2_0_branch2a_w": rng.normal(size=(64, 64, 3, 3)).astype("float32"),
        "conv1_w_momentum": np.zeros(1, "float32"),
    }
    path = tmp_path / "R-18.pkl"
    path.write_bytes(pickle.dumps({"blobs": content}, 2))
    ours = build_model(cfg)
    theirs = build_model(cfg)
    theirs.load_state_dict(ours.state_dict())
    SafeCheckpointer(ours).load(str(path))
    DetectionCheckpointer(theirs).load(str(path))
    assert equal(ours, theirs)
    stem = ours.backbone.bottom_up.stem.conv1
    assert np.array_equal(stem.weight.detach().numpy(), content["conv1_w"])
    assert np.array_equal(stem.norm.weight.numpy(), content["res_conv1_bn_s"])


def test_heuristics_can_be_asked_for(tmp_path):
    theirs, ours = filled(torch.nn.Linear(2, 2), 3), filled(linear(), 1)
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    SafeCheckpointer(ours).load(f"{tmp_path / 'w.pth'}?matching_heuristics=True")
    assert torch.equal(ours[0].weight, theirs.weight)


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return type(self.path).mkdir, (self.path,)


@pytest.mark.parametrize("name", ["w.pth", "w.pkl", "w.pyth"])
def test_a_malicious_file_cannot_run_code(tmp_path, name, monkeypatch):
    # As old versions of PyTorch do where weights_only is not given.
    load = torch.load
    monkeypatch.setattr(
        torch, "load", lambda *a, weights_only=False, **k: load(*a, weights_only=weights_only, **k)
    )
    content = {"model": {}, "__author__": "x", "model_state": {}, "evil": Evil(tmp_path / "run")}
    if name == "w.pkl":
        (tmp_path / name).write_bytes(pickle.dumps(content))
    else:
        torch.save(content, tmp_path / name)
    checkpointer = SafeCheckpointer(linear())
    for _ in range(2):  # an error leaves nothing behind that makes the next one another
        with pytest.raises(WeightsError, match="could run code"):
            checkpointer.load(str(tmp_path / name))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "content",
    [{"conv.weight": torch.ones(1)}, {"0.weight": torch.ones(3, 3), "0.bias": torch.ones(3)}, {}],
)
def test_weights_that_fit_nothing_are_refused(tmp_path, content):
    torch.save({"model": content}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"w\.pth' has no weights that fit .* model 0\.weight"):
        SafeCheckpointer(linear()).load(str(tmp_path / "w.pth"))


def test_one_fitting_weight_is_enough(tmp_path):
    torch.save({"model": {"0.weight": torch.ones(2, 2)}}, tmp_path / "w.pth")
    model = filled(linear(), 3)
    SafeCheckpointer(model).load(str(tmp_path / "w.pth"))
    assert model[0].weight.unique().tolist() == [1] and model[0].bias.unique().tolist() == [3]


def test_no_path_means_no_weights():
    assert SafeCheckpointer(linear()).load("") == {}


def test_the_tag_changes_in_one_step_after_the_checkpoint(tmp_path, monkeypatch):
    checkpointer = SafeCheckpointer(torch.nn.Linear(1, 1), str(tmp_path))
    checkpointer.save("first")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["first.pth", "first.pth.sha256", "last_checkpoint"]
    replace = os.replace

    def killed(source, target):
        if target.endswith("last_checkpoint"):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpointer.save("second")
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "first.pth")
    assert (tmp_path / "second.pth.sha256").exists()


def test_a_save_without_tag_is_not_resumed_from(tmp_path):
    checkpointer = SafeCheckpointer(linear(), str(tmp_path))
    checkpointer.save("first")
    checkpointer.save("best", tag=False, metric=np.float64(0.5))
    assert (tmp_path / "last_checkpoint").read_text() == "first.pth"
    assert torch.load(tmp_path / "best.pth", weights_only=True)["metric"] == 0.5


def test_what_a_killed_save_left_goes_with_the_next(tmp_path):
    (tmp_path / "model_0000004.pth.unfinished").write_bytes(b"half")
    (tmp_path / "notes.tmp").touch()
    SafeCheckpointer(linear(), str(tmp_path)).save("w")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["last_checkpoint", "notes.tmp", "w.pth", "w.pth.sha256"]


def test_other_file_systems_are_left_to_detectron2(tmp_path, monkeypatch):
    class Handler(PathHandler):
        def _get_supported_prefixes(self):
            return ["remote://"]

        def _open(self, path, mode="r", buffering=-1, **kwargs):
            return open(tmp_path / path.rpartition("/")[2], mode)

    checkpointer = SafeCheckpointer(linear(), "remote://folder", numbers=Numbers())
    checkpointer.path_manager = PathManager()
    checkpointer.path_manager.register_handler(Handler())
    checkpointer.save("first", iteration=3)
    checkpointer.save("best", tag=False)
    assert (tmp_path / "last_checkpoint").read_text() == "first.pth"
    content = torch.load(tmp_path / "first.pth", weights_only=True)
    assert content["iteration"] == 3 and content["numbers"]["best"] == 0.5
    assert not list(tmp_path.glob("*.sha256")) and (tmp_path / "best.pth").exists()


class Numbers:
    def __init__(self):
        self.state = {"best": np.float64(0.5), "history": [np.float32(1)]}

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = state


def test_what_is_saved_loads_safely_and_restores_the_state(tmp_path):
    numbers = Numbers()
    checkpointer = SafeCheckpointer(linear(), str(tmp_path), numbers=numbers)
    checkpointer.thing_classes = ("a", "b")
    checkpointer.save("w", iteration=np.int64(3))
    content = torch.load(tmp_path / "w.pth", weights_only=True)
    assert content["thing_classes"] == ["a", "b"] and content["iteration"] == 3
    numbers.state = {}
    checkpointer.load(str(tmp_path / "w.pth"))
    assert numbers.state == {"best": 0.5, "history": [1.0]}


@pytest.mark.parametrize(
    "optimizer, schedule", [("SGD", "WarmupCosineLR"), ("AdamW", "OneCycleLR")]
)
def test_a_training_checkpoint_resumes_through_the_safe_loader(cfg, optimizer, schedule, caplog):
    cfg.SOLVER.OPTIMIZER, cfg.SOLVER.LR_SCHEDULER_NAME = optimizer, schedule
    cfg.SOLVER.MAX_ITER, cfg.DATASETS.TEST, cfg.SOLVER.IMS_PER_BATCH = 2, (), 1
    trainer = RetinaNetTrainer(cfg)
    trainer.train()
    again = RetinaNetTrainer(cfg)
    caplog.clear()
    again.resume_or_load(resume=True)
    assert again.start_iter == 2 and equal(again.model, trainer.model)
    ours, theirs = again._trainer.optimizer, trainer._trainer.optimizer
    assert ours.state_dict()["param_groups"] == theirs.state_dict()["param_groups"]
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    "address", ["http://localhost:1/x.pth", "foo://x.pth", "file:///nowhere/x.pth"]
)
def test_weights_whose_address_gives_nothing_are_named(address):
    with pytest.raises(WeightsError, match=rf"^'{address}' cannot be fetched .*; see whether"):
        SafeCheckpointer(linear()).load(address)
