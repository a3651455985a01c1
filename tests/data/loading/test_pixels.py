"""Pictures of more than 8 bits: scaled by a stated rule or refused, never clipped in silence."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch
from detectron2.data import DatasetMapper
from detectron2.data.detection_utils import read_image
from PIL import Image

from retinanet_ext import get_cfg
from retinanet_ext.compat import with_globals
from retinanet_ext.data.augment.train_mapper import build_train_mapper
from retinanet_ext.data.doctor import read_images
from retinanet_ext.data.loading.pixels import PictureMapper, read_picture
from retinanet_ext.errors import InputError

DEEP = {
    "sixteen.png": np.uint16,
    "sixteen.tif": np.uint16,
    "int.tif": np.int32,
    "float.tif": np.float32,
}


def write(folder: Path, name: str, dark: float = 0.25, bright: float = 0.75) -> str:
    """A dark picture with a bright square; values are shares of the type's full range."""
    top = 1.0 if DEEP[name] is np.float32 else 65535
    pixels = np.full((40, 60), dark * top)
    pixels[10:20, 10:20] = bright * top
    path = str(folder / name)
    Image.fromarray(pixels.astype(DEEP[name])).save(path)
    return path


def record(path: str) -> dict:
    return {"file_name": path, "height": 40, "width": 60, "image_id": 1, "annotations": []}


def config(rule: str, *augmentations: str):
    cfg = get_cfg()
    cfg.INPUT.SIXTEEN_BIT, cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TEST = rule, (40,), 40
    cfg.INPUT.AUG, cfg.INPUT.RANDOM_FLIP = ["Default", *augmentations], "none"
    return cfg


@pytest.mark.parametrize("name", DEEP)
@pytest.mark.parametrize(("rule", "seen"), [("full", (64, 191)), ("minmax", (0, 255))])
def test_one_rule_in_training_evaluation_and_drawing(tmp_path: Path, name, rule, seen):
    path = write(tmp_path, name)
    image = read_picture(path, "BGR", rule)
    assert image.dtype == np.uint8 and image.shape == (40, 60, 3)
    assert (image[0, 0].tolist(), image[15, 15].tolist()) == ([seen[0]] * 3, [seen[1]] * 3)
    mappers = [
        build_train_mapper(config(rule)),
        build_train_mapper(config(rule, "RandomBrightness")),
        PictureMapper(config(rule), is_train=False),
    ]
    mappers[1].steps = mappers[1].steps[:1]
    for mapper in mappers:
        assert torch.equal(
            mapper(record(path))["image"], torch.as_tensor(image.transpose(2, 0, 1).copy())
        )


@pytest.mark.parametrize("name", DEEP)
def test_without_a_rule_file_mode_and_key_are_named(tmp_path: Path, name):
    path = write(tmp_path, name)
    with pytest.raises(InputError, match=re.escape(path)) as error:
        build_train_mapper(config(""))(record(path))
    assert "INPUT.SIXTEEN_BIT" in str(error.value)
    assert re.search(r"mode (I;16|I|F)\b", str(error.value))
    facts = read_images([path])[path]
    assert facts.problem == "deep" and "INPUT.SIXTEEN_BIT" in facts.detail
    assert read_images([path], "minmax")[path].problem == ""


@pytest.mark.parametrize(
    ("values", "fault"),
    [([0, 70000], "full takes 0 to 65535"), ([-5, 9], "from -5 to 9")],
)
def test_what_does_not_fit_is_refused_not_clipped(tmp_path: Path, values, fault):
    path = str(tmp_path / "a.tif")
    Image.fromarray(np.array([values], np.int32)).save(path)
    with pytest.raises(InputError, match=fault):
        read_picture(path, "RGB", "full")
    assert read_picture(path, "RGB", "minmax")[0, :, 0].tolist() == [0, 255]


def test_pixels_that_are_not_finite(tmp_path: Path):
    path = str(tmp_path / "a.tif")
    Image.fromarray(np.array([[0, np.nan]], np.float32)).save(path)
    with pytest.raises(InputError, match="not finite"):
        read_picture(path, "RGB", "minmax")


def test_a_flat_picture_has_no_range(tmp_path: Path):
    path = write(tmp_path, "sixteen.png", 0.5, 0.5)
    assert not read_picture(path, "RGB", "minmax").any()


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "RGBA", "CMYK"])
def test_pictures_of_eight_bits_are_those_of_detectron2(tmp_path: Path, mode):
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    path = str(tmp_path / ("a.tif" if mode == "CMYK" else "a.png"))
    Image.fromarray(noise).convert(mode).save(path)
    assert np.array_equal(read_picture(path, "BGR"), read_image(path, "BGR"))
    ours = PictureMapper(config(""), is_train=False)(record(path))["image"]
    theirs = DatasetMapper(config(""), is_train=False)(record(path))["image"]
    assert torch.equal(ours, theirs)


def test_a_name_that_a_function_does_not_use():
    with pytest.raises(NameError, match="has no global nothing_like_it"):
        with_globals(DatasetMapper.__call__, nothing_like_it=1)


def test_a_pipe_is_no_picture_that_is_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png: is a folder, device or pipe"):
        read_picture(str(tmp_path / "a.png"))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.tif", "a.png", "deep.tif"])
def test_every_orientation_is_turned_once(tmp_path, orientation: int, name: str):
    pixels = np.arange(6 * 9, dtype=np.uint8).reshape(6, 9)
    picture = Image.fromarray(pixels.astype(np.uint16) * 257 if "deep" in name else pixels)
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / name, exif=exif)
    turns = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.T,
        6: pixels[::-1].T,
        7: pixels[::-1, ::-1].T,
        8: pixels.T[::-1],
    }
    found = read_picture(str(tmp_path / name), "L", "full")
    assert np.array_equal(found[:, :, 0], turns[orientation])


@pytest.mark.parametrize("format", ["BGR", "RGB"])
@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
@pytest.mark.parametrize("disk", ["room", "full"])
def test_large_pictures_are_read_the_same(tmp_path, monkeypatch, name, orientation, format, disk):
    def no_room(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    pixels = np.random.default_rng(0).integers(0, 256, (300, 20, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = str(tmp_path / name)
    Image.fromarray(pixels).save(path, exif=exif)
    expected = read_picture(path, format)
    monkeypatch.setattr("retinanet_ext.data.loading.pixels.LARGE", 100)
    monkeypatch.setattr(
        "retinanet_ext.data.loading.pixels.utils.convert_PIL_to_numpy",
        lambda *_: pytest.fail("copied whole"),
    )
    if disk == "full":
        monkeypatch.setattr("retinanet_ext.data.loading.pixels.tempfile.TemporaryFile", no_room)
    assert np.array_equal(read_picture(path, format), expected)
