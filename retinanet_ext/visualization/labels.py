"""Labels of boxes, so written and so placed that they hide as little as they can."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from PIL import ImageDraw, ImageFont

from .palette import DISTINCT, Color, ink_on

__all__ = ["LabelForm", "class_labels", "draw_labels", "load_font", "shortened"]

Box = tuple[int, int, int, int]

LABEL_PX, SMALL_PX = 16, 12
# Shares of boxes that labels may hide: so much of its own box costs a label nothing; a form is
# taken if its labels hide no more of the box hidden most, and of all boxes in the mean; a label
# that would hide more of one box is left out.
OWN_RIM, MOST_HIDDEN, MEAN_HIDDEN, TOO_MUCH = 0.1, 0.4, 0.1, 0.6
OTHER_LABEL = 3.0  # a hidden label is worse than a hidden part of a box


@dataclass(frozen=True)
class LabelForm:
    """One way to label all boxes of a picture.

    Attributes:
        texts: of the boxes; "" for no label.
        px: height of the letters.
    """

    texts: list[str]
    px: int


def class_labels(
    classes: Sequence[int], class_names: Sequence[str], scores: Sequence[float] | None = None
) -> list[LabelForm]:
    """Ways to say class and score of each box, the most telling one first.

    The last one is short: of few classes, colours say which, of many, their numbers, as the legend
    of a sheet has them.

    Args:
        classes: (N,) indices into ``class_names``.
        class_names: (K,).
        scores: (N,) in [0, 1].
    """
    ends = [""] * len(classes) if scores is None else [f"{float(x):.2f}" for x in scores]
    names = [class_names[int(k)] for k in classes]
    many = len(class_names) > DISTINCT
    numbers = [str(int(k) + 1) + ":" * (scores is not None) if many else "" for k in classes]
    full = [f"{name} {end}".strip() for name, end in zip(names, ends, strict=True)]
    short = [
        f"{number} {end.removeprefix('0')}".strip()
        for number, end in zip(numbers, ends, strict=True)
    ]
    return [LabelForm(full, LABEL_PX), LabelForm(full, SMALL_PX), LabelForm(short, SMALL_PX)]


def draw_labels(
    pen: ImageDraw.ImageDraw,
    forms: Sequence[LabelForm],
    boxes: Sequence[Box],
    colors: Sequence[Color],
    canvas: tuple[int, int],
) -> None:
    """Write a label at each box, in the first form that hides little; the first box comes first.

    Where even the last form hides most of an object, that label is left out.

    Args:
        pen: draws on a canvas of (width, height) ``canvas``, px.
        forms: ways to label the boxes.
        boxes: XYXY in px, the last pixel included.
        colors: of the boxes.
    """
    if not boxes:
        return
    extents = np.asarray(boxes, dtype=float) + np.array([0, 0, 1, 1])
    for form in forms:
        places, hidden = _place_all(form, extents, canvas)
        if hidden.max() <= MOST_HIDDEN and hidden.mean() <= MEAN_HIDDEN:
            break
    for place, text, color in reversed(list(zip(places, form.texts, colors, strict=True))):
        if place is not None:
            _draw_label(pen, shortened(text, form.px, canvas[0] - 8), place, color, form.px)


def shortened(text: str, px: int, room: float, keep: str = "start") -> str:
    """As much of ``text`` as is at most ``room`` px wide, its cut marked by an ellipsis.

    Args:
        text: one line.
        px: size of the font.
        room: px.
        keep: "start" or "end" of the text.
    """
    font = load_font(px)
    if font.getlength(text) <= room:
        return text
    for length in range(len(text) - 1, 0, -1):
        cut = f"\u2026{text[-length:]}" if keep == "end" else f"{text[:length].rstrip(' ,')}\u2026"
        if font.getlength(cut) <= room:
            return cut
    return "\u2026"


@functools.cache
def load_font(px: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib (Detectron2 needs that) and knows most scripts."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(os.path.join(matplotlib.get_data_path(), "fonts", "ttf", name), px)


def _place_all(
    form: LabelForm, boxes: np.ndarray, canvas: tuple[int, int]
) -> tuple[list[Box | None], np.ndarray]:
    """The place of each label, None for none, and the share (N,) of each box that is hidden."""
    taken = np.zeros((0, 4))
    places: list[Box | None] = []
    hidden = np.zeros(len(boxes))
    for i, text in enumerate(form.texts):
        if not text:
            places.append(None)
            continue
        text = shortened(text, form.px, canvas[0] - 8)
        size = round(load_font(form.px).getlength(text)) + form.px // 2, form.px + form.px // 3 + 1
        candidates = _candidates(boxes[i], size, canvas)
        shares = _overlaps(candidates, boxes) / _areas(boxes)
        labels = _overlaps(candidates, taken).sum(axis=1) / (size[0] * size[1])
        cost = shares.sum(axis=1) - np.minimum(shares[:, i], OWN_RIM) + OTHER_LABEL * labels
        best = int(cost.argmin())
        if (hidden + shares[best]).max() > TOO_MUCH or labels[best] > TOO_MUCH:
            hidden[i] = max(hidden[i], MOST_HIDDEN) + 1e-6  # another form may have room for it
            places.append(None)
            continue
        hidden += shares[best]
        left, top, right, bottom = candidates[best].astype(int).tolist()
        places.append((left, top, right, bottom))
        taken = np.concatenate([taken, candidates[[best]]])
    return places, hidden


def _candidates(box: np.ndarray, size: tuple[int, int], canvas: tuple[int, int]) -> np.ndarray:
    """(C, 4) places around a box, then within it; all on the canvas."""
    x0, y0, x1, y1 = box
    w, h = size
    middle = (y0 + y1 - h) / 2
    corners = [(x0, y0 - h), (x1 - w, y0 - h), (x0, y1), (x1 - w, y1)]  # above and below
    corners += [(x1, y0), (x0 - w, y0), (x1, y1 - h), (x0 - w, y1 - h)]  # on the right and left
    corners += [(x1, middle), (x0 - w, middle)]
    corners += [(x0, y0), (x1 - w, y0), (x0, y1 - h), (x1 - w, y1 - h)]  # inside
    left = np.clip([x for x, _ in corners], 0, max(canvas[0] - w, 0)).round()
    top = np.clip([y for _, y in corners], 0, max(canvas[1] - h, 0)).round()
    return np.stack([left, top, left + w, top + h], axis=1)


def _overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(A, B) areas in px that the boxes (A, 4) and (B, 4) share."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    return (high - low).clip(min=0).prod(axis=2)


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)


def _draw_label(
    pen: ImageDraw.ImageDraw, text: str, place: Box, color: Color, px: int = LABEL_PX
) -> None:
    x0, y0, x1, y1 = place
    pen.rounded_rectangle((x0, y0, x1 - 1, y1 - 1), 3, fill=(*color, 235))
    pen.text((x0 + px // 4, (y0 + y1) / 2), text, ink_on(color), load_font(px), anchor="lm")
