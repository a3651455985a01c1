"""Dicts of a user's function are looked at before training, not when it is over."""

from __future__ import annotations

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from retinanet_ext import get_cfg
from retinanet_ext.data.datasets.check import check_datasets
from retinanet_ext.data.datasets.own_dicts import check_own_datasets, check_own_dicts
from retinanet_ext.data.loading.index_batches import find_wide, group_draws

pytestmark = pytest.mark.usefixtures("clean_catalogs")


GONE = object()  # in place of the value of a field that is not there


def box(**fields):
    found = {"bbox": [4, 3, 6, 6], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
    return {key: value for key, value in (found | fields).items() if value is not GONE}


def record(i, **fields):
    found = {
        "file_name": f"{i}.png",
        "height": 30,
        "width": 40,
        "image_id": i,
        "annotations": [box()],
    } | fields
    return {key: value for key, value in found.items() if value is not GONE}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"height": np.int64(30), "width": np.int64(40), "image_id": np.int64(1)},
        {"image_id": "one"},
        {"height": 30.0, "width": None},
        {"annotations": []},
        {"annotations": GONE},
        {"annotations": (box(bbox=np.array([1, 2, 3, 4]), category_id=np.int64(0)),)},
    ],
)
def test_what_detectron2_takes_is_taken(fields):
    check_own_dicts("own", [record(0), record(1, **fields)], evaluates=True)


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"annotations": None}, r"'own', entry 1 \(1\.png\): annotations is None, .*\[\] for"),
        ({"annotations": "none"}, r"annotations is 'none', but must be a list"),
        ({"annotations": [None]}, r"annotation 0: is None, but must be a dict"),
        ({"annotations": [box(), box(bbox=GONE)]}, r"annotation 1: has no bbox"),
        ({"annotations": [box(bbox_mode=None)]}, r"annotation 0: has no bbox_mode"),
        ({"height": "30"}, r"height is '30', but must be pixels"),
        ({"width": 0}, r"width is 0, but must be pixels"),
        ({"width": float("nan")}, r"width is nan"),
        ({"file_name": 3}, r"file_name must be the path"),
        ({"image_id": GONE}, r"has no image_id, which the evaluation needs"),
        ({"image_id": None}, r"has no image_id"),
        ({"image_id": [1]}, r"image_id is \[1\], but must be a number or a text"),
        ({"image_id": 1.5}, r"image_id is 1\.5"),
        ({"image_id": 0}, r"image_id 0 is that of entry 0, too"),
    ],
)
def test_what_would_end_a_run_later_is_said_now(fields, words):
    with pytest.raises(ValueError, match=words):
        check_own_dicts("own", [record(0), record(1, **fields)], evaluates=True)


def test_an_entry_is_a_dict_and_ids_are_for_evaluation_only():
    with pytest.raises(ValueError, match=r"entry 0: is 'a\.png', but must be a dict"):
        check_own_dicts("own", ["a.png"], evaluates=False)
    check_own_dicts("own", [record(0, image_id=GONE), record(1, image_id=GONE)], False)
    MetadataCatalog.get("own").evaluator_type = "lvis"
    check_own_dicts("own", [record(0, image_id=GONE)], evaluates=True)
    check_own_dicts("own", object(), evaluates=True)  # a map-style dataset


@pytest.mark.parametrize("check", [check_own_datasets, check_datasets])
def test_sets_of_training_and_of_evaluation_are_checked(check):
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.RETINANET.NUM_CLASSES = "RetinaNetExt", 1
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("own_train",), ("own_val",)
    for name in ("own_train", "own_val"):
        fields = {"image_id": GONE} if name == "own_val" else {}
        DatasetCatalog.register(name, lambda fields=fields: [record(0, **fields)])
        MetadataCatalog.get(name).thing_classes = ["cell"]
    with pytest.raises(ValueError, match=r"'own_val', entry 0 .*has no image_id"):
        check(cfg)


def test_sizes_of_numpy_group_images_by_shape():
    dicts = [record(i, width=np.int64(40 - 20 * (i % 2)), height=np.int64(30)) for i in range(4)]
    assert find_wide(dicts) == [True, False, True, False]
    draws = [(i, i) for i in range(4)]
    assert list(group_draws(draws, 2, find_wide(dicts))) == [[(0, 0), (2, 2)], [(1, 1), (3, 3)]]
