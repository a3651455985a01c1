"""The top of the page: what was measured, the main numbers, and what stands out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...findings.reasons import TITLES
from ..html import esc, fixed, is_known, number, percent, points, short, signed
from .errors import MEANING

__all__ = ["facts", "stands_out", "tiles"]


def facts(content: Mapping[str, Any]) -> str:
    """The run in one line of html."""
    settings, run = content["settings"], content["run"]
    parts = [
        f"{_count(settings['images'], 'image')} of <b>{short(content['dataset'])}</b>",
        f"{_count(settings['objects'], 'object')} of "
        f"{_count(settings['classes'], 'class', 'classes')}",
        _count(settings["detections"], "detection"),
    ]
    if settings["crowds"]:
        parts.append(f"{_count(settings['crowds'], 'crowd')}, which do not count")
    if run:
        parts.append(_training(run))
    return " · ".join(x for x in parts if x)


def tiles(content: Mapping[str, Any]) -> str:
    """The main numbers."""
    summary, intervals = content["summary"], content.get("intervals", {})
    shown = [
        ("AP", "AP", "mean over IoU 0.50 to 0.95 and the classes"),
        ("AP50", "AP50", "AP at an IoU of 0.5"),
        ("AP75", "AP75", "AP at an IoU of 0.75: boxes must fit closely"),
        ("AR100", "AR", "recall, mean over IoU 0.50 to 0.95, with up to 100 detections per image"),
    ]
    if content["settings"]["classes"] > 1:
        shown.append(("AP50any", "AP50, any class", "AP50 of the boxes whatever class they get"))
    found = []
    for key, name, more in shown:
        interval = intervals.get(key)
        margin = ""
        if interval and is_known(interval["low"]):
            margin = (
                f'<small title="95 % of the draws of other images from this set lie in here">'
                f"{points(interval['low'])} to {points(interval['high'])}</small>"
            )
        found.append(
            f'<div class="tile" title="{esc(more)}"><span>{esc(name)}</span>'
            f"<b>{points(summary.get(key))}</b>{margin}</div>"
        )
    for key, value in content.get("masks", {}).items():
        found.append(
            f'<div class="tile" title="by the overlap of masks, as the training evaluated it">'
            f"<span>{esc(key)} of masks</span><b>{points(value)}</b></div>"
        )
    note = ""
    if intervals:
        note = (
            '<p class="note">Under a number: where it lies with other images of the same kind '
            "(95 % interval, bootstrap over images).</p>"
        )
    return f'<div class="tiles">{"".join(found)}</div>{note}'


def stands_out(content: Mapping[str, Any]) -> str:
    """The main findings, as a list."""
    found = [*_compared(content), *_classes(content), *_errors(content), *_missed(content)]
    found += [esc(_capital(text)) for text in content["remarks"]]
    if content.get("advice"):
        found.append(
            f'<a href="#try">{_count(len(content["advice"]), "suggestion")}</a> what to try next, '
            "at the end of the page"
        )
    if not found:
        return ""
    return f'<ul class="findings">{"".join(f"<li>{x}.</li>" for x in found)}</ul>'


def _training(run: Mapping[str, Any]) -> str:
    text = ""
    if isinstance(run.get("iterations"), int):
        text = f"trained for {_count(run['iterations'], 'iteration')}"
        if isinstance(run.get("seconds"), int | float):
            text += f" in {_duration(run['seconds'])}"
        if run.get("device"):
            text += f" on {esc(run['device'])}"
    if run.get("status") not in (None, "finished"):
        text += f" ({esc(run['status'])})"
    if isinstance(run.get("started"), str):
        text += f", started {esc(run['started'][:16].replace('T', ' '))}"
    return text


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _compared(content: Mapping[str, Any]) -> list[str]:
    compared = content.get("compare")
    if not compared or "AP" not in compared:
        return []
    change = compared["AP"]
    return [
        f"Against {short(compared['with'])}: AP {signed(change['delta'])} "
        f"({signed(change['low'])} to {signed(change['high'])}), {verdict(change)}"
    ]


def verdict(change: Mapping[str, float]) -> str:
    """Whether a difference may be chance."""
    if change["low"] > 0:
        return "better, and hardly by chance"
    if change["high"] < 0:
        return "worse, and hardly by chance"
    if change["low"] == change["high"] == 0:
        return "no difference"
    return "which may be chance with so few images"


def _classes(content: Mapping[str, Any]) -> list[str]:
    rows = {k: v for k, v in content["classes"].items() if v["n"] and is_known(v["AP"])}
    if len(rows) < 2:
        return []
    ordered = sorted(rows, key=lambda name: rows[name]["AP"])
    low, high = ordered[0], ordered[-1]
    return [
        f"Weakest class: {short(low, 30)} (AP {points(rows[low]['AP'])}); strongest: "
        f"{short(high, 30)} (AP {points(rows[high]['AP'])})"
    ]


def _errors(content: Mapping[str, Any]) -> list[str]:
    gains = {k: v for k, v in content["errors"].items() if k in content["error_counts"]}
    kind = max(gains, key=lambda x: gains[x])
    if not gains[kind] > 0.05:
        return []
    return [
        f"Most is lost to {esc(MEANING[kind].short)}: repaired, AP{_at(content)} would rise by "
        f"{fixed(gains[kind])} points"
    ]


def _missed(content: Mapping[str, Any]) -> list[str]:
    missed = content.get("missed")
    if not missed or not missed.get("total"):
        return []
    reason, often = max(missed["reasons"].items(), key=lambda x: x[1])
    share = often / missed["total"]
    return [
        f"{_count(missed['total'], 'object')} missed; the most frequent reason "
        f"({percent(share)}): {esc(TITLES[reason])}"
    ]


def _at(content: Mapping[str, Any]) -> str:
    iou = content["settings"]["iou"]
    return "50" if iou == 0.5 else f" at IoU {iou:g}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".")


def _count(value: int, what: str, plural: str = "") -> str:
    return f"{number(value)} {what if value == 1 else plural or what + 's'}"
