"""Lengths in epochs and the learning rate of a batch size become what Detectron2 reads."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice

import pytest
from detectron2.data import DatasetCatalog, build_detection_train_loader
from detectron2.engine import DefaultTrainer

from retinanet_ext import get_cfg, load_config_file, validate_cfg
from retinanet_ext.engine.optim.schedule import (
    count_training_images,
    resolve_epochs,
    scale_learning_rate,
)

LENGTHS = ("MAX_ITER", "STEPS", "WARMUP_ITERS", "CHECKPOINT_PERIOD")


@pytest.fixture
def cfg():
    """12 epochs in batches of 4, everything in epochs."""
    cfg = get_cfg()
    solver = cfg.SOLVER
    solver.IMS_PER_BATCH, solver.EPOCHS, solver.STEPS_EPOCHS = 4, 12, (8, 11)
    solver.WARMUP_EPOCHS, solver.CHECKPOINT_EPOCHS, cfg.TEST.EVAL_EPOCHS = 0.5, 1, 2
    cfg.MODEL.META_ARCHITECTURE = "RetinaNetExt"
    cfg.DATASETS.TRAIN = ("epochs_train",)
    return cfg


@pytest.fixture
def register() -> Iterator[Callable[[list], None]]:
    """Register a list of annotations per image as the dataset ``epochs_train``."""

    def add(annotations: list) -> None:
        dicts = [{"file_name": "x.jpg", "image_id": i, "height": 8, "width": 8} for i in range(99)]
        zipped = zip(dicts, annotations, strict=False)
        dataset = [{**image, "annotations": own} for image, own in zipped]
        DatasetCatalog.register("epochs_train", lambda: dataset)

    yield add
    DatasetCatalog.remove("epochs_train")


def lengths(cfg) -> tuple:
    return (*(cfg.SOLVER[key] for key in LENGTHS), cfg.TEST.EVAL_PERIOD)


def test_epochs_become_iterations_rounded_up(cfg):
    resolve_epochs(cfg, 10)  # 2.5 iterations each
    assert lengths(cfg) == (30, (20, 28), 2, 3, 5)


def test_a_decimal_number_of_epochs_is_taken_as_written(cfg):
    cfg.SOLVER.EPOCHS, cfg.SOLVER.STEPS_EPOCHS, cfg.SOLVER.WARMUP_EPOCHS = 1.1, (), 0.1
    cfg.SOLVER.IMS_PER_BATCH = 1
    resolve_epochs(cfg, 30)  # in floats 1.1 * 30 is above 33, and 0.1 * 30 above 3
    assert lengths(cfg)[:3] == (33, (), 3)


def test_one_line_says_all_of_it(cfg, caplog):
    with caplog.at_level(logging.INFO, logger="retinanet_ext"):
        resolve_epochs(cfg, 10)
    assert [record.message for record in caplog.records] == [
        "12 epochs of 10 images in batches of 4: 30 iterations, 2.5 per epoch; warm-up 2, steps at "
        "20, 28, checkpoint every 3, evaluation every 5"
    ]


@pytest.mark.parametrize("workers", [2, 4])
def test_a_number_of_workers_that_scales_the_batch_keeps_the_epochs(cfg, workers):
    bigger = cfg.clone()
    bigger.SOLVER.IMS_PER_BATCH = 4 * workers
    cfg.SOLVER.REFERENCE_WORLD_SIZE = 1
    resolve_epochs(cfg, 160)
    resolve_epochs(bigger, 160)
    scaled = DefaultTrainer.auto_scale_workers(cfg, workers)
    assert scaled.SOLVER.IMS_PER_BATCH == bigger.SOLVER.IMS_PER_BATCH
    assert lengths(scaled) == lengths(bigger)


def test_without_epochs_nothing_changes(caplog):
    cfg = get_cfg()
    with caplog.at_level(logging.INFO, logger="retinanet_ext"):
        resolve_epochs(cfg, 10)
    assert cfg == get_cfg() and not caplog.records


def test_what_is_in_iterations_stays_beside_epochs(cfg):
    solver = cfg.SOLVER
    solver.STEPS_EPOCHS, solver.WARMUP_EPOCHS, solver.CHECKPOINT_EPOCHS = (), None, 0
    solver.STEPS, solver.WARMUP_ITERS, solver.CHECKPOINT_PERIOD = (7, 9), 3, 11
    resolve_epochs(cfg, 10)
    assert lengths(cfg) == (30, (7, 9), 3, 11, 5)


def test_detectron2s_own_steps_are_no_steps(cfg):
    cfg.SOLVER.STEPS_EPOCHS = ()
    assert get_cfg().SOLVER.STEPS == (30000,)
    validate_cfg(cfg)
    resolve_epochs(cfg, 200000)
    assert cfg.SOLVER.MAX_ITER > 30000 and cfg.SOLVER.STEPS == ()


def test_iterations_that_differ_are_refused_until_they_are_taken_back(cfg):
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS = 90000, (60000, 80000)
    validate_cfg(cfg)
    words = (
        r"SOLVER.EPOCHS 12 makes SOLVER.MAX_ITER 30, but it is 90000; SOLVER.STEPS_EPOCHS \(8, 11\)"
        r" makes SOLVER.STEPS \(20, 28\), but it is \(60000, 80000\). .*set them to 0, or STEPS"
    )
    with pytest.raises(ValueError, match=words):
        resolve_epochs(cfg, 10)
    assert cfg.SOLVER.MAX_ITER == 90000
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS = 0, ()
    validate_cfg(cfg)
    resolve_epochs(cfg, 10)
    assert lengths(cfg) == (30, (20, 28), 2, 3, 5)


def test_the_config_that_a_run_saved_resolves_to_the_same(cfg, tmp_path):
    resolve_epochs(cfg, 10)
    (tmp_path / "config.yaml").write_text(cfg.dump())
    again = get_cfg()
    load_config_file(again, tmp_path / "config.yaml")
    validate_cfg(again)
    resolve_epochs(again, 10)
    assert again.SOLVER == cfg.SOLVER and again.TEST.EVAL_PERIOD == cfg.TEST.EVAL_PERIOD
    with pytest.raises(ValueError, match=r"makes SOLVER.MAX_ITER 60, but it is 30"):
        resolve_epochs(again, 20)


def test_lengths_that_do_not_fit_together_are_refused_once_they_are_known(cfg):
    cfg.SOLVER.WARMUP_EPOCHS = None
    validate_cfg(cfg)
    with pytest.raises(ValueError, match=r"WARMUP_ITERS is 1000 with SOLVER.MAX_ITER 30"):
        resolve_epochs(cfg, 10)


def test_no_images_are_refused(cfg):
    with pytest.raises(ValueError, match="has 0 images"):
        resolve_epochs(cfg, 0)
    cfg.DATASETS.TRAIN = ()
    with pytest.raises(ValueError, match=r"DATASETS.TRAIN is empty"):
        count_training_images(cfg)


@pytest.mark.parametrize("filtered, images", [(True, 3), (False, 5)])
def test_counts_the_images_that_the_loader_draws_from(cfg, register, filtered, images):
    thing, crowd = {"category_id": 0, "iscrowd": 0}, {"category_id": 0, "iscrowd": 1}
    register([[thing], [], [crowd], [crowd, thing], [{"category_id": 0}]])
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = filtered
    assert count_training_images(cfg) == images
    cfg.DATALOADER.NUM_WORKERS, cfg.DATALOADER.ASPECT_RATIO_GROUPING = 0, False
    cfg.SOLVER.IMS_PER_BATCH = 1
    loader = build_detection_train_loader(cfg, mapper=dict)
    two_epochs = Counter(batch[0]["image_id"] for batch in islice(loader, 2 * images))
    assert list(two_epochs.values()) == [2] * images


def test_a_random_subset_is_an_epoch(cfg, register):
    register([[{"category_id": 0}]] * 9)
    cfg.DATALOADER.SAMPLER_TRAIN = "RandomSubsetTrainingSampler"
    cfg.DATALOADER.RANDOM_SUBSET_RATIO = 0.5
    assert count_training_images(cfg) == 4


def test_images_that_a_sampler_repeats_count_once(cfg, register):
    register([*[[{"category_id": 0}]] * 8, [{"category_id": 1}]])
    cfg.DATALOADER.SAMPLER_TRAIN = "RepeatFactorTrainingSampler"
    cfg.DATALOADER.REPEAT_THRESHOLD = 0.9
    assert count_training_images(cfg) == 9


def test_the_learning_rate_follows_the_batch(caplog):
    cfg = get_cfg()
    cfg.SOLVER.BASE_LR, cfg.SOLVER.BASE_LR_END = 0.01, 0.001
    cfg.SOLVER.BASE_LR_BATCH, cfg.SOLVER.IMS_PER_BATCH = 16, 4
    with caplog.at_level(logging.INFO, logger="retinanet_ext"):
        scale_learning_rate(cfg)
        scale_learning_rate(cfg)
    rates = [cfg.SOLVER.BASE_LR, cfg.SOLVER.BASE_LR_END]
    assert rates == pytest.approx([0.0025, 0.00025])
    assert [record.message for record in caplog.records] == [
        "learning rate 0.01 for batches of 16, times 4/16 by the linear scaling rule "
        "(arXiv 1706.02677): BASE_LR 0.0025"
    ]


@pytest.mark.parametrize("meant_for", [0, 16])
def test_the_learning_rate_stays_where_there_is_nothing_to_scale(meant_for):
    cfg = get_cfg()
    cfg.SOLVER.BASE_LR_BATCH = meant_for
    before = cfg.clone()
    scale_learning_rate(cfg)
    assert cfg == before
