"""Pictures that are the same or nearly so are found, and stay on one side of a split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from retinanet_ext.data.datasets.similar import difference_hash, group_similar
from retinanet_ext.data.datasets.split import split_images


def picture(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """Blots of light, which no other seed has at these places."""
    blots = np.random.default_rng(seed).integers(0, 255, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(blots).resize(size, Image.Resampling.BICUBIC)


def save(image: Image.Image, path: Path, **options: object) -> str:
    image.save(path, **options)
    return str(path)


def test_size_compression_and_brightness_hardly_change_the_hash(tmp_path: Path):
    first = difference_hash(save(picture(0), tmp_path / "a.png"))
    others = [
        save(picture(0), tmp_path / "b.jpg", quality=40),
        save(picture(0).resize((320, 240)), tmp_path / "c.png"),
        save(ImageEnhance.Brightness(picture(0)).enhance(0.8), tmp_path / "d.png"),
    ]
    for path in others:
        pairs = zip(first, difference_hash(path), strict=True)
        assert sum((x ^ y).bit_count() for x, y in pairs) <= 8, path
    other = difference_hash(save(picture(1), tmp_path / "e.png"))
    assert sum((x ^ y).bit_count() for x, y in zip(first, other, strict=True)) > 60


def test_copies_are_one_group_and_others_are_not(tmp_path: Path):
    paths = [save(picture(i), tmp_path / f"{i}.png") for i in range(6)]
    paths.append(save(picture(4), tmp_path / "copy.jpg", quality=90))
    paths.append(save(picture(4).resize((320, 240)), tmp_path / "larger.png"))
    assert group_similar(paths) == [0, 1, 2, 3, 4, 5, 4, 4]


def test_every_pair_within_eight_bits_is_found_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rng = np.random.default_rng(0)
    bases = rng.integers(0, 2, (30, 256), dtype=np.uint8)
    rows = []
    for base in bases:
        for flips in (0, 3, 8, 30):
            row = base.copy()
            row[rng.choice(256, flips, replace=False)] ^= 1
            rows.append(np.packbits(row).tobytes())
    hashes = {str(i): row for i, row in enumerate(rows)}
    monkeypatch.setattr("retinanet_ext.data.datasets.similar.difference_hash", hashes.__getitem__)
    groups = group_similar(list(hashes))
    expected = [i - i % 4 if i % 4 < 3 else i for i in range(len(rows))]
    assert groups == expected


def test_flat_pictures_do_not_all_become_one_group(tmp_path: Path):
    paths = [
        save(Image.new("RGB", (40, 30), (i * 20, 0, 0)), tmp_path / f"{i}.png") for i in range(8)
    ]
    assert group_similar(paths) == list(range(8))


def test_roboflows_copies_of_a_picture_are_one_group(tmp_path: Path):
    names = ["a_jpg.rf.0123456789abcdef", "b_jpg.rf.0123456789abcdef", "a_jpg.rf.fedcba9876543210"]
    paths = [save(picture(i), tmp_path / f"{name}.jpg") for i, name in enumerate(names)]
    paths.append(save(picture(9), tmp_path / "other.jpg"))
    assert group_similar(paths) == [0, 1, 0, 3]


def test_a_file_that_cannot_be_read_is_a_group_of_its_own(tmp_path: Path):
    good = [save(picture(i), tmp_path / f"{i}.png") for i in range(2)]
    (tmp_path / "broken.png").write_bytes(b"no picture")
    paths = [*good, str(tmp_path / "broken.png"), str(tmp_path / "absent.png")]
    assert group_similar(paths) == [0, 1, 2, 3]


def test_a_group_is_on_one_side_of_every_split():
    names = [f"/data/{i:04d}.jpg" for i in range(200)]
    groups = [i - i % 5 for i in range(200)]
    for seed in range(5):
        train, val = (split_images(names, part, 0.3, seed, groups) for part in ("train", "val"))
        assert sorted([*train, *val]) == list(range(200))
        assert not {groups[i] for i in train} & {groups[i] for i in val}
        assert 20 < len(val) < 100
