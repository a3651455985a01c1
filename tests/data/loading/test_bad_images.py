"""Images that cannot be loaded: named, skipped where that is asked for, and never too many."""

import logging
import pickle
import shutil
from pathlib import Path

import pytest
from detectron2.data import DatasetFromList, build_detection_train_loader

from retinanet_ext import validate_cfg
from retinanet_ext.data.datasets.register import register_coco_dataset
from retinanet_ext.data.loading import bad_images
from retinanet_ext.data.loading.bad_images import (
    MAX_TRIES,
    MIN_BAD_FILES,
    BadImageError,
    LoadOrFail,
    LoadOrSkip,
)
from retinanet_ext.engine.trainer import RetinaNetTrainer
from tests.helpers.tiny import restored_loggers, tiny_cfg, write_dataset

BAD = "003.png"


def entries(number):
    return [
        {"file_name": f"{i}.png", "image_id": i, "width": 8, "height": 8} for i in range(number)
    ]


class Fails:
    """A mapper that fails for some images."""

    def __init__(self, *bad):
        self.bad = {f"{i}.png" for i in bad}

    def __call__(self, dataset_dict):
        if dataset_dict["file_name"] in self.bad:
            raise OSError("image file is truncated\n(3 bytes left)")
        return dict(dataset_dict)


def draw(mapper, dataset, rounds=1):
    return [mapper(entry) for _ in range(rounds) for entry in dataset]


