"""The choices together: what time and memory allow, found by measuring again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from retinanet_ext import get_cfg
from retinanet_ext.data.datasets.by_path import register_extra_datasets
from retinanet_ext.data.datasets.command_line import name_datasets
from retinanet_ext.errors import InputError
from retinanet_ext.recipe import DataFacts, Draft, Machine, Pace, Wishes, choose_recipe
from retinanet_ext.recipe.choose import FEWEST_EPOCHS
from retinanet_ext.recipe.draft import set_key
from retinanet_ext.recipe.facts import data_facts
from tests.helpers.tiny import write_dataset

PIXELS = 1e-6  # seconds of a step per pixel


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[CfgNode, DataFacts]]:
    """A config that names a small set, and its facts as if its pictures were large."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.RETINANET.NUM_CLASSES = 3
    name_datasets(cfg, str(write_dataset(tmp_path) / "bccd"), None)
    register_extra_datasets(cfg)
    facts = data_facts(cfg)
    yield cfg, replace(facts, sizes=facts.sizes * 20, images=300)
    for catalog in (DatasetCatalog, MetadataCatalog):
        for name in ("custom_train", "custom_val"):
            catalog.pop(name)


def pace_of(cfg: CfgNode, budget: float, val_images: int) -> Pace:
    """A machine whose steps take as long as their pictures are large."""
    return Pace(PIXELS * cfg.SOLVER.IMS_PER_BATCH * cfg.INPUT.MIN_SIZE_TEST**2, 1.0, 0, 5, 4)


def choose(cfg: CfgNode, data: DataFacts, minutes: float, **options: object) -> Draft:
    draft = Draft(cfg, options.pop("given", ()))  # type: ignore[arg-type]
    measure = options.pop("measure", pace_of)
    machine = Machine(**options)  # type: ignore[arg-type]
    choose_recipe(draft, data, machine, Wishes(minutes), measure, lambda: 10.0)  # type: ignore[arg-type]
    return draft


@pytest.mark.parametrize("minutes", [4, 8, 15, 60])
def test_the_command_takes_the_minutes_it_was_given(data, minutes: float):
    cfg, facts = data
    choose(cfg, facts, minutes)
    pace = replace(pace_of(cfg, 0, 0), spent=10.0)
    evaluations = -(-cfg.SOLVER.MAX_ITER // cfg.TEST.EVAL_PERIOD)
    seconds = pace.seconds(cfg.SOLVER.MAX_ITER, evaluations)
    assert 0.9 * 60 * minutes <= seconds <= 60 * minutes


def test_little_time_makes_pictures_smaller_until_the_epochs_are_enough(data):
    cfg, facts = data
    shorts = []
    for minutes in (60, 15, 10, 5):
        other = cfg.clone()
        choose(other, facts, minutes)
        short = other.INPUT.MIN_SIZE_TEST
        epochs = other.SOLVER.MAX_ITER * other.SOLVER.IMS_PER_BATCH / facts.images
        assert epochs >= FEWEST_EPOCHS or short == 256
        shorts.append(short)
    assert shorts == sorted(shorts, reverse=True) and shorts[0] > shorts[-1]


def test_a_size_of_the_users_stays_and_the_others_follow(data):
    cfg, facts = data
    set_key(cfg, "INPUT.MIN_SIZE_TEST", 512)
    choose(cfg, facts, 5, given=("INPUT.MIN_SIZE_TEST",))
    assert cfg.INPUT.MIN_SIZE_TEST == 512 <= cfg.INPUT.MAX_SIZE_TEST
    assert 512 in cfg.INPUT.MIN_SIZE_TRAIN
    set_key(cfg, "INPUT.MIN_SIZE_TRAIN", [700, 900])
    choose(cfg, facts, 60, given=("INPUT.MIN_SIZE_TRAIN",))
    assert list(cfg.INPUT.MIN_SIZE_TRAIN) == [700, 900] and cfg.INPUT.MAX_SIZE_TRAIN >= 900


def test_where_the_memory_ends_the_batch_is_halved_and_the_rate_follows(data):
    cfg, facts = data
    tried = []

    def measure(cfg: CfgNode, budget: float, val_images: int) -> Pace:
        tried.append(cfg.SOLVER.IMS_PER_BATCH)
        if cfg.SOLVER.IMS_PER_BATCH > 2:
            raise torch.OutOfMemoryError("too much")
        return Pace(0.01)

    rate = choose(cfg.clone(), facts, 15).cfg.SOLVER.BASE_LR
    draft = choose(cfg, facts, 15, measure=measure)
    assert tried == [4, 2] and pytest.approx(rate / 2**0.5, rel=0.01) == cfg.SOLVER.BASE_LR
    (row,) = [x for x in draft.choices if x.setting == "batch"]
    assert "4 did not fit" in row.reason
    assert cfg.MODEL.RESNETS.NORM == "GN"  # two pictures are too few


def test_a_batch_of_the_users_that_does_not_fit_is_an_error(data):
    cfg, facts = data
    cfg.SOLVER.IMS_PER_BATCH = 8

    def measure(*_: object) -> Pace:
        raise torch.OutOfMemoryError("too much")

    with pytest.raises(InputError, match="the memory is too small for 8 pictures"):
        choose(cfg, facts, 15, measure=measure, given=("SOLVER.IMS_PER_BATCH",))


def test_without_validation_pictures_nothing_is_evaluated(data):
    cfg, facts = data
    choose(cfg, replace(facts, val_images=0), 15)
    assert cfg.TEST.EVAL_PERIOD == 0


def test_crowded_pictures_raise_the_number_of_detections(data):
    cfg, facts = data
    choose(cfg, replace(facts, most_objects=180), 15)
    assert cfg.TEST.DETECTIONS_PER_IMAGE == 360
