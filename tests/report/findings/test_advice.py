"""Each rule speaks about the fault that it is for, from its limit on, and of nothing else."""

from __future__ import annotations

import copy
import json
import math
import shlex
from typing import Any

import pytest

from retinanet_ext import get_cfg, validate_cfg
from retinanet_ext.cli import _build_parser
from retinanet_ext.config.load import merge_opts
from retinanet_ext.report.findings import REASONS, model_settings, what_to_try
from retinanet_ext.report.findings.advice import RULES, Advice, limits
from tests.helpers.tiny import tiny_cfg

MATRIX = [[180, 5, 3, 12], [4, 184, 2, 10], [3, 3, 182, 12], [9, 8, 7, 0]]


def settings() -> dict[str, Any]:
    cfg = get_cfg()
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS = 9000, (6000, 8000)
    return model_settings(cfg)


def healthy() -> dict[str, Any]:
    """A report of a good detector on a set of a fair size."""
    row = {"AP": 42.0, "AP50": 62.0, "n": 200, "threshold": 0.5, "uncertain": False}
    reasons = dict.fromkeys(REASONS, 0)
    reasons |= {"no_anchor": 4, "unseen": 12, "below_threshold": 24, "wrong_class": 20}
    return {
        "summary": {"AP": 42.0, "AP50": 62.0, "APany": 44.0, "AP50any": 65.0},
        "settings": {"iou": 0.5, "max_dets": 100, "images": 200, "objects": 600},
        "classes": {name: {**row} for name in ("cat", "dog", "cow")},
        "errors": {"Cls": 3.0, "Loc": 6.5, "Both": 1.0, "Dupe": 0.2, "Bkg": 3.5, "Miss": 8.0},
        "confusion": {"labels": ["cat", "dog", "cow", "background"], "matrix": MATRIX},
        "missed": {
            "total": 60,
            "reasons": reasons,
            "settings": {
                "matching_iou": 0.5,
                "score_thresh": 0.05,
                "topk_candidates": 1000,
                "max_detections": 100,
                "nms_thresh": 0.5,
                "nms_kind": "per_class",
            },
        },
        "possible_labels": {"count": 3},
        "large_boxes": {"count": 1, "images": 1},
        "recall_by_shape": {
            "sizes": [16.0, 32.0, 64.0, 128.0],
            "count": [[50, 50], [150, 150], [100, 100]],
            "found": [[40, 40], [140, 140], [95, 95]],
        },
        "intervals": {"AP": {"value": 42.0, "low": 40.0, "high": 44.0}},
        "compare": {"AP": {"delta": 2.0, "low": 0.5, "high": 3.5, "std_err": 0.7}},
        "run": {"folder": "output/cells", "iterations": 9000, "max_iterations": 9000},
        "training": {
            "evaluations": {
                "bbox/AP": {"iteration": [3000, 6000, 9000], "value": [35.0, 41.5, 42.0]},
                "val_loss/total": {"iteration": [3000, 6000, 9000], "value": [0.5, 0.41, 0.405]},
            }
        },
        "model": settings(),
    }


def changed(**values: Any) -> dict[str, Any]:
    """The healthy report with other values; ``a__b`` stands for keys within each other."""
    report = healthy()
    for path, value in values.items():
        *parents, last = path.split("__")
        node = report
        for key in parents:
            node = node[key]
        node[last] = value
    return report


def spoken(report: dict[str, Any]) -> set[str]:
    return {advice.rule for advice in what_to_try(report)}


def rows(**values: Any) -> dict[str, Any]:
    return {"AP": 42.0, "n": 200, **values}


def matrix_with(actual: int, detected: int, number: int) -> list[list[int]]:
    matrix = copy.deepcopy(MATRIX)
    matrix[actual][detected] = number
    return matrix


def grid(found: int) -> dict[str, Any]:
    return {**healthy()["recall_by_shape"], "found": [[found, found], [140, 140], [95, 95]]}


def evaluations(*values: float, name: str = "bbox/AP") -> dict[str, Any]:
    return {name: {"iteration": [3000, 6000, 9000], "value": list(values)}}


