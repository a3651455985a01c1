"""Classes merged, dropped and kept by name, and shared by datasets that list none."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from retinanet_ext import get_cfg
from retinanet_ext.data.datasets.class_rules import ClassRules, class_map, resolve_class_names
from retinanet_ext.data.formats import BoxTable


def table(*names, declared=True):
    none = np.zeros(0, np.int64)
    return BoxTable(list(names), declared, [], none, none, none, none, none, none)


def rules(merge=(), drop=(), keep=()):
    cfg = get_cfg()
    cfg.DATASETS.MERGE_CLASSES = [list(row) for row in merge]
    cfg.DATASETS.DROP_CLASSES, cfg.DATASETS.CLASSES = list(drop), list(keep)
    return ClassRules.from_cfg(cfg)


def resolved(the_rules, **tables):
    names = resolve_class_names(tables, the_rules)
    return {name: (names[name], class_map(tables[name], the_rules, names[name])) for name in tables}


def test_without_rules_a_declared_list_stays():
    assert resolved(rules(), a=table("z", "b")) == {"a": (["z", "b"], [0, 1])}


@pytest.mark.parametrize(
    "the_rules, names, mapping",
    [
        (rules(drop=["b"]), ["a", "c", "d"], [0, -1, 1, 2]),
        (rules(keep=["d", "a"]), ["d", "a"], [1, -1, -1, 0]),
        (rules(merge=[["b", "d"]]), ["a", "b", "c"], [0, 1, 2, 1]),
        (rules(merge=[["x", "a", "b"], ["y", "c", "d"]]), ["x", "y"], [0, 0, 1, 1]),
        (rules(merge=[["x", "a", "b"]], drop=["x"]), ["c", "d"], [-1, -1, 0, 1]),
        (rules(merge=[["x", "a", "b"]], keep=["c", "x"]), ["c", "x"], [1, 1, 0, -1]),
        (rules(merge=[["x", "a", "b"]], drop=["c"], keep=["d", "x"]), ["d", "x"], [1, 1, -1, 0]),
    ],
)
def test_rules_by_name(the_rules, names, mapping):
    assert resolved(the_rules, data=table("a", "b", "c", "d")) == {"data": (names, mapping)}


def test_datasets_that_list_no_classes_share_all_their_names():
    found = resolved(rules(), a=table("b", "d", declared=False), b=table("a", "b", declared=False))
    assert found == {"a": (["a", "b", "d"], [1, 2]), "b": (["a", "b", "d"], [0, 1])}


def test_a_declared_list_goes_for_all():
    found = resolved(rules(), a=table("b", declared=False), b=table("c", "b"))
    assert found == {"a": (["c", "b"], [1]), "b": (["c", "b"], [0, 1])}
    with pytest.raises(ValueError, match=r"'a' has objects of class 'x', .* of 'b' \(c, b\)"):
        resolved(rules(), a=table("x", declared=False), b=table("c", "b"))


def test_a_rule_for_a_class_that_is_nowhere_is_an_error():
    for the_rules, key in (
        (rules(merge=[["x", "antt"]]), "MERGE_CLASSES"),
        (rules(drop=["antt"]), "DROP_CLASSES"),
        (rules(keep=["antt"]), "CLASSES"),
    ):
        with pytest.raises(ValueError, match=rf"DATASETS\.{key} .*'antt'.*mean 'ant'.*bee"):
            resolved(the_rules, a=table("ant", "bee"))


def test_a_kept_class_without_objects_is_only_warned_of_where_no_list_exists(caplog):
    with caplog.at_level(logging.WARNING):
        found = resolved(rules(keep=["ant", "bee"]), a=table("bee", declared=False))
    assert found == {"a": (["ant", "bee"], [1])} and "'ant', which no object has" in caplog.text


def test_no_class_left_is_an_error():
    with pytest.raises(ValueError, match=r"'a' has no class left \(ant\)"):
        resolved(rules(drop=["ant"]), a=table("ant"))


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"merge": [["x"]]}, r"MERGE_CLASSES holds \['x'\]"),
        ({"merge": [["x", 3]]}, r"MERGE_CLASSES holds"),
        ({"merge": [["x", "a"], ["y", "a"]]}, r"merges class 'a' into 'x' and into 'y'"),
        ({"drop": ["a", "a"]}, r"DROP_CLASSES must be a list of different names"),
        ({"keep": [1]}, r"CLASSES must be a list of different names"),
        ({"drop": ["a"], "keep": ["a"]}, r"both name \['a'\]"),
    ],
)
def test_contradictions_are_named(fields, words):
    with pytest.raises(ValueError, match=words):
        rules(**fields)
