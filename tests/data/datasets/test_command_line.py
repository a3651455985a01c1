"""--train and --val become entries of the config, which then repeats them without flags."""

from __future__ import annotations

import pytest
import yaml
from detectron2.data import DatasetCatalog

from retinanet_ext import get_cfg
from retinanet_ext.data.datasets.by_path import register_extra_datasets
from retinanet_ext.data.datasets.command_line import name_datasets, split_flag
from tests.helpers.four_formats import FORMATS, Picture, some_pictures, write, write_images

NAMES = ["ant", "bee", "cat"]

pytestmark = pytest.mark.usefixtures("cache_dir", "clean_catalogs")


@pytest.fixture
def cfg():
    cfg = get_cfg()
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("old_train",), ("old_val",)
    return cfg


def names_of(name):
    return {record["file_name"].rsplit("/", 1)[1] for record in DatasetCatalog.get(name)}


@pytest.mark.parametrize("kind", FORMATS)
def test_both_flags_name_the_datasets(kind, tmp_path, cfg):
    flags = [write(kind, tmp_path / x, some_pictures(n), NAMES) for x, n in (("a", 4), ("b", 3))]
    name_datasets(cfg, *flags)
    assert (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST) == (("custom_train",), ("custom_val",))
    assert [row["FORMAT"] for row in cfg.DATASETS.EXTRA] == [kind, kind]
    register_extra_datasets(cfg)
    assert (len(names_of("custom_train")), len(names_of("custom_val"))) == (4, 3)


@pytest.mark.parametrize("kind", FORMATS)
def test_one_flag_is_split_alike_in_every_format(kind, tmp_path, cfg):
    name_datasets(cfg, write(kind, tmp_path, some_pictures(20), NAMES), None)
    cfg.DATASETS.VAL_FRACTION = 0.4
    register_extra_datasets(cfg)
    train, val = names_of("custom_train"), names_of("custom_val")
    assert not train & val and len(train | val) == 20
    assert val == SPLIT


# Of p00.png to p19.png, with seed 0 and 0.4: see test_split.py for where the side comes from.
SPLIT = {f"p{i:02d}.png" for i in (2, 4, 8, 9, 10, 12, 14)}


def test_nothing_is_split_off_at_fraction_zero(tmp_path, cfg):
    cfg.DATASETS.VAL_FRACTION = 0.0
    name_datasets(cfg, write("coco", tmp_path, some_pictures(), NAMES), None)
    assert (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST) == (("custom_train",), ())
    assert len(cfg.DATASETS.EXTRA) == 1


def test_a_data_yaml_brings_its_own_validation_list(tmp_path, cfg):
    write("yolo", tmp_path, some_pictures(), NAMES)
    write_images(tmp_path / "val" / "images", [Picture("v.png", 40, 30)])
    (tmp_path / "val" / "labels").mkdir()
    (tmp_path / "val" / "labels" / "v.txt").write_text("2 0.5 0.5 0.5 0.5")
    path = tmp_path / "data.yaml"
    path.write_text(yaml.safe_dump({"names": NAMES, "train": "images", "val": "val/images"}))
    for flags in ((str(tmp_path), None), (str(path), str(tmp_path))):
        name_datasets(cfg, *flags)
        register_extra_datasets(cfg)
        assert (len(names_of("custom_train")), names_of("custom_val")) == (6, {"v.png"})


def test_validation_alone_leaves_training_as_it_is(tmp_path, cfg):
    name_datasets(cfg, None, write("voc", tmp_path, some_pictures(), NAMES))
    assert (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST) == (("old_train",), ("custom_val",))
    register_extra_datasets(cfg, names=cfg.DATASETS.TEST)
    assert len(names_of("custom_val")) == 6


def test_no_flags_change_nothing(cfg):
    before = cfg.dump()
    name_datasets(cfg, None, None)
    assert cfg.dump() == before
    with pytest.raises(ValueError, match="--classes goes with --train"):
        name_datasets(cfg, None, None, "classes.csv")


def test_the_config_repeats_the_flags_from_any_folder(tmp_path, cfg, monkeypatch):
    write("csv", tmp_path / "data", some_pictures(20), NAMES)
    (tmp_path / "names.txt").write_text("cat\nbee\nant\n")
    monkeypatch.chdir(tmp_path)
    name_datasets(cfg, "data/boxes.csv", None, "names.txt")
    register_extra_datasets(cfg)
    before = DatasetCatalog.get("custom_val")
    assert before[0]["annotations"][0]["category_id"] == 2
    monkeypatch.chdir("/")
    again = get_cfg()
    again.merge_from_other_cfg(type(cfg).load_cfg(cfg.dump()))
    register_extra_datasets(again)
    assert DatasetCatalog.get("custom_val") == before


def test_flags_replace_their_own_entries_and_leave_others(tmp_path, cfg):
    other = {"NAME": "other", "ANNOTATIONS": "x"}
    cfg.DATASETS.EXTRA = [{"NAME": "custom_train", "ANNOTATIONS": "old"}, other]
    name_datasets(cfg, write("csv", tmp_path, some_pictures(), NAMES), None)
    names = [row["NAME"] for row in cfg.DATASETS.EXTRA]
    assert names == ["other", "custom_train", "custom_val"]
    assert cfg.DATASETS.EXTRA[1]["ANNOTATIONS"] != "old"


@pytest.mark.parametrize(
    "value, parts",
    [
        ("a.json", ("a.json", "")),
        ("a.json:images", ("a.json", "images")),
        ("C:\\a.json", ("C:\\a.json", "")),
        ("C:\\a.json:D:\\images", ("C:\\a.json", "D:\\images")),
        ("C:/a.json:images", ("C:/a.json", "images")),
    ],
)
def test_a_flag_is_split_at_its_colon(value, parts):
    assert split_flag(value) == parts


def test_an_existing_path_with_a_colon_is_one_path(tmp_path):
    path = tmp_path / "12:30.json"
    path.write_text("")
    assert split_flag(str(path)) == (str(path), "")


@pytest.mark.parametrize("value", ["a:b:c", ":images", "a.json:", ""])
def test_other_forms_are_refused(value):
    with pytest.raises(ValueError, match=r"not of the form ANNOTATIONS\[:IMAGE_DIR\]"):
        split_flag(value)