# Rule -> a report at which it has to speak, and one just below its limit.
FAULTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "missing_anchors": ({"missed__reasons__no_anchor": 7}, {"missed__reasons__no_anchor": 6}),
    "unseen": ({"missed__reasons__unseen": 19}, {"missed__reasons__unseen": 18}),
    "unsure": (
        {"missed__reasons__below_threshold": 121, "missed__total": 200},
        {"missed__reasons__below_threshold": 120, "missed__total": 190},
    ),
    "topk": ({"missed__reasons__topk": 5}, {"missed__reasons__topk": 4}),
    "above_cap": ({"missed__reasons__above_cap": 5}, {"missed__reasons__above_cap": 4}),
    "crowding": ({"missed__reasons__crowded": 7}, {"missed__reasons__crowded": 6}),
    "suppressed": ({"missed__reasons__suppressed": 7}, {"missed__reasons__suppressed": 6}),
    "missing_labels": ({"possible_labels__count": 9}, {"possible_labels__count": 8}),
    "confused_classes": ({"errors__Cls": 5.0}, {"errors__Cls": 4.9}),
    "loose_boxes": ({"errors__Loc": 8.0}, {"errors__Loc": 7.9}),
    "background": ({"errors__Bkg": 5.0}, {"errors__Bkg": 4.9}),
    "duplicates": ({"errors__Dupe": 1.5}, {"errors__Dupe": 1.4}),
    "large_boxes": (
        {"large_boxes__count": 5},
        {"large_boxes__count": 4},
    ),
    "small_objects": ({"recall_by_shape": grid(36)}, {"recall_by_shape": grid(38)}),
    "still_rising": (
        {"training__evaluations": evaluations(35.0, 40.0, 42.0)},
        {"training__evaluations": evaluations(35.0, 40.1, 42.0)},
    ),
    "past_best": (
        {"training__evaluations": evaluations(43.0, 41.0, 42.0)},
        {"training__evaluations": evaluations(42.9, 41.0, 42.0)},
    ),
    "hardly_learned": (
        {"summary": {"AP": 3.0, "AP50": 9.9, "APany": 3.5, "AP50any": 11.0}},
        {"summary": {"AP": 3.0, "AP50": 10.0, "APany": 3.5, "AP50any": 11.0}},
    ),
    "weak_classes": ({"classes__cow__AP": 20.9}, {"classes__cow__AP": 21.0}),
    "few_objects": ({"classes__cow__n": 9}, {"classes__cow__n": 10}),
    "wide_interval": (
        {"intervals__AP__low": 36.0, "intervals__AP__high": 46.0},
        {"intervals__AP__low": 36.1, "intervals__AP__high": 46.0},
    ),
    "unsure_comparison": (
        {"compare__AP__low": -0.1},
        {"compare__AP__low": 0.1},
    ),
}


def test_every_rule_is_tested():
    assert set(FAULTS) == {rule.__name__ for rule in RULES}


def test_nothing_is_said_of_a_healthy_report():
    assert what_to_try(healthy()) == []


@pytest.mark.parametrize("rule", FAULTS)
def test_a_rule_speaks_from_its_limit_on_and_no_other_does(rule):
    fault, nearly = FAULTS[rule]
    assert spoken(changed(**fault)) == {rule}
    assert spoken(changed(**nearly)) == set()


@pytest.mark.parametrize("rule", FAULTS)
def test_advice_is_words_and_can_be_json(rule):
    (advice,) = what_to_try(changed(**FAULTS[rule][0]))
    assert advice.finding.endswith(".") and advice.action.endswith(".")
    content = json.loads(json.dumps(advice.to_json(), allow_nan=False))
    assert content["rule"] == rule and content["finding"] == advice.finding
    assert not any(word in advice.finding + advice.action for word in ("nan", "None", "{"))


FURTHER: list[tuple[str, dict[str, Any], str]] = [
    ("confused_classes", {"summary__APany": 47.0}, "Right boxes of the wrong class cost 3.0"),
    ("confused_classes", {"summary__AP50any": 67.0}, "cost 3.0"),
    (
        "confused_classes",
        {"confusion__matrix": matrix_with(1, 2, 40)},
        "40 of 200 objects of the class 'dog' are taken for 'cow'",
    ),
    (
        "confused_classes",
        {"most_confused": [{"actual": "cow", "detected": "cat", "count": 50}]},
        "50 of 200 objects of the class 'cow' are taken for 'cat'",
    ),
    (
        "still_rising",
        {"training__evaluations": evaluations(0.5, 0.42, 0.4, name="val_loss/total")},
        "The validation loss fell by 5% since iteration 6,000",
    ),
    ("few_objects", {"settings__objects": 99}, "There are 99 objects"),
    (
        "missing_labels",
        {
            "possible_labels": {},
            "missing_labels": [{"image_id": 1, "boxes": [{"kind": "false"}] * 18}],
        },
        "18 sure detections",
    ),
    ("missing_anchors", {"missed__reasons__no_anchor": 58}, "58 of 60 missed objects"),
    (
        "small_objects",
        {"recall_grid": {**grid(30), "pixels": "network"}},
        "60% of the objects below 32 pixels of the network's input are found, and 94%",
    ),
]


