"""Without INPUT.AUG everything is Detectron2's; with it, boxes are checked at each step."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.data.detection_utils import build_augmentation

from retinanet_ext import get_cfg
from retinanet_ext.data.augment import AugmentingMapper, build_train_mapper, parse_augmentations
from retinanet_ext.data.augment.mosaic import FILL, Mosaic
from retinanet_ext.data.augment.parse import Step
from retinanet_ext.data.augment.sample import Sample
from retinanet_ext.data.augment.transforms import Rotation90Transform
from retinanet_ext.data.loading.ignore_mapper import IgnoreRegionMapper
from retinanet_ext.data.loading.pixels import PictureMapper
from tests.helpers.pictures import HEIGHT, WIDTH, extent, record

RECTANGLES = [(0, [40, 30, 91, 80], {}), (2, [100, 20, 150, 50], {}), (1, [5, 5, 30, 115], {})]


def small_cfg(crop: bool = False):
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "RetinaNetExt"
    cfg.INPUT.MIN_SIZE_TRAIN = (70, 97, 133)
    cfg.INPUT.CROP.ENABLED = crop
    return cfg


@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize("aug", [["Default"], [{"NAME": "Default"}]])
def test_default_config_is_exactly_detectron2s(crop: bool, aug: list):
    cfg = small_cfg(crop)
    cfg.INPUT.AUG = aug
    mapper = build_train_mapper(cfg)
    assert type(mapper) is IgnoreRegionMapper
    ours, theirs = mapper.augmentations.augs, DatasetMapper(cfg, is_train=True).augmentations.augs
    assert [repr(x) for x in ours] == [repr(x) for x in theirs]
    steps = parse_augmentations(cfg)[0].augmentations
    assert [repr(x) for x in steps] == [repr(x) for x in theirs]
    assert len(theirs) == len(build_augmentation(cfg, True)) + crop
    cfg.MODEL.RETINANET.IGNORE_IOF_THRESH = 2.0
    assert type(build_train_mapper(cfg)) is PictureMapper


@pytest.mark.parametrize("seed", range(4))
def test_default_step_gives_detectron2s_image_and_boxes(seed: int, tmp_path: Path):
    cfg = small_cfg(crop=True)
    sample = record(tmp_path, RECTANGLES)
    sample["annotations"][2]["iscrowd"] = 1
    mapper = AugmentingMapper(parse_augmentations(cfg), image_format="BGR")
    results = []
    for make in (IgnoreRegionMapper(cfg, is_train=True), mapper):
        np.random.seed(seed)
        results.append(make(copy.deepcopy(sample)))
    theirs, ours = results
    assert torch.equal(theirs.pop("image"), ours.pop("image"))
    a, b = theirs.pop("instances"), ours.pop("instances")
    assert a.image_size == b.image_size and torch.equal(a.gt_classes, b.gt_classes)
    assert a.gt_classes.dtype == b.gt_classes.dtype
    torch.testing.assert_close(a.gt_boxes.tensor, b.gt_boxes.tensor, rtol=0, atol=1e-4)
    c, d = theirs.pop("ignore_boxes"), ours.pop("ignore_boxes")
    torch.testing.assert_close(c.tensor, d.tensor, rtol=0, atol=1e-4)
    assert theirs == ours


def crop_to(x: int, y: int, width: int, height: int) -> list[Step]:
    return [Step("crop", 1.0, [_Fixed(T.CropTransform(x, y, width, height))])]


class _Fixed(T.Augmentation):
    def __init__(self, transform: T.Transform):
        super().__init__()
        self.transform = transform

    def get_transform(self, image: np.ndarray) -> T.Transform:
        return self.transform


def test_boxes_that_lost_most_of_their_area_are_dropped(tmp_path: Path):
    sample = record(tmp_path, [(0, [10, 10, 60, 60], {}), (1, [10, 10, 60, 60], {"ignore": 1})])
    # Two crops leave 0.4 of the box, then half of that: 0.2 in all.
    steps = [*crop_to(40, 0, 100, HEIGHT), *crop_to(0, 35, 100, 60)]
    for min_visible, kept in ((0.0, 1), (0.19, 1), (0.21, 0)):
        result = AugmentingMapper(steps, min_visible=min_visible)(sample)
        assert len(result["instances"]) == kept
        assert result["ignore_boxes"].tensor.tolist() == [[0, 0, 20, 25]]
    assert len(AugmentingMapper(crop_to(60, 0, 50, 50))(sample)["instances"]) == 0


def test_boxes_do_not_grow_into_padding(tmp_path: Path):
    pad = Step("pad", 1.0, [_Fixed(T.PadTransform(0, 0, 80, 0, 80, HEIGHT))])
    sample = record(tmp_path, [(0, [60, 10, 150, 50], {})])
    result = AugmentingMapper([*crop_to(0, 0, 80, HEIGHT), pad])(sample)
    assert result["image"].shape == (3, HEIGHT, 160)
    assert result["instances"].gt_boxes.tensor.tolist() == [[60, 10, 80, 50]]


def test_augmentations_see_the_boxes_to_be_learned(tmp_path: Path):
    seen = []

    class Spy(T.Augmentation):
        def get_transform(self, image: np.ndarray, boxes: np.ndarray) -> T.Transform:
            seen.append(boxes.tolist())
            return T.NoOpTransform()

    sample = record(tmp_path, [(0, [1, 2, 30, 40], {}), (1, [5, 5, 9, 9], {"iscrowd": 1})])
    AugmentingMapper([Step("spy", 1.0, [Spy()])])(sample)
    assert seen == [[[1, 2, 30, 40]]]


def test_boxes_that_are_not_finite_are_errors(tmp_path: Path):
    sample = record(tmp_path, RECTANGLES)
    bad = copy.deepcopy(sample)
    bad["annotations"][1]["bbox"][2] = float("nan")
    with pytest.raises(ValueError, match=r"dataset: box .*nan.* is not finite"):
        AugmentingMapper([])(bad)

    class ToInfinity(T.NoOpTransform):
        def apply_coords(self, coords: np.ndarray) -> np.ndarray:
            return coords * np.inf

    with pytest.raises(ValueError, match=r"_Fixed: box .* is not finite"):
        AugmentingMapper([Step("x", 1.0, [_Fixed(ToInfinity())])])(sample)


def test_input_is_left_as_it_is_and_regions_may_be_unwanted(tmp_path: Path):
    sample = record(tmp_path, [(0, [10, 10, 60, 60], {"ignore": 1}), (1, [1, 1, 9, 9], {})])
    sample["annotations"][1]["iscrowd"] = 1
    before = copy.deepcopy(sample)
    result = AugmentingMapper([], wants_ignored=False)(sample)
    assert sample == before
    # As Detectron2: crowds are left out, "ignore" means nothing.
    assert result["instances"].gt_classes.tolist() == [0] and "ignore_boxes" not in result
    rgb = AugmentingMapper([], image_format="RGB")(sample)["image"]
    assert torch.equal(rgb.flip(0), result["image"])
    del sample["annotations"]
    assert "instances" not in AugmentingMapper([])(sample)


@pytest.mark.parametrize("turns", range(4))
def test_quarter_turns_are_exact_and_have_an_inverse(turns: int):
    image = np.random.randint(0, 256, (5, 8, 3), dtype=np.uint8)
    transform = Rotation90Transform(5, 8, turns)
    turned = transform.apply_image(image)
    for y in range(5):
        for x in range(8):
            x0, y0, x1, y1 = transform.apply_box(np.array([[x, y, x + 1, y + 1]]))[0]
            assert (x1 - x0, y1 - y0) == (1, 1)
            assert np.array_equal(turned[int(y0), int(x0)], image[y, x])
    assert np.array_equal(transform.inverse().apply_image(turned), image)
    points = np.random.rand(4, 2)
    back = transform.inverse().apply_coords(transform.apply_coords(points))
    np.testing.assert_allclose(back, points, atol=1e-12)


def load(sample: dict) -> Sample:
    return AugmentingMapper([])._load(sample)


@pytest.mark.parametrize("seed", range(8))
def test_boxes_of_a_mosaic_bound_their_pixels(seed: int, tmp_path: Path):
    boxes = ([30, 20, 130, 110], [60, 40, 150, 100], [10, 30, 120, 90])
    others = [record(tmp_path, [(k, box, {})], str(k)) for k, box in enumerate(boxes)]
    others[2]["annotations"][0]["iscrowd"] = 1
    samples = iter([*map(load, others[1:]), load(record(tmp_path, [], "empty"))])
    np.random.seed(seed)
    mosaic = Mosaic((200, 260), scale=(0.6, 1.3))(load(others[0]), lambda: next(samples))
    assert mosaic.image.shape == (200, 260, 3)
    assert next(samples, None) is None  # three were drawn
    assert len(mosaic.boxes) > 0
    for color in range(3):
        pixels = extent(mosaic.image, color)
        own = mosaic.classes == color
        assert own.sum() == (pixels is not None)
        if pixels is not None:
            assert np.abs(mosaic.boxes[own][0] - pixels).max() <= 1.6
            assert mosaic.ignored[own].tolist() == [color == 2]


def test_a_mosaic_takes_images_after_the_steps_before_it(tmp_path: Path):
    cfg = small_cfg()
    cfg.INPUT.AUG = [
        {"NAME": "RandomRotation90", "ANGLES": [180]},
        {"NAME": "Mosaic", "PROB": 1, "SIZE": [96, 96], "CENTER": 0.5, "SCALE": [0.5, 0.5]},
        {"NAME": "ResizeShortestEdge", "SIZES": [192]},
    ]
    # In each, the rectangle fills the right half; after the half turn, the left one.
    dataset = [record(tmp_path, [(k, [80, 0, 160, 120], {})], str(k)) for k in range(3)]
    result = build_train_mapper(cfg, dataset)(dataset[0])
    assert result["image"].shape == (3, 192, 192)
    assert result["image"][:, 0, 0].tolist() == [FILL] * 3
    assert result["file_name"] == dataset[0]["file_name"]
    boxes = sorted(result["instances"].gt_boxes.tensor.round().tolist())
    # Four pictures of 48 x 36 px around the middle of 96 x 96, all doubled.
    assert boxes == [[0, 24, 48, 96], [0, 96, 48, 168], [96, 24, 144, 96], [96, 96, 144, 168]]


def test_a_mosaic_names_the_file_that_is_bad_and_needs_a_dataset(tmp_path: Path):
    cfg = small_cfg()
    cfg.INPUT.AUG = [{"NAME": "Mosaic", "PROB": 1}, "Default"]
    sample = record(tmp_path, RECTANGLES)
    with pytest.raises(ValueError, match="needs the dataset"):
        build_train_mapper(cfg)
    gone = {**sample, "file_name": str(tmp_path / "gone.png")}
    with pytest.raises(ValueError, match=r"Mosaic: cannot load .*gone\.png"):
        build_train_mapper(cfg, [gone])(sample)
    assert WIDTH > HEIGHT  # pictures are not square: mixed-up sides would show
