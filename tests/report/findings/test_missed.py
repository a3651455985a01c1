"""Each missed object has one reason: the first step of the detector that took its last box."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from retinanet_ext.errors import MissingFileError, UserError
from retinanet_ext.evaluation.analysis import assign
from retinanet_ext.evaluation.analysis.class_confusion import confuse_classes
from retinanet_ext.report.findings import REASONS, explain_misses
from tests.helpers.coco_results import many_detections, tables_of
from tests.helpers.made_up_detector import BOX, SETTINGS, Anchor, MadeUpDetector, scene

NEXT = (30.0, 20.0, 40.0, 40.0)  # IoU 0.6 with BOX
TOUCHING = (50.0, 20.0, 40.0, 40.0)  # IoU 0.14 with BOX
LOOSE_BOX = (20.0, 20.0, 40.0, 90.0)  # IoU 0.44
FAR = (120.0, 120.0, 40.0, 40.0)
HUGE = (0.0, 0.0, 160.0, 160.0)


def result(box: Sequence[float], score: float, label: int = 0) -> dict[str, Any]:
    return {"image_id": 1, "category_id": label + 1, "bbox": list(box), "score": score}


def reason_of(
    anchors: Sequence[Anchor],
    results: Sequence[dict] = (),
    objects: Sequence[tuple[int, Sequence[float]]] = ((0, BOX),),
    threshold: float = 0.5,
    max_dets: int = 100,
    **settings: Any,
) -> str:
    """Why the first object is missed."""
    detector = MadeUpDetector({1: anchors}).with_settings(**settings)
    found = assign(tables_of(scene(objects), list(results)), 0.5, max_dets)
    misses = explain_misses(found, threshold, detector)
    assert sum(misses.reasons.values()) == misses.total
    assert misses.objects[0].annotation == 0, "the first object is found"
    return misses.objects[0].reason


def reason_without_model(
    results: Sequence[dict],
    objects: Sequence[tuple[int, Sequence[float]]] = ((0, BOX),),
    threshold: float = 0.5,
    max_dets: int = 100,
) -> str:
    misses = explain_misses(assign(tables_of(scene(objects), list(results)), 0.5, max_dets), 0.5)
    assert misses.objects[0].annotation == 0, "the first object is found"
    return misses.objects[0].reason


# Every step takes a box that has passed those before.
STEPS = {
    "no_anchor": [Anchor(at=HUGE, box=BOX)],
    "unseen": [Anchor(prob=0.05)],
    "below_threshold": [Anchor(prob=0.4)],
    "topk": [Anchor(candidate=False)],
    "loose": [Anchor(box=LOOSE_BOX, kept=0)],
    "suppressed": [Anchor()],
    "above_cap": [Anchor(kept=100)],
    "unknown": [Anchor(kept=0)],
}


@pytest.mark.parametrize("reason", STEPS)
def test_the_step_that_takes_the_only_box_is_the_reason(reason):
    assert reason_of(STEPS[reason]) == reason


@pytest.mark.parametrize("first", range(1, len(STEPS)))
def test_the_box_that_comes_furthest_decides(first):
    names = list(STEPS)
    anchors = [anchor for name in names[1 : first + 1] for anchor in STEPS[name]]
    assert reason_of(anchors[::-1]) == names[first]
    assert reason_of(anchors) == names[first]


def test_the_first_of_several_faults_of_one_box_is_the_reason():
    faults = {"at": HUGE, "prob": 0.05, "score": 0.04, "candidate": False, "box": LOOSE_BOX}
    assert reason_of([Anchor(**faults)]) == "no_anchor"
    del faults["at"]
    assert reason_of([Anchor(**faults)]) == "unseen"
    faults |= {"prob": 0.3, "score": 0.3}
    assert reason_of([Anchor(**faults)]) == "below_threshold"
    faults |= {"prob": 0.6, "score": 0.6}
    assert reason_of([Anchor(**faults)]) == "topk"
    faults["candidate"] = True
    assert reason_of([Anchor(**faults)]) == "loose"


def test_limits_are_met_from_where_the_detector_meets_them():
    assert reason_of([Anchor(prob=0.0501)]) == "below_threshold"  # a score must be greater
    assert reason_of([Anchor(prob=0.5)]) == "suppressed"  # a threshold is enough
    assert reason_of([Anchor(kept=99)]) == "unknown"  # the hundredth
    half = (20.0, 20.0, 40.0, 80.0)  # IoU 0.5
    assert reason_of([Anchor(at=half)]) == "suppressed"
    assert reason_of([Anchor(at=half)], matching_iou=0.51) == "no_anchor"
    assert reason_of([Anchor(box=half)]) == "suppressed"


def test_the_score_with_quality_is_held_against_the_threshold_and_the_class_one_against_the_other():
    assert reason_of([Anchor(prob=0.9, score=0.3)]) == "below_threshold"
    assert reason_of([Anchor(prob=0.04, score=0.6)]) == "unseen"


def test_a_box_that_is_the_true_positive_of_a_neighbour_makes_it_crowding():
    objects = [(0, BOX), (0, NEXT)]
    rival = Anchor(at=NEXT, box=NEXT, prob=0.95, kept=0)
    assert reason_of([Anchor(), rival], [result(NEXT, 0.95)], objects) == "crowded"
    # The same box, but it finds nothing: there is no neighbour.
    assert reason_of([Anchor(prob=0.6), rival], [], objects[:1]) == "unknown"
    loose = Anchor(at=TOUCHING, box=LOOSE_BOX, prob=0.95, kept=0)
    assert reason_of([Anchor(), loose], [result(LOOSE_BOX, 0.95)]) == "suppressed"


def test_of_other_classes_only_a_class_agnostic_nms_removes_for():
    objects = [(0, BOX), (1, TOUCHING)]
    rival = Anchor(at=TOUCHING, box=TOUCHING, prob=0.95, kept=0, label=1)
    results = [result(TOUCHING, 0.95, 1)]
    assert reason_of([Anchor(), rival], results, objects) == "suppressed"
    assert reason_of([Anchor(), rival], results, objects, nms_kind="class_agnostic") == "crowded"


def test_a_rival_below_its_own_threshold_finds_no_neighbour():
    objects = [(0, BOX), (1, TOUCHING)]
    anchors = [Anchor(), Anchor(at=TOUCHING, box=TOUCHING, prob=0.95, kept=0, label=1)]
    found = assign(tables_of(scene(objects), [result(TOUCHING, 0.95, 1)]))
    look = MadeUpDetector({1: anchors}).with_settings(nms_kind="class_agnostic")
    for threshold, reason in ((0.95, "crowded"), (0.96, "suppressed")):
        assert explain_misses(found, [0.5, threshold], look).objects[0].reason == reason


def test_a_rival_that_is_no_detection_finds_no_neighbour():
    rival = Anchor(box=LOOSE_BOX, prob=0.95, kept=100)
    results = [result(FAR, 0.9)]
    assert reason_of([Anchor(), rival], results, [(0, BOX), (0, FAR)]) == "suppressed"


def test_a_rival_is_surer_than_what_it_removes():
    objects = [(0, BOX), (0, TOUCHING)]
    weak = Anchor(at=TOUCHING, box=TOUCHING, prob=0.8, kept=0)
    assert reason_of([Anchor(prob=0.7), weak], [result(TOUCHING, 0.8)], objects) == "crowded"
    assert reason_of([Anchor(prob=0.9), weak], [result(TOUCHING, 0.8)], objects) == "suppressed"


def test_soft_nms_suppresses_by_lowering_a_score():
    anchors = [Anchor(prob=0.9, kept=1, kept_score=0.45)]
    rival = Anchor(at=TOUCHING, box=TOUCHING, prob=0.95, kept=0)
    objects = [(0, BOX), (0, TOUCHING)]
    results = [result(TOUCHING, 0.95), result(BOX, 0.45)]
    soft = {"nms_kind": "soft"}
    assert reason_of(anchors, results[1:], **soft) == "suppressed"
    assert reason_of([*anchors, rival], results, objects, **soft) == "crowded"
    later = [Anchor(prob=0.9, kept=0, kept_score=0.45), Anchor(TOUCHING, TOUCHING, kept=1)]
    assert reason_of(later, results, objects, **soft) == "suppressed"


def test_a_box_that_went_to_a_neighbour_is_crowding():
    between = (22.0, 20.0, 40.0, 40.0)
    objects = [(0, (26.0, 20.0, 40.0, 40.0)), (0, BOX)]
    anchors = [Anchor(at=BOX, box=between, kept=0)]
    assert reason_of(anchors, [result(between, 0.9)], objects) == "crowded"


def test_a_box_that_fits_only_a_neighbour_is_no_box_of_this_object():
    objects = [(0, BOX), (0, NEXT)]
    far_right = (42.0, 20.0, 40.0, 40.0)  # IoU 0.54 with NEXT, 0.29 with BOX
    anchors = [Anchor(at=NEXT, box=far_right, prob=0.9, kept=0)]
    assert reason_of(anchors, [result(far_right, 0.9)], objects) == "unseen"
    assert reason_of(anchors, [result(far_right, 0.9)], [(0, BOX), (1, NEXT)]) == "loose"


def test_the_way_of_its_own_box_counts_though_the_box_of_a_neighbour_fits_too():
    objects = [(0, BOX), (0, NEXT)]
    neighbour = Anchor(at=NEXT, box=NEXT, prob=0.95, kept=0)
    results = [result(NEXT, 0.95)]
    for own, reason in (
        (Anchor(kept=100), "above_cap"),
        (Anchor(candidate=False), "topk"),
        (Anchor(prob=0.3), "below_threshold"),
        (Anchor(prob=0.01), "crowded"),  # it has no box of its own
    ):
        assert reason_of([own, neighbour], results, objects) == reason
    cut = [Anchor(prob=0.01), Anchor(at=NEXT, box=NEXT, candidate=False)]
    assert reason_of(cut, [], objects) == "unseen"


def test_an_anchor_away_from_the_object_counts_if_its_box_fits():
    anchors = [Anchor(prob=0.01), Anchor(at=FAR, box=BOX, candidate=False)]
    assert reason_of(anchors) == "topk"


def test_beyond_the_detections_that_count_is_beyond_the_limit():
    objects = [(0, BOX), (0, FAR)]
    results = [result(FAR, 0.9), result(BOX, 0.8)]
    anchors = [Anchor(prob=0.8, kept=1), Anchor(FAR, FAR, 0.9, kept=0)]
    assert reason_of(anchors, results, objects, max_dets=1) == "above_cap"
    assert reason_without_model(results, objects, max_dets=1) == "above_cap"


def test_without_a_matching_iou_missing_anchors_cannot_be_told():
    detector = MadeUpDetector({1: STEPS["no_anchor"]}).with_settings(matching_iou=None)
    misses = explain_misses(assign(tables_of(scene([(0, BOX)]), [])), 0.5, detector)
    assert misses.reasons["no_anchor"] == 0 and misses.reasons["suppressed"] == 1
    assert "another rule than an IoU threshold" in misses.notes[0]
    assert "no_anchor" not in misses.sentences


def test_a_right_box_of_another_class_is_asked_first_and_equals_the_confusion():
    results = [result(BOX, 0.9, label=1)]
    assert reason_of(STEPS["no_anchor"], results) == "wrong_class"
    assert reason_without_model(results) == "wrong_class"
    # Below its threshold, it is no detection.
    assert reason_of(STEPS["no_anchor"], [result(BOX, 0.4, label=1)]) == "no_anchor"
    # Right elsewhere, it is no confusion.
    assert reason_of(STEPS["unseen"], results, [(0, BOX), (1, BOX)]) == "unseen"


@pytest.mark.parametrize(
    ("results", "objects", "expected"),
    [
        ([], [(0, BOX)], "unseen"),
        ([result(FAR, 0.9)], [(0, BOX)], "unseen"),
        ([result(BOX, 0.4)], [(0, BOX)], "below_threshold"),
        ([result(TOUCHING, 0.4)], [(0, BOX)], "unseen"),
        ([result(LOOSE_BOX, 0.9)], [(0, BOX)], "loose"),
        ([result(LOOSE_BOX, 0.9), result(BOX, 0.4)], [(0, BOX)], "loose"),
        ([result(TOUCHING, 0.9)], [(0, BOX), (0, TOUCHING)], "unseen"),
        ([result(NEXT, 0.9)], [(0, BOX), (0, NEXT)], "crowded"),
    ],
)
def test_what_detections_tell_without_a_model(results, objects, expected):
    assert reason_without_model(results, objects) == expected


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.77, [0.1, 0.5, 0.9, 0.3], 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_reasons_add_up_to_the_misses_of_the_confusion(seed, threshold):
    truth, results = many_detections(seed, 0.15, 0.1)
    found = assign(tables_of(truth, results))
    misses = explain_misses(found, threshold)
    matrix = confuse_classes(found, threshold).matrix()
    of_class = matrix[:-1].sum(axis=1) - np.diag(matrix)[:-1]
    assert tuple(misses.reasons) == REASONS
    assert sum(misses.reasons.values()) == misses.total == of_class.sum()
    confused = of_class - matrix[:-1, -1]
    assert misses.reasons["wrong_class"] == confused.sum()
    for name, number, wrong in zip(found.tables.names, of_class, confused, strict=True):
        counts = misses.by_class.get(name, dict.fromkeys(REASONS, 0))
        assert sum(counts.values()) == number and counts["wrong_class"] == wrong
    if threshold == 0.3:
        told = {"unseen", "below_threshold", "loose", "wrong_class"}
        assert all(misses.reasons[reason] for reason in told)


def test_crowds_are_not_missed_and_everything_found_misses_nothing():
    crowd = explain_misses(assign(tables_of(scene([(0, BOX)], crowd=True), [])), 0.5)
    found = explain_misses(assign(tables_of(scene([(0, BOX)]), [result(BOX, 0.5)])), 0.5)
    nothing = explain_misses(assign(tables_of(scene([]), [])), 0.5, MadeUpDetector({}))
    for misses in (crowd, found, nothing):
        assert misses.total == 0 and set(misses.reasons.values()) == {0}
        assert misses.by_class == {}


def test_only_pictures_with_misses_are_looked_at_and_only_their_classes():
    truth = scene([(1, BOX)], num_images=3)
    detector = MadeUpDetector({1: [Anchor(label=1)]})
    explain_misses(assign(tables_of(truth, [])), 0.5, detector)
    assert detector.asked == [(1, [1])]
    found = assign(tables_of(truth, [result(BOX, 0.9, 1)]))
    detector = MadeUpDetector({})
    assert explain_misses(found, 0.5, detector).total == 0 and detector.asked == []


def test_a_picture_that_cannot_be_read_leaves_its_misses_unknown():
    class Unreadable:
        settings = SETTINGS

        def __call__(self, image_id, labels):
            raise MissingFileError(f"no file {image_id}")

    misses = explain_misses(assign(tables_of(scene([(0, BOX), (1, FAR)]), [])), 0.5, Unreadable())
    assert misses.reasons["unknown"] == misses.total == 2
    assert misses.notes == [
        "1 picture could not be read, so that nothing is known of 2 missed objects there."
    ]


def test_an_object_that_the_model_now_finds_is_noted():
    misses = explain_misses(
        assign(tables_of(scene([(0, BOX)]), [])), 0.5, MadeUpDetector({1: [Anchor(kept=0)]})
    )
    assert misses.reasons["unknown"] == 1
    assert "finds 1 object that the file of detections misses" in misses.notes[0]


@pytest.mark.parametrize("with_model", [False, True])
def test_json_says_everything_and_can_be_written(with_model):
    look = MadeUpDetector({1: STEPS["loose"]}) if with_model else None
    misses = explain_misses(assign(tables_of(scene([(0, BOX), (1, FAR)]), [])), 0.5, look)
    content = json.loads(json.dumps(misses.to_json(), allow_nan=False))
    assert content["total"] == 2 and content["with_model"] == with_model
    assert content["reasons"] == misses.reasons
    first = {"image_id": 1, "bbox": list(BOX), "class": "cat"}
    assert content["objects"][0] == {**first, "reason": "loose" if with_model else "unseen"}
    assert len(misses.to_json(most_objects=1)["objects"]) == 1
    told = {reason for reason, number in misses.reasons.items() if number}
    assert told <= set(content["sentences"]) and "{" not in "".join(content["sentences"].values())
    assert ("0.05" in content["sentences"]["unseen"]) == with_model


def test_a_threshold_that_is_no_number_is_refused():
    with pytest.raises(UserError, match="threshold is NaN"):
        explain_misses(assign(tables_of(scene([]), [])), float("nan"))