@pytest.mark.parametrize(("rule", "fault", "said"), FURTHER)
def test_what_else_makes_a_rule_speak_and_what_it_says(rule, fault, said):
    found = what_to_try(changed(**fault))
    assert [x.rule for x in found] == [rule] and said in found[0].finding


def one_column(small: int, small_found: int, others: int) -> dict[str, Any]:
    """A grid of small objects, of which so many are found, and of others, which all are."""
    counts, found = [[small], [others]], [[small_found], [others]]
    return {"sizes": [16.0, 32.0, 64.0], "count": counts, "found": found}


LOSS = "val_loss/total"
# Of rules with several limits: what is just enough, and just not.
SECOND_LIMITS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "unsure",
        {"missed__reasons__below_threshold": 126, "missed__total": 209},
        {"missed__reasons__below_threshold": 125, "missed__total": 209},
    ),
    (
        "topk",
        {"missed__reasons__topk": 9, "missed__total": 400},
        {"missed__reasons__topk": 8, "missed__total": 400},
    ),
    (
        "above_cap",
        {"missed__reasons__above_cap": 9, "missed__total": 400},
        {"missed__reasons__above_cap": 8, "missed__total": 400},
    ),
    ("confused_classes", {"summary__APany": 47.0}, {"summary__APany": 46.9}),
    ("confused_classes", {"summary__AP50any": 67.0}, {"summary__AP50any": 66.9}),
    (
        "confused_classes",
        {"confusion__matrix": matrix_with(1, 2, 40)},
        {"confusion__matrix": matrix_with(1, 2, 39)},
    ),
    (
        "large_boxes",
        {"large_boxes__count": 5, "settings__images": 250},
        {"large_boxes__count": 5, "settings__images": 251},
    ),
    (
        "small_objects",
        {"recall_by_shape": one_column(20, 0, 100)},
        {"recall_by_shape": one_column(19, 0, 100)},
    ),
    (
        "small_objects",
        {"recall_by_shape": one_column(30, 0, 270)},
        {"recall_by_shape": one_column(30, 0, 271)},
    ),
    (
        "still_rising",
        {"training__evaluations": evaluations(0.5, 0.4, 0.3879, name=LOSS)},
        {"training__evaluations": evaluations(0.5, 0.4, 0.3881, name=LOSS)},
    ),
    ("few_objects", {"settings__objects": 99}, {"settings__objects": 100}),
]


@pytest.mark.parametrize(("rule", "enough", "nearly"), SECOND_LIMITS)
def test_every_limit_of_a_rule_is_kept(rule, enough, nearly):
    assert spoken(changed(**enough)) == {rule}
    assert spoken(changed(**nearly)) == set()


def test_a_few_of_anything_are_chance():
    few = dict.fromkeys(REASONS, limits.FEW - 1)
    small = changed(missed__reasons=few, missed__total=limits.FEW - 1)
    assert spoken(small) == set()


def test_one_class_is_not_confused():
    one = changed(classes={"cat": rows(n=600)}, errors__Cls=30.0, confusion={})
    assert spoken(one) == set()


def test_background_and_missing_labels_are_one_thing():
    both = changed(errors__Bkg=9.0, possible_labels__count=30)
    assert spoken(both) == {"missing_labels"}


def test_small_objects_are_spoken_of_where_there_are_some():
    few = {"sizes": [16.0, 32.0, 64.0], "count": [[19], [300]], "found": [[2], [290]]}
    assert spoken(changed(recall_by_shape=few)) == set()
    only = {"sizes": [16.0, 32.0], "count": [[300]], "found": [[20]]}
    assert spoken(changed(recall_by_shape=only)) == set()


def test_what_concerns_more_comes_first():
    report = changed(
        missed__reasons={**dict.fromkeys(REASONS, 0), "no_anchor": 30, "topk": 6, "unseen": 20},
        errors__Dupe=30.0,
        classes__cow__n=5,
    )
    found = [x.rule for x in what_to_try(report)]
    assert found == ["duplicates", "missing_anchors", "unseen", "topk", "few_objects"]


