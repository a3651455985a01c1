"""An evaluation by tiles and views gives what the Predictor finds, in any number of processes."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.data import transforms as T
from detectron2.modeling import build_model
from torch.nn.parallel import DistributedDataParallel

from retinanet_ext import Predictor
from retinanet_ext.data.datasets.register import register_builtin_datasets
from retinanet_ext.data.loading.pixels import PictureMapper
from retinanet_ext.engine import RetinaNetTrainer, evaluate
from retinanet_ext.engine.evaluating.pooled import PooledModel, evaluated_model
from retinanet_ext.errors import InputError
from tests.helpers.parity import spread_predictions
from tests.helpers.tiny import CLASSES, tiny_cfg
from tests.helpers.two_ranks import run_on_two_ranks

pytestmark = pytest.mark.usefixtures("clean_catalogs")

# Tiles that are smaller than what validation allows, since the pictures have 64 pixels.
TILES = {"TEST.TILES.SIZE": (48, 48)}
VIEWS = {"TEST.AUG.ENABLED": True, "TEST.AUG.MIN_SIZES": (48, 64)}


@pytest.fixture(autouse=True)
def bccd(tiny_root, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tiny_root))
    register_builtin_datasets(str(tiny_root))


def cfg_of(folder: Path, **keys: Any):
    cfg = tiny_cfg(folder, keys)
    cfg.OUTPUT_DIR = str(folder / "output")
    torch.manual_seed(0)
    model = build_model(cfg)
    spread_predictions(model)
    cfg.MODEL.WEIGHTS = str(folder / "model.pth")
    torch.save({"model": model.state_dict(), "thing_classes": list(CLASSES)}, cfg.MODEL.WEIGHTS)
    return cfg


def written(folder: Path) -> list[dict[str, Any]]:
    return json.loads(next(folder.rglob("coco_instances_results.json")).read_text())


def assert_same(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert len(found) == len(expected) > 10
    for got, wanted in zip(found, expected, strict=True):
        assert got["image_id"] == wanted["image_id"]
        assert got["category_id"] == wanted["category_id"]
        assert got["bbox"] == pytest.approx(wanted["bbox"], abs=1e-3)
        assert got["score"] == pytest.approx(wanted["score"], abs=1e-6)


@pytest.mark.parametrize("keys", [TILES, VIEWS, TILES | VIEWS], ids=["tiles", "views", "both"])
def test_detections_are_those_of_the_predictor(keys, tmp_path, tiny_root, monkeypatch):
    monkeypatch.setattr("retinanet_ext.inference.predictor.validate_cfg", lambda cfg: [])
    cfg = cfg_of(tmp_path, **keys)
    evaluate(cfg)
    predictor = Predictor(cfg)
    paths = sorted((tiny_root / "bccd" / "val").glob("*.png"))
    found = [y for x in predictor.stream(paths) for y in x.to_coco(image_id=x.index + 1)]
    assert_same(found, written(tmp_path))
    plain = Predictor(cfg_of(tmp_path))
    other = [y for x in plain.stream(paths) for y in x.to_coco(image_id=x.index + 1)]
    assert [x["score"] for x in found] != [x["score"] for x in other]


def _evaluate(rank: int, cfg, folder: Path) -> dict[str, Any]:
    own = cfg.clone()
    own.OUTPUT_DIR = str(folder)
    model = RetinaNetTrainer.build_model(own)
    state = torch.load(own.MODEL.WEIGHTS, weights_only=True)["model"]
    model.load_state_dict(state)
    return dict(RetinaNetTrainer.test(own, model))


def test_two_processes_give_the_results_of_one(tmp_path):
    cfg = cfg_of(tmp_path, **TILES, **VIEWS)
    alone = _evaluate(0, cfg, tmp_path / "alone")
    shared, nothing = run_on_two_ranks(_evaluate, cfg, tmp_path / "shared")
    assert not nothing
    assert shared["bbox"] == pytest.approx(alone["bbox"], nan_ok=True)
    first, second = written(tmp_path / "alone"), written(tmp_path / "shared")
    order = lambda x: (x["image_id"], -x["score"], x["bbox"])  # noqa: E731
    assert_same(sorted(second, key=order), sorted(first, key=order))


@pytest.mark.parametrize("keys", [TILES, VIEWS], ids=["tiles", "views"])
def test_an_evaluation_in_training_looks_the_same_way(keys, tmp_path):
    cfg = tiny_cfg(tmp_path, {**keys, "SOLVER.MAX_ITER": 2, "TEST.EVAL_PERIOD": 1})
    cfg.MODEL.RETINANET.SCORE_THRESH_TEST = 0.0
    trainer = RetinaNetTrainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    assert trainer.model.training  # as it was before the evaluation
    during = written(tmp_path / "output")
    RetinaNetTrainer.test(cfg, trainer.model)
    assert_same(written(tmp_path / "output"), during)


def test_the_model_keeps_its_mode_and_is_unwrapped(tmp_path):
    cfg = cfg_of(tmp_path, **TILES)
    model = build_model(cfg).eval()
    pooled = evaluated_model(cfg, model)
    assert isinstance(pooled, PooledModel) and pooled.model is model and not pooled.training
    assert evaluated_model(tiny_cfg(tmp_path), model) is model

    class Wrapped(DistributedDataParallel):
        def __init__(self, module):
            torch.nn.Module.__init__(self)
            self.module = module

    assert evaluated_model(cfg, Wrapped(model)).model is model


def test_a_loader_that_resizes_is_refused(tmp_path):
    cfg = cfg_of(tmp_path, **TILES)

    class Resizes(RetinaNetTrainer):
        @classmethod
        def build_test_loader(cls, cfg, dataset_name):
            mapper = PictureMapper(cfg, is_train=False, augmentations=[T.Resize((32, 32))])
            from detectron2.data import build_detection_test_loader

            return build_detection_test_loader(cfg, dataset_name, mapper=mapper)

    with pytest.raises(InputError, match="64 x 64 pixels, but the test loader gives 32 x 32"):
        Resizes.test(cfg, build_model(cfg))


def test_a_model_without_candidates_is_refused(tmp_path):
    cfg = cfg_of(tmp_path, **TILES)
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    with pytest.raises(InputError, match="which RetinaNet does not give"):
        evaluated_model(cfg, build_model(cfg))


@pytest.mark.parametrize(("size", "warns"), [((64, 64), True), ((64, 63), False)])
def test_tiles_larger_than_every_picture_are_one_warning(size, warns, tmp_path, caplog):
    cfg = cfg_of(tmp_path, **{"TEST.TILES.SIZE": size})
    model = build_model(cfg)
    with caplog.at_level(logging.WARNING, "retinanet_ext"):
        RetinaNetTrainer.test(cfg, model)
    texts = [x.getMessage() for x in caplog.records if "no picture of bccd_val" in x.getMessage()]
    assert len(texts) == warns
