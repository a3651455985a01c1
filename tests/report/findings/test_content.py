"""The findings are complete, fit into report.json and are what the advice reads."""

from __future__ import annotations

import json
from typing import Any

import pytest

from retinanet_ext.evaluation.analysis import assign
from retinanet_ext.evaluation.analysis.error_split import split_errors
from retinanet_ext.report.findings import findings_content, what_to_try
from tests.helpers.coco_results import many_detections, tables_of
from tests.helpers.made_up_detector import BOX, Anchor, MadeUpDetector, scene

FAR = (120.0, 120.0, 40.0, 40.0)
LOWER = (20.0, 120.0, 40.0, 40.0)


def result(image: int, box: tuple[float, ...], score: float, label: int = 0) -> dict[str, Any]:
    return {"image_id": image, "category_id": label + 1, "bbox": list(box), "score": score}


@pytest.mark.parametrize("with_model", [False, True])
def test_findings_of_a_small_scene(with_model):
    results = [result(1, FAR, 0.8), result(1, LOWER, 0.75, 1), result(2, FAR, 0.9)]
    found = assign(tables_of(scene([(0, BOX)], num_images=2), results))
    look = MadeUpDetector({1: [Anchor(candidate=False)]}) if with_model else None
    said = "" if with_model else "It has other heads."
    content = findings_content(found, 0.5, split_errors(found), look, said, {1: (50, 50)})
    content = json.loads(json.dumps(content, allow_nan=False))
    reason = "topk" if with_model else "unseen"
    assert content["missed"]["reasons"][reason] == content["missed"]["total"] == 1
    assert content["missed"]["notes"] == ([said] if said else [])
    assert content["missed"]["titles"].keys() == content["missed"]["reasons"].keys()
    missed, *false = content["worst"][0]["boxes"]
    assert missed == {
        "kind": "missed",
        "class": "cat",
        "score": None,
        "box": list(BOX),
        "why": reason,
    }
    assert [(x["kind"], x["score"], x["why"]) for x in false] == [
        ("false", 0.8, "Bkg"),
        ("false", 0.75, "Bkg"),
    ]
    assert [row["image_id"] for row in content["worst"]] == [1, 2]
    # The picture of the surest first, with what is annotated there.
    assert [row["image_id"] for row in content["missing_labels"]] == [2, 1]
    assert [x["kind"] for x in content["missing_labels"][1]["boxes"]] == ["false", "false", "found"]
    assert content["possible_labels"] == {"count": 3}
    assert content["large_boxes"] == {"count": 2, "images": 1}


def test_galleries_have_an_end_and_counts_do_not():
    results = [result(image, FAR, 0.9) for image in range(1, 9)]
    found = assign(tables_of(scene([], num_images=8), results))
    content = findings_content(found, 0.5, most=3)
    assert len(content["worst"]) == len(content["missing_labels"]) == 3
    assert content["possible_labels"]["count"] == 8


def test_advice_reads_the_findings():
    truth, results = many_detections(0, 0.1, 0.05)
    found = assign(tables_of(truth, results))
    content = findings_content(found, 0.9, split_errors(found), sizes={1: (640, 640)})
    report = {**content, "settings": {"objects": 500, "images": 30}, "run": {"folder": "x"}}
    assert {x.rule for x in what_to_try(report)} == {"unsure"}
