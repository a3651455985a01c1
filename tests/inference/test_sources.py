"""What ``predict`` reads is what its words name, each once, in an order, or a sentence says why."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from PIL import Image

from retinanet_ext import UserError
from retinanet_ext.inference.sources import Items, list_sources
from retinanet_ext.inference.sources.items import Stems


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a/x.jpg", "a/b/x.jpg", "a/b/y.PNG", "a/notes.md", "b/x.jpg", "b/x.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "a" / "dir.jpg").mkdir()
    (tmp_path / "empty").mkdir()
    return tmp_path


def paths(*words: str, **options) -> list[str]:
    return [entry.path for entry in list_sources(words, **options)]


def stems(*words: str, **options) -> list[str]:
    return [x.extra.stem for x in Items(list_sources(words, **options))]


def test_a_folder_gives_its_pictures_and_folders_that_are_called_like_one(folder):
    assert paths("a") == ["a/dir.jpg", "a/x.jpg"]


def test_recursive_reads_folders_within(folder):
    assert paths("a", recursive=True) == ["a/x.jpg", "a/b/x.jpg", "a/b/y.PNG"]
    assert stems("a", recursive=True) == ["x", "b/x", "b/y"]


def test_results_within_a_source_are_not_read(folder):
    assert paths("a", recursive=True, leave_out="./a/b") == ["a/x.jpg"]


def test_pictures_that_predict_has_drawn_are_read_only_where_named(folder):
    for name in ("a/found/drawn/x.jpg", "a/found/crops/star/b/x_0.jpg", "a/found/own.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    everything = paths("a", recursive=True)
    assert "a/found/drawn/x.jpg" in everything  # a folder may be called so
    (folder / "a" / "found" / "predict.json").touch()
    listing = list_sources(["a"], recursive=True)
    left_out = {"a/found/drawn/x.jpg", "a/found/crops/star/b/x_0.jpg"}
    assert [x.path for x in listing] == [x for x in everything if x not in left_out]
    assert listing.notes == [
        "left out, since predict has drawn them: the pictures in 'a/found/crops', 'a/found/drawn'"
    ]
    assert {*paths("a/**/*.jpg")} == {*everything, "a/dir.jpg"} - left_out - {"a/b/y.PNG"}
    assert "a/found/own.jpg" not in paths("a/**/*.jpg", leave_out="a/found")
    assert paths("a/found/drawn") == paths("a/found/drawn/*") == ["a/found/drawn/x.jpg"]
    with pytest.raises(UserError, match="only what predict has drawn, in a/found/crops, a/found/d"):
        list_sources(["a/found/*/**/*.jpg"])


def test_linked_folders_are_searched_each_once(folder):
    (folder / "links").mkdir()
    (folder / "links" / "b").symlink_to("../b")
    (folder / "links" / "again").symlink_to("../b")
    (folder / "links" / "loop").symlink_to(".")
    assert paths("links", recursive=True) == ["links/again/x.jpg", "links/again/x.png"]


def test_patterns_may_go_through_folders(folder):
    assert paths("*/**/*.jpg") == ["a/b/x.jpg", "a/dir.jpg", "a/x.jpg", "b/x.jpg"]
    assert stems("a/**/*.jpg") == ["b/x", "dir", "x"]


def test_a_file_is_no_pattern_even_if_it_looks_like_one(folder):
    (folder / "[1].jpg").touch()
    assert paths("[1].jpg") == ["[1].jpg"]


def test_a_list_has_paths_as_on_the_command_line_or_beside_it(folder):
    (folder / "b" / "list.txt").write_text("a/x.jpg\n\nx.png\r\nmissing #1.jpg\n")
    assert paths("b/list.txt") == ["a/x.jpg", "b/x.png", "missing #1.jpg"]


def test_a_list_may_begin_with_the_mark_of_utf8(folder):
    (folder / "list.txt").write_text("\ufeffa/x.jpg\r\nb/x.png\r\n")
    assert paths("list.txt") == ["a/x.jpg", "b/x.png"]
    (folder / "list.txt").write_text("a/x.jpg\n", encoding="utf-16")
    with pytest.raises(UserError, match="a list in UTF-16; save it as UTF-8"):
        list_sources(["list.txt"])


@pytest.mark.parametrize("end", ["\n", "\0"])
def test_paths_come_from_standard_input(end):
    names = ["a b.jpg", "ü#.jpg", "a b.jpg", *(["with\nbreak.jpg"] if end == "\0" else [])]
    stdin = io.BytesIO("".join(f"{name}{end}" for name in names).encode())
    assert paths("-", stdin=stdin) == list(dict.fromkeys(names))


def test_paths_of_standard_input_are_read_as_they_come():
    read, write = os.pipe()
    with os.fdopen(read, "rb") as stdin, os.fdopen(write, "wb", 0) as sink:
        entries = iter(list_sources(["-"], stdin=stdin))
        sink.write(b"first.jpg\n")
        assert next(entries).path == "first.jpg"


def test_each_file_is_read_once(folder):
    assert paths("a/x.jpg", "./a/x.jpg", "a") == ["a/x.jpg", "a/dir.jpg"]


def test_outputs_of_different_files_do_not_collide(folder):
    assert stems("a/x.jpg", "b/x.jpg", "b/x.png") == ["a/x", "b/x", "b/x.png"]
    assert stems("b") == ["x", "x.png"]
    assert stems("../" + folder.name + "/a/x.jpg", str(folder / "b")) == [
        f"{folder.name}/a/x",
        str(folder / "b" / "x")[1:],
        str(folder / "b" / "x.png")[1:],
    ]


def test_stems_are_unique_whatever_the_names():
    stems = Stems()
    places = ["x.png", "x.jpg", "x.jpg.gif", "x.jpg~2.gif", "x.png", "x.png", "x.png"]
    found = [stems.of(place) for place in places]
    assert len(set(found)) == len(places)


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("missing.jpg", "'missing.jpg', and there is no such file"),
        ("empty", "'empty' is a folder without pictures"),
        ("*.jpg", r"'\*.jpg' is a pattern that no file matches"),
        ("a/*.md", "matches no picture or video, only a/notes.md"),
        (".", "holds folders .* --recursive"),
        ("list.txt", "a list without a path"),
        ("videos", "holds no picture but videos .1."),
    ],
)
def test_a_word_that_names_nothing_says_so(word, says, folder):
    (folder / "list.txt").touch()
    (folder / "videos").mkdir()
    (folder / "videos" / "clip.mp4").touch()
    with pytest.raises(UserError, match=says):
        list_sources([word])


def test_endless_sources_stand_by_themselves(folder):
    with pytest.raises(UserError, match="cannot be among other"):
        list_sources(["-", "a"], stdin=io.BytesIO())
    with pytest.raises(UserError, match="camera cannot be among other"):
        list_sources(["webcam", "a"])


def test_places_of_items_are_the_same_when_some_are_done(folder):
    listing = list_sources(["a", "b"])
    everything = [x.extra for x in Items(listing)]
    rest = [x.extra for x in Items(listing, done={everything[0].key, everything[2].key})]
    assert rest == [everything[1], *everything[3:]]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP"])
def test_a_picture_in_the_place_of_a_list_is_named(folder, kind):
    data = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(data, kind)
    (folder / "list.txt").write_bytes(data.getvalue())
    with pytest.raises(UserError, match=f"begins as a {kind} picture"):
        paths("list.txt")
    with pytest.raises(UserError, match=f"begins as a {kind} picture"):
        paths("-", stdin=io.BytesIO(data.getvalue()))


def test_so_is_a_picture_of_which_pillow_fears_that_it_is_a_bomb(folder, monkeypatch):
    data = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(data, "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UserError, match="begins as a huge picture"):
        paths("-", stdin=io.BytesIO(data.getvalue()))
