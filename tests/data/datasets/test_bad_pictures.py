"""DATALOADER.ON_ERROR goes for pictures that are met early, too; evaluation leaves none out."""

from __future__ import annotations

import logging
import os

import pytest
from detectron2.data import DatasetCatalog

from retinanet_ext import get_cfg
from retinanet_ext.data.datasets import bad_pictures
from retinanet_ext.data.datasets.by_path import register_extra_datasets
from retinanet_ext.data.datasets.check import check_datasets
from tests.helpers.four_formats import some_pictures, write

NAMES = ["ant", "bee", "cat"]
FOLDERS = {"voc": "JPEGImages", "yolo": "images", "csv": "pictures"}

pytestmark = pytest.mark.usefixtures("cache_dir", "clean_catalogs")


@pytest.fixture(params=FOLDERS)
def data(request, tmp_path):
    """The folder of a dataset, with one picture that is missing or broken."""
    kind = request.param
    flag = write(kind, tmp_path, some_pictures(20), NAMES)
    bad = tmp_path / FOLDERS[kind] / "p03.png"
    bad.unlink()
    if kind != "voc":  # whose sizes are in the xml
        bad.write_bytes(b"no picture")
    if kind == "yolo":
        flag = str(tmp_path / "data.yaml")
    return flag


def config(flag, on_error, train=("mine",), test=(), **fields):
    cfg = get_cfg()
    cfg.DATASETS.EXTRA = [{"NAME": "mine", "ANNOTATIONS": flag, **fields}]
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = train, test
    cfg.DATALOADER.ON_ERROR = on_error
    return cfg


def names_of(name):
    return [os.path.basename(record["file_name"]) for record in DatasetCatalog.get(name)]


def test_fail_names_the_picture_and_the_fix(data):
    words = r"'mine': 1 picture of 20 .*p03\.png: .*; fix or remove it, or set DATALOADER\.ON_ERROR"
    with pytest.raises((ValueError, OSError), match=words):
        register_extra_datasets(config(data, "fail"))


def test_skip_leaves_it_out_with_a_warning(data, caplog):
    with caplog.at_level(logging.WARNING):
        register_extra_datasets(config(data, "skip"))
    assert len(names_of("mine")) == 19 and "p03.png" not in names_of("mine")
    assert [m for m in caplog.messages if "p03.png" in m and "left out, as DATALOADER" in m]


def test_an_evaluation_leaves_none_out(data):
    for train in ((), ("other",)):
        with pytest.raises((ValueError, OSError), match=r"p03\.png.*: evaluation leaves none out"):
            register_extra_datasets(config(data, "skip", train, ("mine",)))


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_part_that_was_split_off_is_without_it(data, part):
    register_extra_datasets(config(data, "skip", SPLIT=part))
    assert "p03.png" not in names_of("mine")


def test_too_many_are_an_error_all_the_same(data, monkeypatch):
    monkeypatch.setattr(bad_pictures, "MIN_BAD_FILES", 1)
    with pytest.raises((ValueError, OSError), match=r"too many to be left out.*more than 1%"):
        register_extra_datasets(config(data, "skip"))


@pytest.mark.parametrize("kind", ["coco", *FOLDERS])
def test_no_picture_at_all_is_an_error_before_training(kind, tmp_path):
    flag = write(kind, tmp_path, some_pictures(3), NAMES)
    for path in (tmp_path / FOLDERS.get(kind, "pictures")).iterdir():
        path.unlink()
    annotations, _, images = flag.partition(":")
    fields = {"IMAGES": images} if images else {}
    with pytest.raises(
        FileNotFoundError, match=r"there is no image|no image in|none of its 3 pict"
    ):
        register_extra_datasets(config(annotations, "skip", **fields))


@pytest.mark.parametrize("kind", ["coco", *FOLDERS])
def test_skip_goes_for_the_validation_part_of_every_format(kind, tmp_path):
    flag = write(kind, tmp_path, some_pictures(20), NAMES)
    folder = tmp_path / FOLDERS.get(kind, "pictures")
    annotations, _, images = flag.partition(":")
    fields = {"IMAGES": images} if images else {}
    register_extra_datasets(config(annotations, "skip", SPLIT="val", **fields))
    before = names_of("mine")
    (folder / before[0]).write_bytes(b"no picture")
    register_extra_datasets(config(annotations, "skip", SPLIT="val", **fields))
    assert names_of("mine") == before[1:]


@pytest.mark.parametrize("kind", ["coco", *FOLDERS])
def test_what_an_evaluation_will_not_find_is_said_before_training(kind, tmp_path):
    flag = write(kind, tmp_path, some_pictures(), NAMES)
    annotations, _, images = flag.partition(":")
    cfg = config(annotations, "skip", (), ("mine",), **({"IMAGES": images} if images else {}))
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.RETINANET.NUM_CLASSES = "RetinaNetExt", 3
    register_extra_datasets(cfg)
    check_datasets(cfg)
    (tmp_path / FOLDERS.get(kind, "pictures") / "p03.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"'mine': 1 of 6 pictures are not there.*p03\.png"):
        check_datasets(cfg)