def test_an_error_names_the_file_and_the_way_out():
    load = LoadOrFail(Fails(2), "mend it")
    assert load(entries(2)[1]) == entries(2)[1]
    with pytest.raises(BadImageError) as caught:
        load(entries(3)[2])
    assert str(caught.value) == (
        "cannot load 2.png: OSError: image file is truncated (3 bytes left); mend it"
    )
    assert isinstance(caught.value.__cause__, OSError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_an_error_without_text_or_file_name_is_told_too():
    def fails(dataset_dict):
        raise AssertionError

    with pytest.raises(BadImageError, match=r"load the image with id 7: AssertionError; x$"):
        LoadOrFail(fails, "x")({"image_id": 7})


def test_out_of_memory_is_not_the_images_fault():
    def fails(dataset_dict):
        raise MemoryError

    for load in (LoadOrFail(fails, ""), LoadOrSkip(fails, entries(2))):
        with pytest.raises(MemoryError):
            load(entries(1)[0])


def test_another_image_is_taken_and_each_file_logged_once(caplog):
    dataset = entries(20)
    load = LoadOrSkip(Fails(3, 5), dataset)
    with caplog.at_level(logging.WARNING):
        found = draw(load, dataset, rounds=3)
    assert len(found) == 60
    names = {x["file_name"] for x in found}
    assert names.isdisjoint({"3.png", "5.png"}) and names <= {x["file_name"] for x in dataset}
    assert load.bad_files == {"3.png", "5.png"} and load.num_bad >= 6
    assert load.num_drawn == 60 + load.num_bad
    assert len(caplog.messages) == 2
    assert caplog.messages[0].startswith("cannot load 3.png: OSError: image file is truncated")
    assert "DATALOADER.ON_ERROR" in caplog.messages[0]


def test_good_images_come_as_without_it():
    dataset = entries(5)
    assert draw(LoadOrSkip(Fails(), dataset), dataset) == dataset


def test_a_few_files_never_stop_it_however_often_they_are_drawn():
    dataset = entries(40)
    load = LoadOrSkip(Fails(*range(MIN_BAD_FILES - 1)), dataset)
    draw(load, dataset, rounds=10)
    assert load.num_bad > 0.1 * load.num_drawn


def test_more_than_one_percent_stop_it():
    dataset = entries(1000)
    load = LoadOrSkip(Fails(*range(0, 1000, 20)), dataset)  # 5%
    with pytest.raises(BadImageError, match=r"^\d+ of \d+ images .* more than 1%; the last: "):
        draw(load, dataset)
    assert len(load.bad_files) == MIN_BAD_FILES


def test_one_percent_does_not_stop_it():
    dataset = entries(3000)
    load = LoadOrSkip(Fails(*range(199, 3000, 200)), dataset)  # 0.5%
    draw(load, dataset, rounds=2)
    assert len(load.bad_files) == 15


def test_a_data_set_without_good_images_ends(caplog):
    dataset = entries(3)
    load = LoadOrSkip(Fails(0, 1, 2), dataset)
    with pytest.raises(BadImageError, match=rf"^{MAX_TRIES} images in a row .* load \d\.png"):
        load(dataset[0])


@pytest.fixture(scope="module")
def good_root(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("datasets"))


@pytest.fixture
def cfg(good_root, tmp_path, request):
    """The tiny config, with one training image and one test image cut short."""
    root = shutil.copytree(good_root, tmp_path / "data") / "bccd"
    for split in ("train", "val"):
        path = root / split / BAD
        path.write_bytes(path.read_bytes()[:60])
        name = f"bad_{request.node.name}_{split}"
        register_coco_dataset(name, root / "annotations" / f"instances_{split}.json", root / split)
    with restored_loggers():
        cfg = tiny_cfg(tmp_path)
        cfg.DATASETS.TRAIN = (name.replace("_val", "_train"),)
        cfg.DATASETS.TEST = (name,)
        yield cfg


def take(loader, batches):
    return [sample for _, batch in zip(range(batches), loader, strict=False) for sample in batch]


def one_sentence(error):
    text = str(error)
    assert "\n" not in text and "Traceback" not in text
    return text


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_training_loader_fails_in_one_sentence(cfg, num_workers, caplog):
    caplog.set_level("DEBUG", logger="retinanet_ext.data.loading.bad_images")
    cfg.DATALOADER.NUM_WORKERS = num_workers
    with pytest.raises(BadImageError) as caught:
        take(RetinaNetTrainer.build_train_loader(cfg), 4)
    text = one_sentence(caught.value)
    assert text.startswith("cannot load ") and f"train/{BAD}: " in text
    assert text.endswith("or set DATALOADER.ON_ERROR to skip")
    assert ("Traceback" in caplog.text) == (num_workers > 0)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_training_loader_skips_where_it_is_asked_to(cfg, num_workers):
    cfg.DATALOADER.NUM_WORKERS, cfg.DATALOADER.ON_ERROR = num_workers, "skip"
    samples = take(RetinaNetTrainer.build_train_loader(cfg), 7)
    assert len(samples) == 28 and all("ignore_boxes" in x for x in samples)
    names = {Path(x["file_name"]).name for x in samples}
    assert BAD not in names and len(names) == 11


def test_evaluation_never_skips(cfg):
    cfg.DATALOADER.ON_ERROR = "skip"
    with pytest.raises(BadImageError) as caught:
        list(RetinaNetTrainer.build_test_loader(cfg, cfg.DATASETS.TEST[0]))
    assert f"val/{BAD}: " in one_sentence(caught.value)


def test_samplers_and_groups_of_detectron2_work_with_skipping(cfg):
    cfg.DATALOADER.ON_ERROR, cfg.DATALOADER.ASPECT_RATIO_GROUPING = "skip", True
    cfg.DATALOADER.SAMPLER_TRAIN = "RepeatFactorTrainingSampler"
    cfg.DATALOADER.REPEAT_THRESHOLD = 0.5
    assert len(take(RetinaNetTrainer.build_train_loader(cfg), 2)) == 8


def test_skipping_also_works_in_another_projects_loader():
    dataset = DatasetFromList(entries(20))
    loader = build_detection_train_loader(
        dataset, mapper=LoadOrSkip(Fails(1), dataset), total_batch_size=4, num_workers=0
    )
    assert all(x["file_name"] != "1.png" for x in take(loader, 10))


def test_unknown_values_are_refused(cfg):
    cfg.DATALOADER.ON_ERROR = "ignore"
    with pytest.raises(ValueError, match=r"DATALOADER\.ON_ERROR is 'ignore'.*fail, skip"):
        validate_cfg(cfg)


def test_the_documented_limits_are_those_of_the_code():
    assert (bad_images.MAX_BAD_SHARE, MIN_BAD_FILES) == (0.01, 10)
