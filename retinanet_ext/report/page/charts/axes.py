"""Axes with round numbers, and a drawing area in between."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..html import esc

__all__ = ["Axis", "Plot", "axis_from_zero", "axis_of", "unit_axis"]

WIDTH, HEIGHT = 430, 290
LEFT, RIGHT, TOP, BOTTOM = 50, 14, 12, 44
RIGHT_AXIS = 66
MOST_TICKS = 6


@dataclass(frozen=True)
class Axis:
    """A range of numbers.

    Attributes:
        low, high: its ends.
        ticks: numbers to be written.
        label: what they are.
    """

    low: float
    high: float
    ticks: Sequence[float]
    label: str

    def place(self, value: float) -> float:
        """Where the value is, from 0 at the low end to 1 at the high end."""
        return (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)


def unit_axis(label: str) -> Axis:
    """From 0 to 1."""
    return Axis(0.0, 1.0, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0), label)


def axis_from_zero(highest: float, label: str) -> Axis:
    """From 0 to a round number that is at least ``highest``."""
    return axis_of(0.0, highest, label)


def axis_of(lowest: float, highest: float, label: str) -> Axis:
    """Between round numbers that hold both."""
    spread = highest - lowest
    if not math.isfinite(spread) or spread <= 0:
        highest, spread = lowest + 1, 1.0
    step = _round_step(spread / (MOST_TICKS - 1))
    first, last = math.floor(lowest / step + 1e-9), math.ceil(highest / step - 1e-9)
    ticks = [i * step for i in range(first, last + 1)]
    return Axis(ticks[0], ticks[-1], ticks, label)


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(x * power for x in (1, 2, 2.5, 5, 10) if x * power >= step * (1 - 1e-9))


class Plot:
    """A chart that is being drawn.

    Colours are classes of the style sheet: ``c0`` to ``c8``, ``quiet``.
    """

    def __init__(self, x: Axis, y: Axis, title: str, right: Axis | None = None):
        """
        Args:
            x, y: the axes.
            title: what the chart shows, for those who cannot see it.
            right: a second y axis.
        """
        self._x, self._y, self._right, self._title = x, y, right, title
        self._end = WIDTH - (RIGHT_AXIS if right else RIGHT)
        self._parts: list[str] = []

    def at(self, x: float, y: float, on_right: bool = False) -> tuple[float, float]:
        """Where a point is in the picture."""
        axis = self._right if on_right and self._right else self._y
        across = LEFT + self._x.place(x) * (self._end - LEFT)
        return across, HEIGHT - BOTTOM - axis.place(y) * (HEIGHT - BOTTOM - TOP)

    def line(
        self,
        x: Sequence[float],
        y: Sequence[float],
        color: str,
        name: str,
        on_right: bool = False,
        dots: bool = False,
    ) -> None:
        """A line through points; of one point, or with ``dots``, dots as well."""
        places = [self.at(a, b, on_right) for a, b in zip(x, y, strict=True)]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
        inner = f"<title>{esc(name)}</title>"
        if len(places) > 1:
            self._parts.append(f'<polyline class="line {color}" points="{path}">{inner}</polyline>')
        if dots or len(places) == 1:
            self._parts += [
                f'<circle class="dot {color}" cx="{a:.1f}" cy="{b:.1f}" r="3">'
                f"<title>{esc(name)}: {value:.4g}</title></circle>"
                for (a, b), value in zip(places, y, strict=True)
            ]

    def dot(self, x: float, y: float, color: str, name: str) -> None:
        """A point that stands out."""
        a, b = self.at(x, y)
        self._parts.append(
            f'<circle class="dot {color}" cx="{a:.1f}" cy="{b:.1f}" r="4.5">'
            f"<title>{esc(name)}</title></circle>"
        )

    def bar(self, low: float, high: float, y: float, color: str, name: str) -> None:
        """A bar from the x axis up, from ``low`` to ``high`` on that."""
        left, top = self.at(low, y)
        right, bottom = self.at(high, self._y.low)
        self._parts.append(
            f'<rect class="bar {color}" x="{left + 1:.1f}" y="{top:.1f}" '
            f'width="{max(right - left - 2, 1):.1f}" height="{max(bottom - top, 0):.1f}">'
            f"<title>{esc(name)}</title></rect>"
        )

    def upright(self, x: float, name: str) -> None:
        """A dashed line across the chart at ``x``."""
        (a, top), (_, bottom) = self.at(x, self._y.high), self.at(x, self._y.low)
        self._parts.append(
            f'<line class="mark" x1="{a:.1f}" y1="{top:.1f}" x2="{a:.1f}" y2="{bottom:.1f}">'
            f"<title>{esc(name)}</title></line>"
        )

    def diagonal(self, name: str) -> None:
        """A dashed line from corner to corner."""
        (a, b), (c, d) = self.at(self._x.low, self._y.low), self.at(self._x.high, self._y.high)
        self._parts.append(
            f'<line class="mark" x1="{a:.1f}" y1="{b:.1f}" x2="{c:.1f}" y2="{d:.1f}">'
            f"<title>{esc(name)}</title></line>"
        )

    def svg(self) -> str:
        """The picture."""
        frame = [*self._grid(), *self._labels()]
        return (
            f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            f'aria-label="{esc(self._title)}">{"".join(frame)}{"".join(self._parts)}</svg>'
        )

    def _grid(self) -> list[str]:
        found, bottom = [], HEIGHT - BOTTOM
        for value in self._y.ticks:
            _, y = self.at(self._x.low, value)
            found += [_rule(LEFT, y, self._end, y), _text("end", LEFT - 6, y + 4, value)]
        for value in self._x.ticks:
            x, _ = self.at(value, self._y.low)
            found += [_rule(x, TOP, x, bottom), _text("mid", x, bottom + 16, value)]
        for value in self._right.ticks if self._right else ():
            _, y = self.at(self._x.low, value, on_right=True)
            found.append(_text("start", self._end + 6, y + 4, value))
        return found

    def _labels(self) -> list[str]:
        middle, upright = (LEFT + self._end) / 2, (TOP + HEIGHT - BOTTOM) / 2
        found = [
            f'<text class="label mid" x="{middle}" y="{HEIGHT - 8}">{esc(self._x.label)}</text>',
            f'<text class="label mid" transform="translate(13 {upright}) rotate(-90)">'
            f"{esc(self._y.label)}</text>",
        ]
        if self._right:
            found.append(
                f'<text class="label mid" transform="translate({WIDTH - 5} {upright}) rotate(-90)">'
                f"{esc(self._right.label)}</text>"
            )
        return found


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="grid" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(anchor: str, x: float, y: float, value: float) -> str:
    return f'<text class="tick {anchor}" x="{x:.1f}" y="{y:.1f}">{_tick(value)}</text>'


def _tick(value: float) -> str:
    """A short number; 0.0001 as 1e-4."""
    if value == 0:
        return "0"
    if abs(value) < 0.001:
        mantissa, _, power = f"{value:.1e}".partition("e")
        return f"{float(mantissa):g}e{int(power)}"
    if abs(value) >= 10000:
        return f"{value / 1000:g}k"
    return f"{value:.4g}"
