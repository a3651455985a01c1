"""What an evaluation measures, of the weights and of their average."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.modeling import build_model

from retinanet_ext.engine.evaluating.run import measure, share_buffers
from retinanet_ext.engine.optim.ema import ModelEMA
from retinanet_ext.engine.trainer import RetinaNetTrainer
from retinanet_ext.evaluation.val_loss import build_val_loss_loader, validation_losses
from tests.helpers.two_ranks import run_on_two_ranks


@pytest.fixture
def model(cfg):
    torch.manual_seed(0)
    return build_model(cfg)


def other_average(model) -> ModelEMA:
    """An average that differs from the weights."""
    ema = ModelEMA(model)
    for x in ema.averages.values():
        x.mul_(1.01)
    return ema


def test_without_keys_it_is_what_the_trainer_measures(cfg, model):
    results = {"bbox": {"AP": 1.0}}
    assert measure(cfg, model, lambda *args: results) is results
    assert results == {"bbox": {"AP": 1.0}}


def test_losses_and_averages_stand_beside_the_metrics(cfg, model):
    cfg.TEST.VAL_LOSS = True
    ema = other_average(model)
    before = copy.deepcopy(model.state_dict())
    flat = flatten_results_dict(measure(cfg, model, RetinaNetTrainer.test, ema))
    names = {"bbox/AP", "val_loss/total", "val_loss/cls", "val_loss/box_reg"}
    assert names <= flat.keys() and {f"ema/{name}" for name in names} <= flat.keys()
    loader = build_val_loss_loader(cfg, cfg.DATASETS.TEST[0])
    assert flat["val_loss/cls"] == validation_losses(model, loader)["cls"]
    with ema.applied():
        assert flat["ema/val_loss/cls"] == validation_losses(model, loader)["cls"]
    assert flat["ema/val_loss/cls"] != flat["val_loss/cls"]
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    # The predictions of the two do not overwrite each other.
    output = Path(cfg.OUTPUT_DIR)
    kinds = [sorted(x.name for x in (output / y).iterdir()) for y in ("inference", "ema/inference")]
    assert kinds[0] == kinds[1] != []


def test_of_several_sets_each_has_its_loss(cfg, model):
    cfg.TEST.VAL_LOSS = True
    cfg.DATASETS.TEST = ("tiny_val", "tiny_train")
    results = {name: {"bbox": {"AP": 1.0}} for name in cfg.DATASETS.TEST}
    flat = flatten_results_dict(measure(cfg, model, lambda *args: results))
    assert {"tiny_val/bbox/AP", "tiny_val/val_loss/total", "tiny_train/val_loss/cls"} <= set(flat)
    assert flat["tiny_val/val_loss/total"] != flat["tiny_train/val_loss/total"]


def normalized(rank):
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2))
    torch.manual_seed(rank)
    model(torch.rand(3, 1, 4, 4))
    before = model[1].running_mean.clone()
    share_buffers(model)
    share_buffers(model)
    return before.tolist(), model[1].running_mean.tolist()


def test_all_processes_evaluate_with_the_statistics_of_the_main_one():
    (main, kept), (other, received) = run_on_two_ranks(normalized)
    assert main != other
    assert kept == received == main
