"""Mistakes that must stop a run before anything is built, each with its sentence."""

import argparse
import logging
import sys

import pytest
import torch
from detectron2.utils.file_io import PathManager

from retinanet_ext import get_cfg
from retinanet_ext.engine.launch import checks
from retinanet_ext.engine.launch.checks import (
    check_launch,
    check_output_dir,
    check_processes,
    check_weights,
)
from retinanet_ext.errors import InputError


@pytest.fixture
def cfg(tmp_path):
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.WEIGHTS = ""
    return cfg


@pytest.fixture
def gpus(monkeypatch):
    def pretend(count):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    pretend(0)
    return pretend


def launch_args(**changes):
    args = {"num_gpus": 1, "num_machines": 1, "machine_rank": 0, "dist_url": "tcp://127.0.0.1:1"}
    return argparse.Namespace(**{**args, **changes})


def pretend_processes(monkeypatch, count):
    monkeypatch.setattr(checks.comm, "get_world_size", lambda: count)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"num_gpus": -1}, "--num-gpus is -1"),
        ({"num_machines": 0}, "--num-machines is 0"),
        ({"machine_rank": 2, "num_machines": 2}, "--machine-rank is 2"),
        ({"num_machines": 2, "dist_url": "auto"}, "--dist-url is auto"),
    ],
)
def test_impossible_process_arguments_are_named(gpus, changes, words):
    with pytest.raises(ValueError, match=words):
        check_launch(launch_args(**changes))


def test_more_processes_than_gpus_are_refused_only_where_there_are_gpus(gpus):
    check_launch(launch_args(num_gpus=2))
    gpus(1)
    with pytest.raises(ValueError, match="--num-gpus is 2 but this machine has 1"):
        check_launch(launch_args(num_gpus=2))


def test_batch_must_divide_among_processes(cfg, monkeypatch, gpus):
    pretend_processes(monkeypatch, 3)
    cfg.SOLVER.IMS_PER_BATCH = 6
    check_processes(cfg)
    cfg.SOLVER.IMS_PER_BATCH = 8
    with pytest.raises(ValueError, match="IMS_PER_BATCH is 8 but the number of processes is 3"):
        check_processes(cfg)


def test_a_scaled_batch_is_checked_against_its_reference(cfg, monkeypatch, gpus):
    pretend_processes(monkeypatch, 3)
    # 8 images for 4 processes become 6 for 3.
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.REFERENCE_WORLD_SIZE = 8, 4
    check_processes(cfg)
    cfg.SOLVER.REFERENCE_WORLD_SIZE = 5
    with pytest.raises(ValueError, match=r"IMS_PER_BATCH is 8 but .*REFERENCE_WORLD_SIZE is 5"):
        check_processes(cfg)


def test_one_device_cannot_serve_several_processes(cfg, monkeypatch, gpus):
    pretend_processes(monkeypatch, 2)
    cfg.MODEL.DEVICE = "cuda:0"
    with pytest.raises(ValueError, match=r"MODEL.DEVICE is 'cuda:0' but 2 processes"):
        check_processes(cfg)


def test_cpu_processes_need_hidden_gpus(cfg, monkeypatch, gpus):
    pretend_processes(monkeypatch, 2)
    check_processes(cfg)
    gpus(2)
    with pytest.raises(ValueError, match="CUDA_VISIBLE_DEVICES"):
        check_processes(cfg)


def test_missing_weights_are_named(cfg, tmp_path):
    cfg.MODEL.WEIGHTS = str(tmp_path / "no.pth")
    with pytest.raises(FileNotFoundError, match=r"MODEL.WEIGHTS is '.*no.pth'"):
        check_weights(cfg)


@pytest.mark.parametrize("weights", ["detectron2://a/b.pkl", "https://example.org/a.pth"])
def test_addresses_are_left_to_the_download(cfg, weights):
    cfg.MODEL.WEIGHTS = weights
    check_weights(cfg, eval_only=True)


def test_a_query_is_not_part_of_the_file_name(cfg, tmp_path):
    (tmp_path / "r50.pth").touch()
    cfg.MODEL.WEIGHTS = f"{tmp_path / 'r50.pth'}?matching_heuristics=True"
    check_weights(cfg)


def test_safetensors_without_their_package_are_refused_early(cfg, tmp_path, monkeypatch):
    (tmp_path / "w.safetensors").touch()
    cfg.MODEL.WEIGHTS = f"{tmp_path / 'w.safetensors'}?matching_heuristics=True"
    monkeypatch.setitem(sys.modules, "safetensors", object())
    check_weights(cfg)
    monkeypatch.setitem(sys.modules, "safetensors", None)  # import then fails
    with pytest.raises(ImportError, match=r"w\.safetensors.*pip install safetensors"):
        check_weights(cfg)


def test_evaluating_random_weights_is_refused(cfg):
    with pytest.raises(ValueError, match=r"MODEL\.WEIGHTS is empty.*--resume"):
        check_weights(cfg, eval_only=True, resume=True)


def test_a_checkpoint_to_resume_from_makes_weights_irrelevant(cfg, tmp_path):
    cfg.MODEL.WEIGHTS = "no.pth"
    (tmp_path / "last_checkpoint").write_text("model_0000009.pth")
    (tmp_path / "model_0000009.pth").touch()
    check_weights(cfg, resume=True, eval_only=True)


@pytest.mark.parametrize("tag", ["model_0000009.pth", ""])
def test_a_tag_without_any_checkpoint_is_refused(cfg, tmp_path, tag):
    (tmp_path / "last_checkpoint").write_text(tag)
    with pytest.raises(FileNotFoundError, match=f"last_checkpoint names '.*{tag}'"):
        check_weights(cfg, resume=True)


@pytest.mark.parametrize("tag", ["model_0000009.pth", None])
def test_other_checkpoints_stand_in_for_a_missing_one(cfg, tmp_path, tag):
    cfg.MODEL.WEIGHTS = "no.pth"
    (tmp_path / "model_0000004.pth").touch()
    if tag:
        (tmp_path / "last_checkpoint").write_text(tag)
    check_weights(cfg, resume=True)


@pytest.mark.parametrize("freeze_at, warnings", [(2, 1), (0, 0)])
def test_frozen_random_weights_give_a_warning(cfg, caplog, freeze_at, warnings):
    cfg.MODEL.BACKBONE.FREEZE_AT = freeze_at
    with caplog.at_level(logging.WARNING):
        check_weights(cfg)
    assert sum("FREEZE_AT" in message for message in caplog.messages) == warnings


@pytest.mark.parametrize("folder", ["s3://bucket/x", "foo://x"])
def test_an_address_that_nothing_writes_to_is_no_output_folder(folder: str):
    with pytest.raises(InputError, match=rf"^OUTPUT_DIR is '{folder}', an address that nothing"):
        check_output_dir(folder)


def test_a_folder_and_an_address_that_someone_handles_are(monkeypatch):
    monkeypatch.setitem(PathManager._path_handlers, "foo://", object())
    check_output_dir("foo://x")
    check_output_dir("output/run")


@pytest.mark.parametrize("minutes", [0.0, -1.0, float("nan"), float("inf")])
def test_a_time_limit_is_positive(gpus, minutes: float):
    args = argparse.Namespace(
        num_gpus=0, num_machines=1, machine_rank=0, dist_url="auto", dist_timeout=minutes
    )
    with pytest.raises(InputError, match=r"^--dist-timeout is "):
        check_launch(args)
