"""A picture that is missing or broken is noted; its neighbours are read, in every format."""

from __future__ import annotations

import os

import pytest
from PIL import Image

from retinanet_ext.data.formats import Inputs, Source, detect, read_cached
from retinanet_ext.data.formats.images import image_size, read_sizes
from tests.helpers.four_formats import some_pictures, write

NAMES = ["ant", "bee", "cat"]
FOLDERS = {"voc": "JPEGImages", "yolo": "images", "csv": "pictures"}


def written(kind, tmp_path, listed=False):
    root = tmp_path / kind
    write(kind, root, some_pictures(), NAMES)
    if kind == "yolo" and listed:
        lines = "\n".join(f"images/{picture.name}" for picture in some_pictures())
        (root / "train.txt").write_text(lines)
        yaml = root / "data.yaml"
        yaml.write_text(yaml.read_text().replace("train: images", "train: train.txt"))
    return detect(Source(str(root), subset="train")), root / FOLDERS[kind]


@pytest.mark.parametrize("kind", FOLDERS)
def test_missing_pictures_are_noted(kind, tmp_path):
    source, folder = written(kind, tmp_path, listed=True)
    names = {folder / "p01.png", folder / "p04.png"}
    for name in names:
        name.unlink()
    table = read_cached(source, "")
    assert set(table.bad) == {str(name) for name in names}
    assert all("does not exist" in why for why in table.bad.values())
    assert len(table) == 6
    assert len(table.records([0])[0]["annotations"]) == 3


@pytest.mark.parametrize("kind", ["yolo", "csv"])
def test_broken_pictures_are_noted_and_read_again_when_they_are_mended(kind, tmp_path):
    source, folder = written(kind, tmp_path)
    good = (folder / "p02.png").read_bytes()
    (folder / "p02.png").write_bytes(b"no picture")
    (folder / "p03.png").write_bytes(b"")
    cache = str(tmp_path / "cache")
    for _ in range(2):  # read, and from the cache
        table = read_cached(source, cache)
        assert sorted(map(os.path.basename, table.bad)) == ["p02.png", "p03.png"]
        assert "no kind of picture that Pillow knows" in table.bad[str(folder / "p02.png")]
        assert table.sizes[2].tolist() == [0, 0]
    (folder / "p02.png").write_bytes(good)
    assert list(read_cached(source, cache).bad) == [str(folder / "p03.png")]


def test_boxes_in_shares_of_a_broken_picture_are_nowhere(tmp_path):
    source, folder = written("yolo", tmp_path)
    before = read_cached(source, "")
    (folder / "p02.png").write_bytes(b"")
    table = read_cached(source, "")
    assert len(table.boxes) == len(before.boxes) - 3 and len(table) == len(before)


def test_a_huge_picture_says_what_to_do(tmp_path, monkeypatch):
    Image.new("L", (60, 50)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match=r"a\.png has more than the 2,000 pixels .* tiles"):
        image_size(str(tmp_path / "a.png"))


def test_no_device_is_opened_as_a_picture():
    sizes, bad = read_sizes(["/dev/zero", "/no/such.png"])
    assert sizes == {} and bad["/no/such.png"] == "does not exist"
    assert "device" in bad["/dev/zero"]


def test_what_a_cache_noted_as_missing_is_found_later(tmp_path):
    inputs = Inputs()
    inputs.add(tmp_path / "a")
    assert inputs.unchanged()
    (tmp_path / "a").write_text("")
    assert not inputs.unchanged()
