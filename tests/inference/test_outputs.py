"""Lines are whole and reach the disk; progress says how far a job is."""

from __future__ import annotations

import io
import os

import pytest

from retinanet_ext import UserError
from retinanet_ext.inference.outputs import CocoIds, read_lines
from retinanet_ext.inference.outputs import lines as lines_module
from retinanet_ext.inference.outputs.lines import Lines, cut_torn_line
from retinanet_ext.inference.progress import Progress


class Screen(io.StringIO):
    def __init__(self, terminal: bool):
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


def progress(terminal: bool, seconds_each: float, total: int | None, steps: int) -> str:
    now = [0.0]
    screen = Screen(terminal)
    shown = Progress(total, stream=screen, clock=lambda: now[0])
    for _ in range(steps):
        now[0] += seconds_each
        shown.step()
    shown.end()
    return screen.getvalue()


def test_lines_of_progress_are_sparse_where_nobody_watches():
    lines = progress(False, 1.0, 1000, 100).splitlines()
    assert lines[0] == "30 of 1000 images, 1 images/s, 16:10 left"
    assert len(lines) == 3


def test_a_terminal_has_one_line_that_ends_empty():
    shown = progress(True, 1.0, None, 3)
    assert "\n" not in shown and shown.count("\r") == 4 and shown.endswith("\r\x1b[K")
    assert "3 images, 1 images/s" in shown


def test_each_line_is_there_at_once_and_the_disk_has_each_hundred(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(lines_module.os, "fsync", lambda handle: synced.append(handle))
    path = str(tmp_path / "a.jsonl")
    lines = Lines(path)
    for i in range(250):
        lines.add({"file": i})
        assert os.path.getsize(path) > 0
    assert len(list(read_lines(path))) == 250 and len(synced) == 2
    lines.close()
    assert len(synced) == 3


@pytest.mark.parametrize(
    ("content", "left"),
    [
        (b'{"a": 1}\n{"a": 2}\n', 2),
        (b'{"a": 1}\n{"a": 2}', 1),
        (b'{"a": 1}\n{"a"', 1),
        (b'{"a": 1}\n\0\0\0\n', 1),
        (b'{"a"', 0),
        (b"", 0),
    ],
)
def test_a_torn_line_is_cut(content, left, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    assert cut_torn_line(str(path)) == (content.count(b"{") != left or b"\0" in content)
    assert len(list(read_lines(str(path)))) == left


def test_annotations_without_a_class_of_the_model_are_refused(tmp_path):
    path = tmp_path / "val.json"
    path.write_text('{"images": [], "categories": [{"id": 1, "name": "cats"}]}')
    with pytest.raises(UserError, match=r"has no category 'cat'.*Did you mean 'cats'"):
        CocoIds(["cat"], str(path))
    path.write_text("[]")
    with pytest.raises(UserError, match="no COCO json"):
        CocoIds(["cat"], str(path))


def test_pictures_are_found_in_annotations_by_the_end_of_their_path(tmp_path):
    path = tmp_path / "val.json"
    names = ["a/x.jpg", "b/x.jpg", "y.jpg", "deep/z.jpg"]
    images = ", ".join(f'{{"id": {i}, "file_name": "{x}"}}' for i, x in enumerate(names, 10))
    path.write_text(f'{{"images": [{images}], "categories": [{{"id": 1, "name": "cat"}}]}}')
    ids = CocoIds(["cat"], str(path))
    asked = ["data/b/x.jpg", "x.jpg", "any/where/y.jpg", "z.jpg", "none.jpg"]
    assert [ids.image_id(x, 1) for x in asked] == [11, None, 12, 13, None]
    assert ids.unknown == 2
