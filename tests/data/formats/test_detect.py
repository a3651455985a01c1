"""Formats are found out by what is there; nothing and several things are errors."""

from __future__ import annotations

import pytest

from retinanet_ext.data.datasets.command_line import split_flag
from retinanet_ext.data.formats import Source, detect
from tests.helpers.four_formats import FORMATS, some_pictures, write

NAMES = ["ant", "bee", "cat"]


@pytest.mark.parametrize("kind", FORMATS)
def test_files_and_folders_are_recognised(kind, tmp_path):
    flag = write(kind, tmp_path, some_pictures(1), NAMES)
    found = detect(Source(split_flag(flag)[0]))
    assert found.format == kind
    assert detect(Source(str(tmp_path))) == found  # a folder with one of its kind


@pytest.mark.parametrize(
    "path, target",
    [
        ("Annotations", "Annotations"),
        ("Annotations/p00.xml", "Annotations"),
        ("ImageSets/Main/a.txt", "ImageSets/Main/a.txt"),
    ],
)
def test_voc_may_be_named_in_several_ways(path, target, tmp_path):
    write("voc", tmp_path, some_pictures(1), NAMES)
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "a.txt").write_text("p00\n")
    found = detect(Source(str(tmp_path / path)))
    assert (found.format, found.annotations) == ("voc", str(tmp_path / target))


def test_an_unknown_format_says_what_was_looked_for(tmp_path):
    (tmp_path / "notes.md").write_text("")
    for path in (tmp_path, tmp_path / "notes.md"):
        with pytest.raises(ValueError, match=r"no known format.*json.*xml.*data\.yaml.*csv"):
            detect(Source(str(path)))


def test_two_formats_in_a_folder_are_ambiguous_unless_one_is_asked_for(tmp_path):
    (tmp_path / "a.csv").write_text("")
    (tmp_path / "b.json").write_text("")
    with pytest.raises(ValueError, match=r"b\.json \(coco\).*a\.csv \(csv\).*name one"):
        detect(Source(str(tmp_path)))
    assert detect(Source(str(tmp_path), format="csv")).annotations == str(tmp_path / "a.csv")


@pytest.mark.parametrize(
    "source, error, words",
    [
        (Source("/no/such.json"), FileNotFoundError, "/no/such.json do not exist"),
        (Source("/", "/no/folder"), FileNotFoundError, "no folder /no/folder"),
        (Source("/", format="cocoo"), ValueError, "'cocoo'. Did you mean 'coco'"),
    ],
)
def test_what_is_not_there_is_named(source, error, words):
    with pytest.raises(error, match=words):
        detect(source)
