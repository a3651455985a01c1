"""The course of the training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..charts.axes import Axis, Plot, axis_from_zero
from ..charts.legend import figure
from ..html import section

__all__ = ["training"]

NAMES = {"total_loss": "total", "loss_cls": "classes", "loss_box_reg": "boxes"}
MOST_LINES = 8


def training(content: Mapping[str, Any]) -> str:
    """The section; nothing without a training."""
    curves = content.get("training")
    if not curves:
        return ""
    last = max(
        (x["iteration"][-1] for x in (*curves["train"].values(), *curves["evaluations"].values())),
        default=0,
    )
    across = axis_from_zero(max(last, 1), "iteration")
    resumes = curves["resumes"]
    results = {k: v for k, v in curves["evaluations"].items() if not _is_loss(k)}
    losses = {k: v for k, v in curves["evaluations"].items() if _is_loss(k)}
    parts = [
        _losses(curves["train"], losses, across, resumes),
        _results(results, across, resumes),
    ]
    lead = ""
    if resumes:
        lead = "Dashed upright lines: where the training was resumed."
    return section("training", "Training", f'<div class="two">{"".join(parts)}</div>', lead=lead)


def _losses(
    train: Mapping[str, Any], val: Mapping[str, Any], across: Axis, resumes: Sequence[int]
) -> str:
    shown = {k: v for k, v in train.items() if k != "lr"}
    if not shown and not val:
        return ""
    values = [y for curve in (*shown.values(), *val.values()) for y in curve["value"]]
    rates = train.get("lr")
    right = axis_from_zero(max(rates["value"]), "learning rate") if rates else None
    plot = Plot(across, axis_from_zero(_high(values), "loss"), "Losses over the training", right)
    entries = []
    if rates:
        plot.line(rates["iteration"], rates["value"], "quiet", "learning rate", on_right=True)
    for i, (name, curve) in enumerate(list(shown.items())[:MOST_LINES]):
        title = f"training, {NAMES.get(name, name)}"
        plot.line(curve["iteration"], curve["value"], f"c{i}", title)
        entries.append((f"c{i}", title))
    for name, curve in list(val.items())[: MOST_LINES - len(entries)]:
        color, title = f"c3{_dash(name)}", f"validation, {_called(name)}"
        plot.line(curve["iteration"], curve["value"], color, title, dots=True)
        entries.append((color, title))
    if rates:
        entries.append(("quiet", "learning rate (right axis)"))
    for start in resumes:
        plot.upright(start, f"resumed at iteration {start}")
    return figure("Losses", plot.svg(), "", entries)


def _results(results: Mapping[str, Any], across: Axis, resumes: Sequence[int]) -> str:
    if not results:
        return ""
    values = [y for curve in results.values() for y in curve["value"]]
    plot = Plot(across, axis_from_zero(max(values), "AP"), "Results over the training")
    entries = []
    raw = list(dict.fromkeys(name.replace("ema/", "") for name in results))
    for name, curve in list(results.items())[:MOST_LINES]:
        color, title = f"c{raw.index(name.replace('ema/', ''))}{_dash(name)}", _called(name)
        plot.line(curve["iteration"], curve["value"], color, title, dots=True)
        entries.append((color, title))
    for start in resumes:
        plot.upright(start, f"resumed at iteration {start}")
    once = len(next(iter(results.values()))["iteration"]) == 1
    caption = (
        "Evaluated once, at the end; <code>TEST.EVAL_PERIOD</code> makes it more often."
        if once
        else ""
    )
    return figure("Results on the validation set", plot.svg(), caption, entries)


def _called(name: str) -> str:
    """A result's name in short."""
    average = "EMA " if "ema/" in name else ""
    return average + name.replace("ema/", "").replace("bbox/", "").replace("val_loss/", "")


def _dash(name: str) -> str:
    """Results of the average of the weights are dashed lines in the colour of the raw ones."""
    return " dashed" if "ema/" in name else ""


def _is_loss(name: str) -> bool:
    return "loss" in name.lower()


def _high(values: Sequence[float]) -> float:
    """The highest value but for a few spikes, such as those of the first steps."""
    ordered = sorted(values)
    usual = ordered[int(0.98 * (len(ordered) - 1))]
    return min(ordered[-1], 2 * usual) if usual > 0 else ordered[-1]
