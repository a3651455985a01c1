"""check-data finds what training refuses or leaves out; --fix only does what it can prove."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from retinanet_ext.cli import main
from retinanet_ext.data.doctor import clean, from_coco_content
from tests.helpers.broken import edited, good_content, write
from tests.helpers.four_formats import Picture
from tests.helpers.four_formats import write as write_as

pytestmark = pytest.mark.usefixtures("clean_catalogs")

NAMES = ["ant", "bee"]


def report_of(tmp_path: Path, spec: str, *more: str) -> list[dict[str, Any]]:
    """Findings of a training set."""
    found = tmp_path / "report.json"
    main(["check-data", "--train", spec, "--json", str(found), *more])
    return json.loads(found.read_text())["findings"]


@pytest.mark.parametrize("name", [None, ["cat"], " "])
def test_what_training_refuses_is_an_error(tmp_path: Path, name: Any):
    content = good_content()
    content["categories"][0]["name"] = name
    json_file, image_root = write(tmp_path, content)
    (found,) = report_of(tmp_path, f"{json_file}:{image_root}")
    assert (found["code"], found["severity"]) == ("refused", "error")
    assert "entry 0 of 'categories': name" in found["message"]


def test_a_known_error_is_not_said_twice(tmp_path: Path):
    json_file, image_root = write(tmp_path, edited(bbox=[1, 2, 3]))
    assert [x["code"] for x in report_of(tmp_path, f"{json_file}:{image_root}")] == [
        "box_malformed"
    ]


def test_what_training_leaves_out_is_a_warning(tmp_path: Path):
    pictures = [Picture(f"p{i}.png", 100, 80, [(NAMES[i], 10, 20, 50, 60)]) for i in range(2)]
    spec = write_as("yolo", tmp_path / "set", pictures, NAMES)
    assert report_of(tmp_path, spec) == []
    (tmp_path / "set" / "labels" / "lost.txt").write_text("0 .5 .5 .5 .5\n")
    (found,) = report_of(tmp_path, spec)
    assert (found["code"], found["severity"]) == ("reader_warning", "warning")
    assert "lost.txt" in found["message"]


def corners(count: int) -> dict[str, Any]:
    """The first ``count`` images with boxes that stand out as XYWH and fit as XYXY; no others."""
    content = good_content()
    content["images"] = content["images"][:count]
    content["annotations"] = content["annotations"][: 2 * count]
    for i, annotation in enumerate(content["annotations"]):
        annotation["bbox"] = [20 + i, 10, 94, 60]
    return content


@pytest.mark.parametrize(("count", "after"), [(1, 94), (2, 74)])
def test_a_box_over_the_border_does_not_prove_corners(tmp_path: Path, count: int, after: int):
    json_file, image_root = write(tmp_path, corners(count))
    result, changes = clean(corners(count), str(json_file), image_root)
    assert result["annotations"][0]["bbox"][2] == after
    assert len(changes) == (0 if count == 1 else 4)


def test_boxes_of_other_formats_are_never_taken_for_corners(tmp_path: Path):
    boxes = [("ant", 3.0, 15.0, 20.0, 81.0), ("bee", 4.0, 2.0, 25.0, 7.0)]
    pictures = [Picture(f"p{i}.png", 70, 65, list(boxes)) for i in range(3)]
    spec = write_as("csv", tmp_path / "set", pictures, NAMES)
    out = tmp_path / "fixed.json"
    main(["check-data", "--train", spec, "--fix", str(out)])
    table = from_coco_content(json.loads(out.read_text()), "fixed")
    assert table.xyxy.tolist() == [[3, 15, 20, 65], [4, 2, 25, 7]] * 3
