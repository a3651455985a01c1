"""Every mistake in a file of detections, or in the annotations, is one sentence with its fix."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retinanet_ext.errors import UserError
from retinanet_ext.evaluation.predictions import evaluate_predictions
from tests.helpers.coco_results import as_results
from tests.helpers.coco_scenes import exact_predictions, random_ground_truth

Rows = list[dict[str, Any]]


def truth_of(ids: list[int] | None = None) -> dict[str, Any]:
    """With other category ids where they are given."""
    truth = random_ground_truth(np.random.default_rng(0), num_images=8, num_objects=40)
    if ids is not None:
        new = dict(zip((2, 5, 8, 11), ids, strict=True))
        for row in truth["categories"]:
            row["id"] = new[row["id"]]
        for row in truth["annotations"]:
            row["category_id"] = new[row["category_id"]]
    return truth


TRUTH = truth_of()
RESULTS = as_results(exact_predictions(TRUTH))


def evaluated(folder: Path, results: Any, truth: Any = TRUTH) -> Any:
    for name, content in (("found.json", results), ("val.json", truth)):
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name).write_text(text)
    return evaluate_predictions(str(folder / "found.json"), str(folder / "val.json"))


def refused(folder: Path, results: Any, truth: Any = TRUTH) -> str:
    with pytest.raises(UserError) as error:
        evaluated(folder, results, truth)
    said = str(error.value).replace(str(folder), "")
    assert "\n" not in said and len(said) < 500
    return said


def each(**changes: Any) -> Rows:
    return [{**row, **changes} for row in RESULTS]


def one(**changes: Any) -> Rows:
    rows = copy.deepcopy(RESULTS)
    rows[3].update(changes)
    return rows


def without(name: str) -> Rows:
    return [{k: v for k, v in row.items() if k != name} for row in RESULTS]


def changed(name: str, change: Callable[[Any], Any]) -> Rows:
    return [{**row, name: change(row[name])} for row in RESULTS]


LINES = "\n".join(json.dumps(row) for row in RESULTS)


@pytest.mark.parametrize(
    "results, said",
    [
        ("", "is empty; write the file again"),
        (" \n", "is empty"),
        (LINES, "JSON lines"),
        (json.dumps(RESULTS)[:-40], "ends in the middle"),
        ("[1, 2", "ends in the middle"),
        ("detections", "is not json"),
        ({"annotations": RESULTS}, "write only what stands under 'annotations'"),
        (TRUTH, "holds annotations, not detections"),
        ({}, "must be a list"),
        ("3", "must be a list"),
        (None, "must be a list"),
        ([*RESULTS, [1, 2]], "1 of 41 detections is no object; the first is entry 40"),
        (without("image_id"), "have no 'image_id'"),
        (without("category_id"), "have no 'category_id'"),
        (without("score"), "40 of 40 detections have no 'score'; the first is entry 0"),
        (without("bbox"), "have no 'bbox'"),
        ([{**x, "segmentation": {}} for x in without("bbox")], "holds masks"),
        (each(image_id=None), "have no usable 'image_id'"),
        (one(image_id=True), "entry 3 with True"),
        (one(category_id=1.5), "no usable 'category_id'.* entry 3 with 1.5"),
        (one(bbox=[1, 2, 3]), "no usable bbox"),
        (one(bbox="1 2 3 4"), "no usable bbox"),
        (one(bbox=["1", 2, 3, 4]), "no usable bbox"),
        (one(bbox=[float("nan"), 1, 2, 3]), "NaN or infinity"),
        (one(bbox=[1, 1, float("inf"), 3]), "NaN or infinity"),
        (one(bbox=[1, 1, 10**400, 3]), "no usable bbox"),
        (one(score=10**400), "NaN or no number"),
        (one(bbox=[30, 30, -10, 5]), "negative width or height"),
        (changed("score", str), "score that is text.*without quotes"),
        (one(score=None), "NaN or no number"),
        (one(score=float("nan")), "NaN or no number"),
        (changed("score", lambda x: 100 * x), "divide them by 100"),
        (changed("score", lambda x: 4 * x - 3.6), "through a sigmoid"),
        (one(score=1000.0), "outside of .0, 1.; the first is entry 3"),
        (changed("image_id", str), "are text, and in /val.json they are numbers"),
        (changed("image_id", lambda x: f"{x}.png"), "are file names; write the 'id'"),
        (changed("image_id", lambda x: x + 1000), "of another set"),
        (one(image_id=77), "1 of .* first ids 77; did you give the right annotations"),
        (changed("category_id", lambda x: (x - 2) // 3), "count from 0.*index 0 is id 2"),
        (changed("category_id", str), "of another type than 2"),
        (one(category_id="bar"), "are names of classes"),
        (
            one(category_id=99),
            "1 of 40 detections have category ids that .* first 99 .it has 2, 5, 8, 11.",
        ),
        (
            changed("bbox", lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]]),
            "seem to be corners; write .x1, y1, x2 - x1, y2 - y1.",
        ),
        (changed("bbox", lambda b: [x / 640 for x in b]), "fractions of the image"),
    ],
)
def test_mistakes_in_detections(results, said, tmp_path):
    message = refused(tmp_path, results)
    assert re.search(said, message), message
    assert message.startswith("/found.json")


def test_ids_that_count_from_0_are_told_with_what_to_add(tmp_path):
    truth = truth_of([1, 2, 3, 4])
    rows = changed("category_id", lambda x: (x - 2) // 3)
    assert "add 1" in refused(tmp_path, rows, truth)


def test_ids_that_are_one_off_without_a_0_show_as_confused_classes(tmp_path):
    truth = truth_of([1, 2, 3, 4])
    truth["annotations"] = [x for x in truth["annotations"] if x["category_id"] > 1]
    rows = [
        {**row, "category_id": (row["category_id"] - 2) // 3}
        for row in RESULTS
        if row["category_id"] > 2
    ]
    found = evaluated(tmp_path, rows, truth)
    assert any("boxes right, classes confused" in x for x in found.remarks)


def annotations(**changes: Any) -> dict[str, Any]:
    truth = copy.deepcopy(TRUTH)
    truth["annotations"][3].update(changes)
    return truth


@pytest.mark.parametrize(
    "truth, said",
    [
        (RESULTS, "are --predictions and --annotations exchanged"),
        ({"images": TRUTH["images"], "categories": TRUTH["categories"]}, "test set has none"),
        ({**TRUTH, "images": {}}, "no list 'images'"),
        ({**TRUTH, "images": []}, "lists no images"),
        ({**TRUTH, "images": [*TRUTH["images"], TRUTH["images"][0]]}, "id 1 is there twice"),
        ({**TRUTH, "images": [*TRUTH["images"], {"id": "x"}]}, "has id 'x'; write all as whole"),
        ({**TRUTH, "images": [*TRUTH["images"], 5]}, "entry 8 of 'images' is 5"),
        ({**TRUTH, "images": [{"id": 1, "width": "wide"}]}, "width is 'wide'"),
        ({**TRUTH, "categories": [{"name": "a"}]}, "has id None"),
        ({**TRUTH, "categories": [{"id": 2, "name": True}]}, "name"),
        (annotations(image_id=99), "image_id is 99, which is not in 'images'"),
        (annotations(category_id=99), "category_id is 99"),
        (annotations(bbox=None), "bbox is None"),
        (annotations(bbox=[1, 2, float("nan"), 4]), "must be .x, y, width, height."),
        (annotations(iscrowd="maybe"), "iscrowd is 'maybe', but must be 0 or 1"),
    ],
)
def test_mistakes_in_annotations(truth, said, tmp_path):
    message = refused(tmp_path, RESULTS, truth)
    assert re.search(said, message), message
    assert message.startswith("/val.json")


def test_files_that_are_not_there_or_no_files(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        evaluate_predictions(str(tmp_path / "none.json"), str(tmp_path / "val.json"))
    with pytest.raises(UserError, match="is a folder"):
        evaluate_predictions(str(tmp_path), str(tmp_path))


def test_what_is_unusual_and_right_is_taken(tmp_path):
    truth = copy.deepcopy(TRUTH)
    for i, row in enumerate(truth["annotations"]):
        del row["area"]
        row["id"] = i // 2  # 0, and twice
        row["iscrowd"] = str(row["iscrowd"])
    for row in truth["images"]:
        del row["width"]
    rows = [
        {**row, "image_id": float(row["image_id"]), "segmentation": [], "id": 0} for row in RESULTS
    ]
    found = evaluated(tmp_path, rows, truth).analysis
    assert found.summary["AP"] == pytest.approx(100)
    assert sum(found.errors.count.values()) == 0


def test_ids_may_be_texts_in_both(tmp_path):
    truth = copy.deepcopy(TRUTH)
    for row in truth["images"]:
        row["id"] = f"img {row['id']}"
    for row in truth["annotations"]:
        row["image_id"] = f"img {row['image_id']}"
    rows = changed("image_id", lambda x: f"img {x}")
    assert evaluated(tmp_path, rows, truth).analysis.summary["AP"] == pytest.approx(100)


def test_no_detections_are_a_result_and_no_mistake(tmp_path):
    found = evaluated(tmp_path, [])
    assert found.analysis.summary["AP"] == 0
    assert any("no detections: AP and AR are 0" in x for x in found.remarks)


def test_detections_beyond_the_limit_are_told(tmp_path):
    truth = random_ground_truth(np.random.default_rng(0), 2, 249, classes=("one",), crowd=0)
    results = as_results(exact_predictions(truth))
    said = " ".join(evaluated(tmp_path, results, truth).remarks)
    assert "149 detections do not count" in said and "have more than 100 objects" in said
    found = evaluate_predictions(
        str(tmp_path / "found.json"), str(tmp_path / "val.json"), max_dets=300
    )
    assert found.analysis.summary["AP"] == pytest.approx(100) and not found.remarks
    assert set(found.analysis.errors.count.values()) == {0}


ODD = [
    None,
    True,
    -1,
    0,
    2,
    1e308,
    float("nan"),
    10**400,
    "",
    "\ud800",
    "1",
    [],
    [1],
    {},
    {"id": 1},
]


@pytest.mark.parametrize("seed", range(8))
def test_whatever_stands_somewhere_is_evaluated_or_refused_in_a_sentence(seed, tmp_path):
    rng = np.random.default_rng(seed)
    ends = {"evaluated": 0, "refused": 0}
    for _ in range(25):
        results, truth = copy.deepcopy(RESULTS[:9]), copy.deepcopy(TRUTH)
        place: Any = [results, truth, truth][rng.integers(3)]
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = keys[rng.integers(len(keys))]
            if not place[key] or not isinstance(place[key], dict | list) or rng.random() < 0.2:
                break
            place = place[key]
        place[key] = copy.deepcopy(ODD[rng.integers(len(ODD))])
        try:
            evaluated(tmp_path, results, truth)
            ends["evaluated"] += 1
        except UserError as error:
            ends["refused"] += 1
            assert "\n" not in str(error)
    assert min(ends.values()) > 0
