"""Every augmentation moves the boxes with the pixels, and mistakes in INPUT.AUG are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.config import CfgNode

from retinanet_ext import get_cfg
from retinanet_ext.config import validate_cfg
from retinanet_ext.data.augment import ENTRIES, build_train_mapper
from tests.helpers.pictures import extent, record

KEEP_SIZE = {"NAME": "ResizeShortestEdge", "SIZES": [0]}
OBJECT, REGION = [40, 30, 91, 80], [100, 60, 131, 110]

# Small sizes for small pictures. Of an entry in no need of them, the defaults.
PARAMETERS: dict[str, dict[str, Any]] = {
    "Resize": {"SIZE": [90, 200]},
    "ResizeShortestEdge": {"SIZES": [60, 150], "SAMPLING": "range", "MAX_SIZE": 190},
    "LargeScaleJitter": {"SIZE": [140, 130], "SCALE": [0.5, 1.8]},
    "RandomCrop": {"TYPE": "absolute", "SIZE": [80, 90]},
    "RandomFlip": {"DIRECTION": "vertical"},
    "RandomLighting": {"SCALE": 0.3},
}


def config(*entries: Any, **keys: Any) -> CfgNode:
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "RetinaNetExt"
    cfg.INPUT.MIN_SIZE_TRAIN = (97,)
    cfg.INPUT.AUG = list(entries)
    for key, value in keys.items():
        cfg.INPUT[key] = value
    return cfg


@pytest.mark.parametrize("name", sorted(set(ENTRIES) - {"Mosaic"}))
def test_boxes_bound_the_pixels_after_each_augmentation(name: str, tmp_path: Path):
    entry = {"NAME": name, **PARAMETERS.get(name, {})}
    cfg = config(entry if name != "Default" else name, *([] if name == "Default" else [KEEP_SIZE]))
    cfg.INPUT.CROP.ENABLED = name == "Default"
    mapper = build_train_mapper(cfg)
    sample = record(tmp_path, [(0, OBJECT, {}), (1, REGION, {"iscrowd": 1})])
    images, num_boxes = [], 0
    for seed in range(5):
        np.random.seed(seed)
        result = mapper(sample)
        image = result["image"].numpy().transpose(1, 2, 0)[:, :, ::-1]  # BGR
        images.append(image)
        found = (result["instances"].gt_boxes, result["ignore_boxes"])
        for color, boxes in enumerate(found):
            pixels = extent(image, color)
            assert len(boxes) == (pixels is not None), seed
            if pixels is not None:
                num_boxes += 1
                assert np.abs(boxes.tensor[0].numpy() - pixels).max() <= 1.6, seed
    assert num_boxes >= 5
    assert any(x.shape != images[0].shape or (x != images[0]).any() for x in images[1:]) or (
        name == "Resize"
    )


def test_the_same_seed_gives_the_same_sample(tmp_path: Path):
    names = [x for x in ENTRIES if x not in ("Mosaic", "Default")]
    mapper = build_train_mapper(config(*names))
    sample = record(tmp_path, [(0, OBJECT, {})])
    results = []
    for seed in (3, 3, 4):
        np.random.seed(seed)
        results.append(mapper(sample)["image"].numpy().copy())
    assert np.array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])


def test_probability_zero_is_never_and_one_always(tmp_path: Path):
    sample = record(tmp_path, [(0, OBJECT, {})])
    for prob, expected in ((0, OBJECT), (1, [160 - 91, 30, 160 - 40, 80])):
        mapper = build_train_mapper(config({"NAME": "RandomFlip", "PROB": prob}, KEEP_SIZE))
        for _ in range(4):
            assert mapper(sample)["instances"].gt_boxes.tensor.tolist() == [expected]


@pytest.mark.parametrize(
    "entries,keys,error,words",
    [
        (["RandomFlop"], {}, KeyError, ("entry 0 is 'RandomFlop'", "Did you mean 'RandomFlip'?")),
        ([{"NAME": "RandomFlip", "PROP": 1}, "Default"], {}, KeyError, ("'PROP'", "'PROB'")),
        ([{"NAME": "Default", "PROB": 0.5}], {}, KeyError, ("(Default)", "It has none")),
        ([{"PROB": 1}], {}, ValueError, ("must be a name or {NAME",)),
        ([3], {}, ValueError, ("entry 0 is 3",)),
        ([], {}, ValueError, ("INPUT.AUG is empty", "[Default]")),
        ([{"NAME": "RandomFlip", "PROB": 1.5}], {}, ValueError, ("PROB is 1.5", "[0, 1]")),
        ([{"NAME": "RandomFlip", "PROB": True}], {}, ValueError, ("PROB is True",)),
        ([{"NAME": "RandomRotation90", "ANGLES": [45]}], {}, ValueError, ("ANGLES is [45]", "90")),
        ([{"NAME": "RandomBlur", "SIGMA": [2, 1]}], {}, ValueError, ("SIGMA is [2, 1]",)),
        ([{"NAME": "RandomJPEG", "QUALITY": [50, 99]}], {}, ValueError, ("QUALITY", "[1, 95]")),
        ([{"NAME": "RandomBrightness", "RANGE": [float("nan"), 1]}], {}, ValueError, ("RANGE",)),
        ([{"NAME": "Mosaic", "SIZE": 640}, "Default"], {}, ValueError, ("[height, width]",)),
        ([{"NAME": "Mosaic", "CENTER": 0.7}], {}, ValueError, ("CENTER is 0.7",)),
        ([{"NAME": "MinIoURandomCrop", "MIN_IOUS": [2]}], {}, ValueError, ("MIN_IOUS is [2]",)),
        (
            [{"NAME": "RandomCrop", "TYPE": "relative", "SIZE": [300, 300]}],
            {},
            ValueError,
            ("with TYPE relative must be shares",),
        ),
        (
            [{"NAME": "RandomCrop", "TYPE": "absolute", "SIZE": [0.9, 0.9]}],
            {},
            ValueError,
            ("whole pixels",),
        ),
        (
            [{"NAME": "ResizeShortestEdge", "SIZES": [1, 2, 3], "SAMPLING": "range"}],
            {},
            ValueError,
            ("SIZES is [1, 2, 3]", "[smallest, largest]"),
        ),
        (["RandomBlur"], {}, ValueError, ("their own size", "add Default", "LargeScaleJitter")),
        (["Mosaic", "Mosaic", "Default"], {}, ValueError, ("Mosaic 2 times",)),
        (["Default"], {"AUG_MIN_VISIBLE": 1.0}, ValueError, ("INPUT.AUG_MIN_VISIBLE",)),
        (["RandomBlur", "Default"], {"FORMAT": "L"}, ValueError, ("INPUT.FORMAT is 'L'",)),
        (["Default"], {"RANDOM_FLIP": "both"}, ValueError, ("INPUT.RANDOM_FLIP is 'both'",)),
        (["Default"], {"MIN_SIZE_TRAIN_SAMPLING": "range"}, ValueError, ("MIN_SIZE_TRAIN is",)),
    ],
)
def test_mistakes_are_named_before_training(
    entries: list, keys: dict, error: type[Exception], words: tuple
):
    with pytest.raises(error) as caught:
        validate_cfg(config(*entries, **keys))
    for word in words:
        assert word in str(caught.value)


def test_keys_that_nothing_would_read_are_refused():
    cfg = config({"NAME": "Resize"})
    cfg.INPUT.CROP.ENABLED = True
    with pytest.raises(ValueError, match=r"INPUT.CROP.ENABLED is True"):
        validate_cfg(cfg)
    cfg = config("RandomBlur", "Default")
    cfg.MODEL.MASK_ON = True
    with pytest.raises(ValueError, match=r"MODEL.MASK_ON is True"):
        validate_cfg(cfg)


def test_config_survives_dump_and_load(tmp_path: Path):
    cfg = config({"NAME": "Mosaic", "PROB": 0.5, "SIZE": [64, 64]}, "Default")
    path = tmp_path / "dumped.yaml"
    path.write_text(cfg.dump())
    again = get_cfg()
    again.merge_from_file(str(path))
    assert again.INPUT.AUG == cfg.INPUT.AUG
    validate_cfg(again)


def test_every_default_is_within_its_range():
    for name in ENTRIES:
        validate_cfg(config(name, KEEP_SIZE) if name != "Default" else config(name))
