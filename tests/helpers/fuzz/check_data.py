"""Runs ``check-data --fix`` on a variation: what it must find, and what it must leave as it is."""

from __future__ import annotations

import contextlib
import io
from dataclasses import replace
from typing import Any

from detectron2.config import CfgNode

from retinanet_ext.cli import main
from retinanet_ext.errors import UserError
from tests.helpers.fuzz.case import Case
from tests.helpers.fuzz.judge import Hang, load, shown, time_limit, wrong_message
from tests.helpers.fuzz.truth import Truth

__all__ = ["judge_check_data"]


def judge_check_data(case: Case, cfg: CfgNode) -> str:
    """What is wrong with the report or the cleaned copy; "" if nothing is."""
    fixed = case.root.parent / "fixed.json"
    words = ["check-data", "--train", case.spec, "--images", "--fix", str(fixed), "--force"]
    words += ["--classes", case.classes_file] if case.classes_file else []
    out, err = io.StringIO(), io.StringIO()
    try:
        with time_limit(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(words)
    except Hang:
        return "check-data HANG"
    except Exception as error:
        return f"check-data TRACEBACK {shown(error)}"
    if code == 2 and not out.getvalue():
        message = err.getvalue().strip().rpartition("retinanet-ext: error: ")[2]  # after warnings
        wrong = wrong_message(case, message, places=False)
        return f"check-data MESSAGE {wrong}: {err.getvalue()[-400:]}" if wrong else ""
    must_find = not case.accepted or all(said for _, said in case.accepted)
    if must_find and code == 0:
        return "check-data finds nothing"
    return _judge_fixed(case, cfg, str(fixed))


def _judge_fixed(case: Case, cfg: CfgNode, fixed: str) -> str:
    """Boxes may go, and then be listed; what is left must be right."""
    try:
        with time_limit():
            found = load(replace(case, spec=f"{fixed}:{case.root}", classes_file=None), cfg)
    except UserError:
        return ""  # what cannot be corrected is left, and found again
    except Hang:
        return "--fix HANG"
    except Exception as error:
        return f"--fix TRACEBACK {shown(error)}"
    right = [truth for truth, _ in case.accepted] + case.before
    known: set[Any] = {box for truth in right for box in truth.all_boxes()}
    new = [box for box in found.all_boxes() if box not in known]
    if new:
        return f"--fix made {new}"
    kept = _most_kept(found, right)
    if kept and "0 changes" in _changes(fixed):
        return f"--fix lost {kept} without a word"
    return ""


def _most_kept(found: Truth, right: list[Truth]) -> list[Any]:
    """Boxes of the nearest truth that are not there."""
    lost = [[b for b in truth.all_boxes() if b not in found.all_boxes()] for truth in right]
    return min(lost, key=len)


def _changes(fixed: str) -> str:
    with open(fixed.replace(".json", ".changes.json"), encoding="utf-8") as file:
        return "0 changes" if file.read().strip() == "[]" else ""
