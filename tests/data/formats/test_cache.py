"""Annotations are read once, and again when anything they came from has changed."""

from __future__ import annotations

import gc
import os

import numpy as np
import pytest
from PIL import Image

from retinanet_ext.data.formats import BoxTable, Inputs, Source, cache, detect, read_cached
from tests.helpers.four_formats import FORMATS, some_pictures, write

NAMES = ["ant", "bee", "cat"]


@pytest.fixture
def count(monkeypatch):
    """How often a reader ran."""
    calls = []

    def counted(reader):
        return lambda *args: calls.append(1) or reader(*args)

    for kind, reader in list(cache.READERS.items()):
        monkeypatch.setitem(cache.READERS, kind, counted(reader))
    return lambda: len(calls)


def source_of(kind, root):
    flag = write(kind, root, some_pictures(), NAMES)
    annotations, _, images = flag.partition(":")
    return detect(Source(annotations, images))


def grow(path):
    """Change a text file so that its size changes too: two writes may share a clock tick."""
    path.write_text(path.read_text() + "\n")


@pytest.mark.parametrize("kind", FORMATS)
def test_the_second_time_comes_from_the_cache_and_is_equal(kind, tmp_path, count):
    source = source_of(kind, tmp_path / "data")
    first = read_cached(source, str(tmp_path / "cache"))
    second = read_cached(source, str(tmp_path / "cache"))
    assert count() == 1
    assert second.records() == first.records()
    assert (second.class_names, second.declared) == (first.class_names, first.declared)
    assert second.category_ids == first.category_ids


@pytest.mark.parametrize(
    "kind, name",
    [
        ("coco", "boxes.json"),
        ("voc", "Annotations/p01.xml"),
        ("yolo", "labels/p01.txt"),
        ("yolo", "data.yaml"),
        ("csv", "boxes.csv"),
    ],
)
def test_a_changed_file_is_read_again(kind, name, tmp_path, count):
    source = source_of(kind, tmp_path / "data")
    read_cached(source, str(tmp_path / "cache"))
    grow(tmp_path / "data" / name)
    read_cached(source, str(tmp_path / "cache"))
    assert count() == 2
    os.utime(tmp_path / "data" / name, ns=(1, 1))  # same size
    read_cached(source, str(tmp_path / "cache"))
    assert count() == 3


@pytest.mark.parametrize("kind, folder", [("voc", "Annotations"), ("yolo", "labels")])
def test_a_new_file_in_a_folder_counts(kind, folder, tmp_path, count):
    source = source_of(kind, tmp_path / "data")
    os.utime(tmp_path / "data" / folder, ns=(1, 1))
    before = read_cached(source, str(tmp_path / "cache"))
    target = tmp_path / "data" / folder
    first = next(target.iterdir())
    (target / "p05").with_suffix(first.suffix).write_text(first.read_text())
    after = read_cached(source, str(tmp_path / "cache"))
    assert count() == 2 and len(after.boxes) == len(before.boxes) + 3


@pytest.mark.parametrize("kind", ["yolo", "csv"])
def test_an_image_of_another_size_counts_where_sizes_were_read(kind, tmp_path, count):
    source = source_of(kind, tmp_path / "data")
    first = read_cached(source, str(tmp_path / "cache"))
    Image.new("RGB", (300, 200), "red").save(first.file_names[0])
    again = read_cached(source, str(tmp_path / "cache"))
    assert count() == 2 and again.sizes[0].tolist() == [200, 300]


def test_a_removed_file_is_noticed(tmp_path):
    source = source_of("coco", tmp_path / "data")
    read_cached(source, str(tmp_path / "cache"))
    os.unlink(source.annotations)
    with pytest.raises(FileNotFoundError):
        read_cached(source, str(tmp_path / "cache"))


def test_moved_images_are_looked_for_again(tmp_path):
    given = source_of("coco", tmp_path / "data")
    source = Source(given.annotations, format="coco")
    folder = given.images
    for place in ("images", "boxes"):  # of those that are looked at beside boxes.json
        os.rename(folder, tmp_path / "data" / place)
        folder = str(tmp_path / "data" / place)
        table = read_cached(source, str(tmp_path / "cache"))
        assert {os.path.dirname(x) for x in table.file_names} == {folder}


def test_other_settings_are_other_entries(tmp_path, count):
    source = source_of("voc", tmp_path / "data")
    (tmp_path / "names.txt").write_text("cat\nbee\nant\n")
    other = Source(**{**vars(source), "classes": str(tmp_path / "names.txt")})
    tables = [read_cached(s, str(tmp_path / "cache")) for s in (source, other)]
    assert [t.class_names for t in tables] == [NAMES, NAMES[::-1]]


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 not a zip"])
def test_a_damaged_entry_is_replaced(tmp_path, count, damage):
    source = source_of("csv", tmp_path / "data")
    read_cached(source, str(tmp_path / "cache"))
    (entry,) = (tmp_path / "cache").iterdir()
    entry.write_bytes(damage)
    read_cached(source, str(tmp_path / "cache"))
    read_cached(source, str(tmp_path / "cache"))
    assert count() == 2


def test_an_entry_with_pickled_objects_is_not_loaded(tmp_path, count):
    source = source_of("csv", tmp_path / "data")
    read_cached(source, str(tmp_path / "cache"))
    (entry,) = (tmp_path / "cache").iterdir()
    np.savez(entry, text=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        BoxTable.load(str(entry))
    read_cached(source, str(tmp_path / "cache"))
    assert count() == 2


def test_no_cache_and_an_unwritable_cache_do_no_harm(tmp_path, count):
    source = source_of("csv", tmp_path / "data")
    (tmp_path / "file").write_text("")
    for cache_dir in ("", str(tmp_path / "file")):
        assert len(read_cached(source, cache_dir)) == 6
    assert count() == 2


def test_the_garbage_collector_runs_again_after_an_error(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ValueError):
        read_cached(Source(str(tmp_path / "a.json"), format="coco"), "")
    assert gc.isenabled()


def test_inputs_keep_the_state_from_before_they_were_read(tmp_path):
    path = tmp_path / "a"
    path.write_text("1")
    inputs = Inputs()
    inputs.add(path)
    grow(path)
    inputs.add(path)
    assert not inputs.unchanged()
