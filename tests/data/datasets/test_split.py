"""The split depends on each image's name and the seed, and on nothing else."""

from __future__ import annotations

import pytest

from retinanet_ext.data.datasets.split import split_images

NAMES = [f"/data/{i:04d}.jpg" for i in range(1000)]


def val(names, fraction=0.2, seed=0):
    return {names[i] for i in split_images(names, "val", fraction, seed)}


def test_the_parts_are_disjoint_and_complete():
    parts = [split_images(NAMES, part, 0.3, 1) for part in ("train", "val")]
    assert sorted(parts[0] + parts[1]) == list(range(1000))


@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.5])
def test_the_share_is_met(fraction):
    # Binomial: 4 standard deviations.
    assert len(val(NAMES, fraction)) == pytest.approx(
        1000 * fraction, abs=4 * (1000 * fraction * (1 - fraction)) ** 0.5
    )


def test_images_that_are_added_removed_or_moved_leave_the_others_where_they_are():
    before = val(NAMES)
    assert val([*NAMES, *(f"/new/x{i}.jpg" for i in range(500))]) & set(NAMES) == before
    assert val(NAMES[::2]) == before & set(NAMES[::2])
    assert val(NAMES[::-1]) == before
    moved = [name.replace("/data", "/else/where") for name in NAMES]
    assert val(moved) == {name.replace("/data", "/else/where") for name in before}


def test_a_larger_share_keeps_the_smaller_one():
    assert val(NAMES, 0.1) < val(NAMES, 0.2)


def test_the_seed_counts():
    assert val(NAMES, seed=0) != val(NAMES, seed=1)


def test_these_images_are_chosen_in_every_version_and_process():
    assert sorted(val(NAMES[:20])) == EXPECTED


# sha256 of "0/0000.jpg" and so on, first 12 hexadecimal digits as a share of 16^12, below 0.2.
EXPECTED = [f"/data/{i:04d}.jpg" for i in (2, 8, 10, 11, 12, 14)]


@pytest.mark.parametrize("fraction", [0.0, 1e-9, 0.999999])
def test_no_part_is_empty(fraction):
    for part in ("train", "val"):
        assert split_images(NAMES[:3], part, fraction, 0)


def test_one_image_cannot_be_split():
    with pytest.raises(ValueError, match=r"1 image cannot be split.*VAL_FRACTION to 0"):
        split_images(NAMES[:1], "val", 0.2, 0)
