"""What a dataset says, independent of its format and of the code under test."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.helpers.four_formats import Picture

__all__ = ["Box", "Edit", "Option", "Truth", "box_becomes", "gone", "in_image", "same", "truth_of"]

SEEN_OVER_BORDER = 1.0  # pixels; less is rounding, and nothing is said


@dataclass
class Box:
    label: str
    corners: tuple[float, float, float, float]
    crowd: bool = False

    def key(self) -> tuple[Any, ...]:
        # + 0.0: -0.0 and 0.0 are one number
        return (self.label, *(round(x, 2) + 0.0 for x in self.corners), bool(self.crowd))


@dataclass
class Truth:
    """Class names in order; by picture, height and width, and its boxes by their first places."""

    classes: list[str]
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    boxes: dict[str, dict[Any, Box]] = field(default_factory=dict)

    def key(self) -> tuple[Any, ...]:
        pictures = {
            name: (self.sizes[name], sorted(box.key() for box in self.boxes[name].values()))
            for name in sorted(self.sizes)
        }
        return self.classes, pictures

    def copy(self) -> Truth:
        return copy.deepcopy(self)

    def all_boxes(self) -> list[tuple[Any, ...]]:
        return [(name, *b.key()) for name, boxes in self.boxes.items() for b in boxes.values()]


Edit = Callable[[Truth], None]


@dataclass(frozen=True)
class Option:
    """One result that is right: what the mutation made of the truth, and whether it must be said.

    ``said``: a warning has to name the file or the picture.
    """

    edit: Edit | None = None
    said: bool = False


same = Option()


def truth_of(pictures: Sequence[Picture], classes: Sequence[str]) -> Truth:
    truth = Truth(list(classes))
    for picture in pictures:
        truth.sizes[picture.name] = picture.height, picture.width
        truth.boxes[picture.name] = {
            place: Box(label, corners) for place, (label, *corners) in enumerate(picture.boxes)
        }
    return truth


def in_image(
    corners: Sequence[float], size: tuple[int, int]
) -> tuple[tuple[float, float, float, float] | None, bool]:
    """A box in order and within its picture, or None, and whether that is worth a word."""
    (x1, x2), (y1, y2) = sorted(corners[::2]), sorted(corners[1::2])
    turned = corners[0] > corners[2] or corners[1] > corners[3]
    height, width = size
    cut = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
    if cut[0] >= cut[2] or cut[1] >= cut[3]:
        return None, True
    over = max(abs(a - b) for a, b in zip(cut, (x1, y1, x2, y2), strict=True))
    return cut, turned or over > SEEN_OVER_BORDER


def gone(picture: str, place: Any) -> Option:
    """The box is left out, and that is said."""
    return Option(lambda truth: truth.boxes[picture].pop(place, None) and None, said=True)


def box_becomes(
    picture: str, place: Any, corners: Sequence[float], size: tuple[int, int]
) -> Option:
    """The box has these corners, brought in order and into its picture."""
    box, said = in_image(corners, size)
    if box is None:
        return gone(picture, place)

    def edit(truth: Truth) -> None:
        truth.boxes[picture][place].corners = box

    return Option(edit, said)