@pytest.mark.parametrize("lost", [*healthy(), None])
def test_what_a_report_lacks_is_passed_over(lost):
    report = healthy()
    for key in list(report) if lost is None else [lost]:
        report[key] = None
        assert spoken(report) == set()
        del report[key]
        assert spoken(report) == set()


@pytest.mark.parametrize("unknown", [None, math.nan])
def test_numbers_that_are_not_known_say_nothing(unknown):
    report = changed(
        errors=dict.fromkeys(("Cls", "Loc", "Bkg", "Dupe"), unknown),
        summary=dict.fromkeys(("AP", "AP50", "APany", "AP50any"), unknown),
        intervals__AP=dict.fromkeys(("low", "high"), unknown),
        compare__AP=dict.fromkeys(("delta", "low", "high"), unknown),
        classes__cow__AP=unknown,
        training__evaluations=evaluations(35.0, unknown, unknown),
    )
    assert spoken(report) == set()


def test_a_run_compared_with_itself_is_no_unsure_difference():
    same = {"delta": 0.0, "low": 0.0, "high": 0.0}
    assert spoken(changed(compare__AP=same)) == set()


def faulty(rule: str, **more: Any) -> Advice:
    (advice,) = what_to_try(changed(**FAULTS[rule][0], **more))
    return advice


def test_without_a_training_there_is_nothing_to_run():
    for rule in FAULTS:
        assert faulty(rule, run={}).command is None
    assert "RUN/config.yaml" in (faulty("topk", run__folder="").command or "")


def test_a_folder_with_a_space_stays_one_word():
    command = faulty("topk", run__folder="my runs/1").command or ""
    assert "my runs/1/config.yaml" in shlex.split(command)


WITH_COMMAND = [
    (rule, line)
    for rule in FAULTS
    for advice in what_to_try(changed(**FAULTS[rule][0]))
    for line in (advice.command or "").splitlines()
]


def test_most_rules_end_in_a_command():
    without = set(FAULTS) - {rule for rule, _ in WITH_COMMAND}
    assert without == {"few_objects", "wide_interval", "unsure_comparison"}


@pytest.mark.parametrize(("rule", "line"), WITH_COMMAND)
def test_commands_are_understood_and_their_keys_exist(rule, line):
    program, command, *words = shlex.split(line)
    assert program == "retinanet-ext"
    args = _build_parser(command).parse_args([command, *words])
    opts = list(getattr(args, "opts", None) or [])
    cfg = tiny_cfg()
    before = cfg.dump()
    merge_opts(cfg, opts)
    validate_cfg(cfg)
    assert (cfg.dump() != before) == bool(opts)


@pytest.mark.parametrize(
    ("rule", "settings", "words"),
    [
        ("topk", {}, "MODEL.RETINANET.TOPK_CANDIDATES_TEST 4000"),
        ("above_cap", {}, "TEST.DETECTIONS_PER_IMAGE 300"),
        ("crowding", {}, "MODEL.RETINANET.NMS_KIND soft"),
        ("duplicates", {}, "MODEL.RETINANET.NMS_THRESH_TEST 0.4"),
        ("still_rising", {}, "SOLVER.STEPS '(12000, 16000)'"),
        ("still_rising", {}, "SOLVER.MAX_ITER 18000"),
        ("large_boxes", {}, "MODEL.RETINANET.NORM GN"),
        ("large_boxes", {"model__norm": "GN"}, "anchors show"),
        ("loose_boxes", {}, "BBOX_REG_LOSS_TYPE giou"),
        ("loose_boxes", {"model__box_loss": "giou"}, "show-data"),
        ("small_objects", {}, "INPUT.MIN_SIZE_TEST 1200 INPUT.MAX_SIZE_TEST 1999"),
        ("missing_anchors", {}, "anchors optimise --config-file output/cells/config.yaml"),
    ],
)
def test_commands_continue_from_what_the_model_has(rule, settings, words):
    assert words in (faulty(rule, **settings).command or "")


def test_nothing_is_asked_for_that_the_model_has():
    assert faulty("crowding", missed__settings__nms_kind="soft").command is None
    assert faulty("suppressed", model__quality_branch="iou").command is None
    assert faulty("small_objects", model={}).command is None
    assert "STEPS" not in (faulty("still_rising", model__steps=[]).command or "STEPS")
    assert faulty("past_best", model__keeps_best=False).command is None
