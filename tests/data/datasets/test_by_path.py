"""Datasets of a config: registered with classes and metadata, evaluated, checked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts

from retinanet_ext import get_cfg, load_config_file, validate_cfg
from retinanet_ext.data.datasets import by_path
from retinanet_ext.data.datasets.by_path import register_extra_datasets
from retinanet_ext.data.datasets.check import check_datasets
from retinanet_ext.data.datasets.register import load_class_names, register_coco_dataset
from retinanet_ext.engine.records.provenance import dataset_fingerprint
from retinanet_ext.evaluation.ground_truth import ground_truth_json
from retinanet_ext.protocols import LazyDataset
from tests.helpers.four_formats import FORMATS, Picture, some_pictures, write

NAMES = ["ant", "bee", "cat"]

pytestmark = pytest.mark.usefixtures("cache_dir", "clean_catalogs")


def row(name, flag, **fields):
    annotations, _, images = flag.partition(":")
    return {"NAME": name, "ANNOTATIONS": annotations, **({"IMAGES": images} if images else {})} | (
        fields
    )


def config(*rows, train=("mine",), test=()) -> CfgNode:
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "RetinaNetExt"
    cfg.MODEL.RETINANET.NUM_CLASSES = 3
    cfg.DATASETS.EXTRA = list(rows)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = train, test
    return cfg


@pytest.mark.parametrize("kind", FORMATS)
def test_a_dataset_of_a_yaml_file_is_registered_and_passes_the_checks(kind, tmp_path):
    rows = [row("mine", write(kind, tmp_path / "data", some_pictures(), NAMES))]
    datasets = {"EXTRA": rows, "TRAIN": ["mine"], "TEST": ["mine"]}
    model = {"META_ARCHITECTURE": "RetinaNetExt", "RETINANET": {"NUM_CLASSES": 3}}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"MODEL": model, "DATASETS": datasets, "VERSION": 2}))
    cfg = get_cfg()
    load_config_file(cfg, path)
    validate_cfg(cfg)
    assert register_extra_datasets(cfg) == ["mine"]
    check_datasets(cfg)
    assert load_class_names("mine") == MetadataCatalog.get("mine").thing_classes == NAMES
    assert len(get_detection_dataset_dicts("mine", filter_empty=True)) == 5
    assert len(get_detection_dataset_dicts("mine", filter_empty=False)) == 6
    assert get_cfg().merge_from_other_cfg(cfg) is None  # and its dump is safe yaml
    assert yaml.safe_load(cfg.dump())["DATASETS"]["EXTRA"] == rows


@pytest.mark.parametrize("kind", FORMATS)
def test_a_fingerprint_follows_the_boxes_and_not_the_place(kind, tmp_path):
    found, pictures = [], some_pictures()
    for place, shown in (("a", pictures), ("b", pictures), ("c", pictures[:-1])):
        register_extra_datasets(config(row("mine", write(kind, tmp_path / place, shown, NAMES))))
        found.append(dataset_fingerprint("mine"))
    assert [x["images"] for x in found] == [6, 6, 5]
    assert all(len(x["sha256"]) == 64 for x in found)
    assert found[2]["sha256"] != found[0]["sha256"] == found[1]["sha256"]


@pytest.mark.parametrize("kind", FORMATS)
def test_the_ground_truth_of_an_evaluation_is_the_same_in_every_format(kind, tmp_path):
    pictures = some_pictures()
    register_extra_datasets(config(row("mine", write(kind, tmp_path, pictures, NAMES))))
    with ground_truth_json("mine", str(tmp_path / "out")):
        metadata = MetadataCatalog.get("mine")
        content = json.loads(Path(metadata.json_file).read_text())
        ids = metadata.get("thing_dataset_id_to_contiguous_id") or {i: i for i in range(3)}
    assert ("boxes.json" in metadata.get("json_file", "")) == (kind == "coco")
    found = [
        (a["image_id"], NAMES[ids[a["category_id"]]], pytest.approx(a["bbox"], abs=2e-3))
        for a in content["annotations"]
    ]
    assert found == [
        (i, label, [x1, y1, x2 - x1, y2 - y1])
        for i, p in enumerate(pictures, 1)
        for label, x1, y1, x2, y2 in p.boxes
    ]
    assert [image["id"] for image in content["images"]] == list(range(1, 7))


@pytest.mark.parametrize(
    "change",
    [
        {"DROP_CLASSES": ["bee"]},
        {"CLASSES": ["cat", "bee", "ant"]},
        {"MERGE_CLASSES": [["x", "ant", "cat"]]},
    ],
)
def test_a_json_whose_classes_are_changed_is_not_the_ground_truth(tmp_path, change):
    cfg = config(row("mine", write("coco", tmp_path, some_pictures(), NAMES)))
    register_extra_datasets(cfg)
    assert MetadataCatalog.get("mine").get("json_file") == str(tmp_path / "boxes.json")
    cfg.merge_from_list([x for key, value in change.items() for x in (f"DATASETS.{key}", value)])
    register_extra_datasets(cfg)
    assert MetadataCatalog.get("mine").get("json_file") is None
    with ground_truth_json("mine", str(tmp_path / "out")) as dicts:
        content = json.loads(Path(MetadataCatalog.get("mine").json_file).read_text())
    assert len(content["annotations"]) == sum(len(d["annotations"]) for d in dicts)
    assert [c["name"] for c in content["categories"]] == load_class_names("mine")


def test_boxes_of_dropped_classes_are_gone_and_their_images_stay(tmp_path):
    pictures = [Picture("a.png", 40, 40, [("ant", 1, 1, 5, 5)]), *some_pictures(2)]
    cfg = config(row("mine", write("coco", tmp_path, pictures, NAMES)))
    cfg.DATASETS.DROP_CLASSES = ["ant"]
    register_extra_datasets(cfg)
    classes = [[a["category_id"] for a in d["annotations"]] for d in DatasetCatalog.get("mine")]
    assert classes == [[], [0, 1], []]


def test_the_parts_of_a_split_share_classes_and_are_read_once(tmp_path, monkeypatch):
    pictures = some_pictures(12)
    pictures[0].boxes.append(("dog", 1, 1, 9, 9))
    flag = write("csv", tmp_path, pictures, NAMES)
    read = []
    monkeypatch.setattr(by_path, "read_cached", lambda *a: read.append(1) or ORIGINAL(*a))
    rows = [row("a", flag, SPLIT="train"), row("b", flag, SPLIT="val")]
    cfg = config(*rows, train=("a",), test=("b",))
    register_extra_datasets(cfg)
    parts = [{d["file_name"] for d in DatasetCatalog.get(name)} for name in "ab"]
    assert not parts[0] & parts[1] and len(parts[0] | parts[1]) == 12 and all(parts)
    assert load_class_names("a") == load_class_names("b") == [*NAMES, "dog"]
    assert len(read) == 1


ORIGINAL = by_path.read_cached


def test_evaluation_alone_has_the_classes_of_training_too(tmp_path):
    val = [Picture("v.png", 40, 40, [("cat", 1, 1, 5, 5)])]
    rows = [
        row("a", write("voc", tmp_path / "train", some_pictures(), NAMES)),
        row("b", write("voc", tmp_path / "val", val, NAMES)),
    ]
    assert register_extra_datasets(config(*rows), names=["b"]) == ["b"]
    assert load_class_names("b") == NAMES and "a" not in DatasetCatalog
    # Where the classes are known otherwise, the training set may be gone.
    rows[0]["ANNOTATIONS"] = "/gone"
    cfg = config(*rows)
    with pytest.raises(FileNotFoundError, match=r"dataset 'a': .*/gone"):
        register_extra_datasets(cfg, names=["b"])
    cfg.DATASETS.CLASSES = NAMES
    register_extra_datasets(cfg, names=["b"])
    assert DatasetCatalog.get("b")[0]["annotations"][0]["category_id"] == 2


def test_datasets_that_nobody_asks_for_are_not_read(tmp_path):
    rows = [row("a", write("coco", tmp_path, some_pictures(), NAMES)), row("b", "/gone")]
    assert register_extra_datasets(config(*rows), names=["a"]) == ["a"]
    assert register_extra_datasets(config(*rows), names=[]) == []


def test_a_name_is_registered_anew_with_other_classes(tmp_path):
    flag = write("voc", tmp_path, some_pictures(), NAMES)
    cfg = config(row("mine", flag))
    register_extra_datasets(cfg)
    cfg.DATASETS.CLASSES = ["bee"]
    register_extra_datasets(cfg)
    assert MetadataCatalog.get("mine").thing_classes == ["bee"]
    assert {a["category_id"] for d in DatasetCatalog.get("mine") for a in d["annotations"]} == {0}


def test_an_entry_is_a_lazy_dataset(tmp_path):
    flag = write("coco", tmp_path, some_pictures(), NAMES)
    register_extra_datasets(config(row("mine", flag)))
    assert isinstance(DatasetCatalog["mine"], LazyDataset)
    assert DatasetCatalog["mine"].origin == "config"


def test_a_name_of_someone_else_is_refused(tmp_path):
    register_coco_dataset("mine", "a.json", "a")
    with pytest.raises(ValueError, match=r"entry 'mine', but .* registered already"):
        register_extra_datasets(config(row("mine", "/x")))


def test_classes_of_several_jsons_are_matched_by_name(tmp_path):
    pictures = some_pictures()
    rows = [
        row("a", write("coco", tmp_path / "a", pictures, NAMES)),
        row("b", write("coco", tmp_path / "b", pictures, NAMES[::-1])),
    ]
    cfg = config(*rows, train=("a", "b"))
    register_extra_datasets(cfg)
    check_datasets(cfg)
    first, second = (
        [
            [(x["bbox"], x["category_id"]) for x in d["annotations"]]
            for d in DatasetCatalog.get(name)
        ]
        for name in "ab"
    )
    assert first == second
    assert MetadataCatalog.get("b").thing_classes == NAMES


def without(class_name, pictures):
    """The same pictures without the boxes of a class."""
    return [
        Picture(p.name, p.width, p.height, [box for box in p.boxes if box[0] != class_name])
        for p in pictures
    ]


@pytest.mark.parametrize("kind", FORMATS)
def test_a_validation_set_may_lack_a_class_of_the_training_set(kind, tmp_path):
    pictures = some_pictures()
    rows = [
        row("b", write(kind, tmp_path / "b", without("ant", pictures), ["bee", "cat"])),
        row("a", write(kind, tmp_path / "a", pictures, NAMES)),
    ]
    cfg = config(*rows, train=("a",), test=("b",))
    cfg.MODEL.RETINANET.NUM_CLASSES = 3
    register_extra_datasets(cfg)
    check_datasets(cfg)
    assert load_class_names("a") == load_class_names("b") == NAMES
    found = {x["category_id"] for d in DatasetCatalog.get("b") for x in d["annotations"]}
    assert found == {1, 2}
    # Only evaluated, it has the same classes: those of the training set, which is still there.
    DatasetCatalog.clear(), MetadataCatalog.clear()
    register_extra_datasets(cfg, ["b"])
    assert load_class_names("b") == NAMES and "a" not in DatasetCatalog


def test_a_class_that_only_validation_has_is_left_out_or_named_with_a_fix_that_works(tmp_path):
    pictures = some_pictures()
    full = write("coco", tmp_path / "b", pictures, NAMES)
    less = write("coco", tmp_path / "a", without("ant", pictures), ["bee", "cat"])
    cfg = config(row("a", less), row("b", full), train=("a",), test=("b",))
    with pytest.raises(ValueError, match=r"'b' has objects of class 'ant', .* of 'a' \(bee, cat\)"):
        register_extra_datasets(cfg)
    for key, names, classes in (
        ("DROP_CLASSES", ["ant"], ["bee", "cat"]),
        ("CLASSES", NAMES, NAMES),
        ("MERGE_CLASSES", [["bee", "ant"]], ["bee", "cat"]),
    ):
        fixed = cfg.clone()
        fixed.DATASETS[key] = names
        fixed.MODEL.RETINANET.NUM_CLASSES = len(classes)
        register_extra_datasets(fixed)
        check_datasets(fixed)
        assert load_class_names("a") == load_class_names("b") == classes
    # Without objects of it, the list of the validation set does not matter.
    unused = write("coco", tmp_path / "c", without("ant", pictures), NAMES)
    cfg = config(row("a", less), row("c", unused), train=("a",), test=("c",))
    register_extra_datasets(cfg)
    assert load_class_names("c") == ["bee", "cat"]


def test_a_set_that_lacks_a_class_can_be_evaluated_where_training_data_are_not(tmp_path):
    less = write("coco", tmp_path / "b", without("ant", some_pictures()), ["bee", "cat"])
    cfg = config(row("b", less), train=(), test=("b",))
    cfg.MODEL.RETINANET.NUM_CLASSES = 3
    register_extra_datasets(cfg)
    with pytest.raises(ValueError, match=r"NUM_CLASSES is 3 but .*'b' has 2 .*DATASETS\.CLASSES"):
        check_datasets(cfg)
    cfg.DATASETS.CLASSES = NAMES
    register_extra_datasets(cfg)
    check_datasets(cfg)
    assert load_class_names("b") == NAMES


def test_the_number_of_classes_is_compared_with_the_config(tmp_path):
    cfg = config(row("mine", write("voc", tmp_path, some_pictures(), NAMES)))
    cfg.MODEL.RETINANET.NUM_CLASSES = 5
    register_extra_datasets(cfg)
    with pytest.raises(ValueError, match=r"NUM_CLASSES is 5 but dataset 'mine' has 3 .*ant, bee"):
        check_datasets(cfg)


@pytest.mark.parametrize(
    "entry, words",
    [
        ("cells.json", r" is 'cells\.json', but must be"),
        ({"NAME": "a"}, r"must be \{NAME: \.\.\., ANNOTATIONS"),
        ({"NAME": "a", "ANNOTATIONS": "b", "IMAGE": "c"}, r"'IMAGE'\. Did you mean 'IMAGES'"),
        ({"NAME": "a", "ANNOTATIONS": 3}, r"ANNOTATIONS is 3, which has the wrong type"),
        ({"NAME": "a", "ANNOTATIONS": "b", "ONE_BASED": 0}, r"ONE_BASED is 0, which has the wrong"),
        ({"NAME": "a", "ANNOTATIONS": "b", "SPLIT": "test"}, r"SPLIT is 'test'; use one of train"),
        ({"NAME": "a", "ANNOTATIONS": "b", "SUBSET": "x"}, r"SUBSET is 'x'; use one of train"),
    ],
)
def test_mistakes_in_an_entry_are_named(entry, words):
    with pytest.raises(ValueError, match=rf"DATASETS\.EXTRA, entry 0.*{words}"):
        register_extra_datasets(config(entry))


def test_two_entries_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two entries with NAME 'a'"):
        register_extra_datasets(config(row("a", "x"), row("a", "y")))


def test_errors_in_the_data_name_the_dataset(tmp_path):
    (tmp_path / "a.json").write_bytes(b'{"images": "\xff"}')
    with pytest.raises(ValueError, match=r"dataset 'mine': .*a\.json is not json"):
        register_extra_datasets(config(row("mine", str(tmp_path / "a.json"))))


def test_the_cache_is_where_the_config_says(tmp_path, cache_dir):
    cfg = config(row("mine", write("csv", tmp_path / "data", some_pictures(), NAMES)))
    cfg.DATASETS.CACHE_DIR = "none"
    register_extra_datasets(cfg)
    assert not cache_dir.exists()
    for folder, key in ((cache_dir, ""), (tmp_path / "here", str(tmp_path / "here"))):
        cfg.DATASETS.CACHE_DIR = key
        register_extra_datasets(cfg)
        assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("kind", FORMATS)
def test_a_set_without_objects_is_named(kind, tmp_path):
    spec = write(
        kind, tmp_path / "data", [Picture("p0.png", 50, 40), Picture("p1.png", 50, 40)], NAMES
    )
    if kind == "yolo":
        (tmp_path / "data" / "labels" / "p0.txt").touch()
    with pytest.raises(ValueError, match=r"no object") as error:
        register_extra_datasets(cfg := config(row("mine", spec)))
        check_datasets(cfg)
    assert str(tmp_path / "data") in str(error.value)
