"""Real detectors that are given one fault are told that fault, and what to do about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retinanet_ext import Predictor
from retinanet_ext.evaluation.analysis import assign
from retinanet_ext.inference.raw_heads import RawHeads
from retinanet_ext.report.findings import Misses, explain_misses, model_settings, what_to_try
from tests.helpers.coco_results import tables_of
from tests.helpers.random_detector import annotations_of, predictor_of, write_pictures
from tests.helpers.tiny import CLASSES

HEALTHY = {
    "MODEL.RETINANET.TOPK_CANDIDATES_TEST": 5000,
    "TEST.DETECTIONS_PER_IMAGE": 5000,
    "MODEL.RETINANET.NMS_THRESH_TEST": 0.6,
    "MODEL.RETINANET.SCORE_THRESH_TEST": 0.1,
}


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> dict[int, str]:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


def detections(predictor: Predictor, paths: dict[int, str]) -> list[dict[str, Any]]:
    return [x for i, path in paths.items() for x in predictor(path).to_coco(i)]


@pytest.fixture(scope="module")
def truth(paths, tmp_path_factory) -> dict[str, Any]:
    """Objects are what the healthy detector sees, so that it finds all of them."""
    found = detections(predictor_of(tmp_path_factory.mktemp("healthy"), HEALTHY), paths)
    rows = [
        (x["image_id"], x["category_id"] - 1, x["bbox"]) for x in found if min(x["bbox"][2:]) > 1
    ]
    assert len(rows) > 60
    return annotations_of(rows)


def misses_of(
    folder: Path, paths: dict[int, str], truth: dict[str, Any], keys: dict, threshold: float = 0.0
) -> tuple[Misses, dict[str, Any]]:
    """Why the detector misses objects, and the part of a report that says so."""
    predictor = predictor_of(folder, keys)
    found = assign(tables_of(truth, detections(predictor, paths)), 0.5, 5000)
    misses = explain_misses(found, threshold, RawHeads(predictor, paths, CLASSES))
    report = {
        "settings": {"objects": len(truth["annotations"]), "images": len(paths)},
        "missed": misses.to_json(),
        "model": model_settings(predictor.cfg),
        "run": {"folder": "output/run"},
    }
    return misses, report


def test_the_healthy_detector_misses_nothing(tmp_path, paths, truth):
    misses, report = misses_of(tmp_path, paths, truth, HEALTHY)
    assert misses.total == 0
    assert {x.rule for x in what_to_try(report)} <= {"few_objects"}


@pytest.mark.parametrize(
    ("fault", "threshold", "reasons", "rule", "key"),
    [
        ({"MODEL.RETINANET.TOPK_CANDIDATES_TEST": 4}, 0.0, {"topk"}, "topk", "TOPK_CANDIDATES"),
        ({"TEST.DETECTIONS_PER_IMAGE": 4}, 0.0, {"above_cap"}, "above_cap", "DETECTIONS_PER_IMAGE"),
        (
            {"MODEL.RETINANET.NMS_THRESH_TEST": 0.1},
            0.0,
            {"crowded", "suppressed"},
            "crowding",
            "NMS_KIND soft",
        ),
        ({"MODEL.RETINANET.SCORE_THRESH_TEST": 0.3}, 0.0, {"unseen"}, "unseen", "show-data"),
        ({}, 0.3, {"below_threshold"}, "unsure", "--score-thresh 0.2"),
    ],
    ids=["topk", "limit", "nms", "score", "threshold"],
)
def test_one_fault_is_the_reason_of_all_misses(
    tmp_path, paths, truth, fault, threshold, reasons, rule, key
):
    misses, report = misses_of(tmp_path, paths, truth, HEALTHY | fault, threshold)
    told = {reason for reason, number in misses.reasons.items() if number}
    # What had no fitting anchor from the start, and confusions among close boxes, aside.
    aside = {"no_anchor", "wrong_class"}
    assert reasons & told and told <= reasons | aside
    explained = sum(misses.reasons[reason] for reason in reasons)
    assert explained > 0.5 * (misses.total - misses.reasons["no_anchor"])
    found = {x.rule: x for x in what_to_try(report)}
    assert rule in found and key in (found[rule].command or "")


@pytest.mark.parametrize("moved", [True, False], ids=["128 px and up", "fitting"])
def test_tiny_objects_and_anchors_of_128_px_and_up(tmp_path, paths, moved):
    bases = [128.0, 128.0, 128.0, 128.0, 256.0] if moved else [8.0] * 5
    keys = {
        "MODEL.ANCHOR_GENERATOR.OCTAVE_BASE_SIZES": bases,
        "MODEL.ANCHOR_GENERATOR.SCALES_PER_OCTAVE": 3,
    }
    rng = np.random.default_rng(1)
    # Centred where anchors of the first level are, with a stride of 8 pixels.
    corners = 8.0 * rng.integers(1, 6, (80, 2)) - 5
    truth = annotations_of(
        [
            (1, int(k), [x, y, 10.0, 10.0])
            for k, (x, y) in zip(rng.integers(0, 3, 80), corners.tolist(), strict=True)
        ]
    )
    misses, report = misses_of(tmp_path, paths, truth, keys, 0.5)
    assert misses.total > 40
    share = misses.reasons["no_anchor"] / misses.total
    assert share > 0.95 if moved else share == 0
    found = {x.rule: x for x in what_to_try(report)}
    assert ("missing_anchors" in found) == moved
    if moved:
        assert "anchors optimise" in (found["missing_anchors"].command or "")
