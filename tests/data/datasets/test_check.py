"""Checks before training: each mistake is named with dataset, file, value and way out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.structures import BoxMode

from retinanet_ext.data.datasets.check import check_datasets, check_num_classes
from retinanet_ext.data.datasets.class_counts import check_dataset_dicts

CLASSES = ["cat", "dog", "bird"]


pytestmark = pytest.mark.usefixtures("clean_catalogs")


def record(*category_ids, name="a.png", bbox=(1.0, 2.0, 3.0, 4.0), **more):
    annotations = [
        {"category_id": c, "bbox": list(bbox), "bbox_mode": BoxMode.XYWH_ABS, "iscrowd": 0, **more}
        for c in category_ids
    ]
    return {"file_name": name, "height": 9, "width": 9, "image_id": 1, "annotations": annotations}


def add_dataset(name, classes=CLASSES, dicts=None):
    dicts = [record(0, 1), record(name="empty.png")] if dicts is None else dicts
    DatasetCatalog.register(name, lambda: dicts)
    if classes is not None:
        MetadataCatalog.get(name).thing_classes = list(classes)


def make_cfg(train=("pets_train",), test=("pets_val",), num_classes=3, arch="RetinaNetExt"):
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = arch
    cfg.MODEL.RETINANET.NUM_CLASSES = num_classes
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = train, test
    return cfg


# check_dataset_dicts


def test_good_dicts_are_counted_by_class():
    dicts = [record(0, 2, 2), record(), record(np.int64(2))]
    assert check_dataset_dicts("pets", dicts, 3) == [1, 0, 3]


def test_crowds_are_checked_but_not_counted():
    assert check_dataset_dicts("pets", [record(1, iscrowd=1), record(1)], 3) == [0, 1, 0]
    with pytest.raises(ValueError, match="category_id is 3"):
        check_dataset_dicts("pets", [record(3, iscrowd=1)], 3)


def test_dicts_without_annotations_pass():
    assert check_dataset_dicts("pets", [{"file_name": "a.png"}], 2) == [0, 0]


# 3 is the one that Detectron2 takes for background without a word.
@pytest.mark.parametrize("category", [3, -1, 4, 1.0, "1", None, True, math.nan])
def test_an_impossible_class_id_is_named(category):
    dicts = [record(0, 1, 2), record(2, category, name="images/b.png")]
    with pytest.raises(ValueError) as error:
        check_dataset_dicts("pets", dicts, 3, CLASSES)
    for words in ("'pets'", "images/b.png", f"{category!r}", "0 to 2", "cat, dog, bird"):
        assert words in str(error.value)
    assert "MODEL.RETINANET.NUM_CLASSES" in str(error.value)


def test_an_image_without_file_name_is_named_by_its_id():
    with pytest.raises(ValueError, match="image 5"):
        check_dataset_dicts("pets", [{"image_id": 5, "annotations": [{"category_id": 9}]}], 3)


@pytest.mark.parametrize(
    "bbox",
    [
        [1, 2, math.nan, 4],
        [math.inf, 2, 3, 4],
        [math.inf, 2, -math.inf, 4],
        [1, 2, 3],
        [1, 2, 3, 4, 5],
        [1, 2, None, 4],
        ["1", "2", "3", "4"],
        [10**400, 2, 3, 4],
        None,
    ],
)
def test_an_impossible_box_is_named(bbox):
    bad = record(1, name="b.png")
    bad["annotations"][0]["bbox"] = bbox
    with pytest.raises(ValueError) as error:
        check_dataset_dicts("pets", [record(0), bad], 3)
    for words in ("'pets'", "b.png", str(bbox)):
        assert words in str(error.value)


def test_boxes_may_be_arrays():
    good = record(1)
    good["annotations"][0]["bbox"] = np.array([1, 2, 3, 4], dtype=np.float32)
    assert check_dataset_dicts("pets", [good], 3) == [0, 1, 0]


# check_num_classes


@pytest.mark.parametrize("arch", ["RetinaNet", "RetinaNetExt"])
def test_a_wrong_number_of_classes_comes_with_the_right_one(arch):
    add_dataset("pets_train")
    cfg = make_cfg(test=(), num_classes=80, arch=arch)
    with pytest.raises(ValueError) as error:
        check_num_classes(cfg)
    assert str(error.value) == (
        "MODEL.RETINANET.NUM_CLASSES is 80 but dataset 'pets_train' has 3 classes "
        "(cat, dog, bird); set MODEL.RETINANET.NUM_CLASSES to 3"
    )
    cfg.MODEL.RETINANET.NUM_CLASSES = 3
    check_num_classes(cfg)


def test_long_lists_of_classes_are_cut():
    add_dataset("pets_train", [f"c{i}" for i in range(11)])
    with pytest.raises(ValueError, match=r"has 11 classes \(c0, .*c9 and 1 more\); set"):
        check_num_classes(make_cfg(test=()))


def test_other_architectures_have_their_own_keys():
    add_dataset("pets_train")
    with pytest.raises(ValueError, match="NUM_CLASSES is 80"):
        check_num_classes(make_cfg(test=(), num_classes=80))
    check_num_classes(make_cfg(test=(), num_classes=80, arch="ProposalNetwork"))


@pytest.mark.parametrize(
    "classes, words",
    [
        (["cat", "bird", "dog"], "class 1 is 'dog' in the one and 'bird' in the other"),
        (["cat", "dog"], r"3 \(cat, dog, bird\) and 2 \(cat, dog\)"),
    ],
)
def test_train_and_test_must_have_the_same_classes(classes, words):
    add_dataset("pets_train")
    add_dataset("pets_val", classes)
    with pytest.raises(ValueError, match=f"'pets_train' and 'pets_val'.*{words}"):
        check_num_classes(make_cfg(arch="ProposalNetwork"))


def test_test_datasets_are_checked_without_training_datasets():
    add_dataset("pets_val")
    with pytest.raises(ValueError, match="'pets_val' has 3 classes"):
        check_num_classes(make_cfg(train=(), num_classes=4))


def test_datasets_without_class_names_pass(caplog):
    add_dataset("bare", classes=None)
    add_dataset("pets_val")
    with caplog.at_level("INFO"):
        check_num_classes(make_cfg(train=("bare",)))
    assert "'bare' has no thing_classes" in caplog.text


@pytest.mark.parametrize("check", [check_num_classes, check_datasets])
def test_an_unknown_dataset_comes_with_the_nearest_name(check):
    add_dataset("pets_train")
    with pytest.raises(ValueError, match=r"'pets_trian'.*Did you mean 'pets_train'\?"):
        check(make_cfg(train=("pets_trian",), test=()))


# check_datasets


def test_the_table_counts_all_training_datasets(caplog):
    add_dataset("pets_train", dicts=[record(0, 0, 1)])
    add_dataset("more_pets", dicts=[record(1)])
    add_dataset("pets_val", dicts=[record(2)])
    with caplog.at_level("INFO", logger="retinanet_ext.data.datasets.check"):
        check_datasets(make_cfg(train=("pets_train", "more_pets")))
    line, message = [r.getMessage() for r in caplog.records]
    assert line == (
        "data: pets_train, more_pets, 2 images, 4 objects of 3 classes (cat 2, dog 2, bird 0)"
    )
    assert [getattr(r, "console", "") for r in caplog.records] == ["line", ""]
    head, *table = message.splitlines()
    assert "pets_train, more_pets" in head
    rows = [line.split() for line in table[2:]]
    assert rows == [["cat", "2"], ["dog", "2"], ["bird", "0"], ["total", "4"]]


@pytest.mark.parametrize(
    "count, said", [(1, "1 of these images has"), (3, "3 of these images have")]
)
@pytest.mark.parametrize("filters", [True, False])
def test_images_that_training_leaves_out_are_counted(caplog, count, said, filters):
    crowd = record(1, iscrowd=1)
    add_dataset("pets_train", dicts=[record(0, 0, 1), crowd, *[record()] * (count - 1)])
    cfg = make_cfg(test=())
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = filters
    with caplog.at_level("INFO", logger="retinanet_ext.data.datasets.check"):
        check_datasets(cfg)
    left = [r.getMessage() for r in caplog.records if "FILTER_EMPTY_ANNOTATIONS" in r.getMessage()]
    assert len(left) == filters and all(said in line for line in left)


def test_a_bad_annotation_stops_it():
    add_dataset("pets_train", dicts=[record(0), record(3, name="bad.png")])
    with pytest.raises(ValueError, match=r"'pets_train', image bad\.png: category_id is 3"):
        check_datasets(make_cfg(test=()))


def test_ids_are_checked_without_class_names_too():
    add_dataset("bare", classes=None, dicts=[record(3)])
    with pytest.raises(ValueError, match="category_id is 3"):
        check_datasets(make_cfg(train=("bare",), test=()))


def test_other_architectures_are_checked_against_the_class_names():
    add_dataset("pets_train", dicts=[record(3)])
    with pytest.raises(ValueError, match="category_id is 3"):
        check_datasets(make_cfg(test=(), num_classes=80, arch="ProposalNetwork"))
    add_dataset("bare", classes=None, dicts=[record(3)])
    check_datasets(make_cfg(train=("bare",), test=(), arch="ProposalNetwork"))


def test_test_datasets_are_not_loaded_where_a_json_holds_them(tmp_path):
    add_dataset("pets_train")
    add_dataset("pets_val")
    (tmp_path / "val.json").write_text("{}")
    MetadataCatalog.get("pets_val").json_file = str(tmp_path / "val.json")
    DatasetCatalog["pets_val"] = lambda: pytest.fail("loaded")
    check_datasets(make_cfg())


def test_missing_files_of_a_test_dataset_are_found_before_training(tmp_path):
    add_dataset("pets_train")
    register_coco_instances("theirs", {"thing_classes": CLASSES}, str(tmp_path / "no.json"), "x")
    with pytest.raises(FileNotFoundError, match=r"'theirs'.*no\.json.*DETECTRON2_DATASETS"):
        check_datasets(make_cfg(test=("theirs",)))


def test_nothing_to_check_is_fine():
    check_datasets(make_cfg(train=(), test=()))
