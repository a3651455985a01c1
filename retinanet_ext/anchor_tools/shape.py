"""Anchors of all levels by a few numbers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..boxes import AnchorLevel
from ..modeling.anchor_sizes import octave_sizes

__all__ = ["AnchorShape", "shape_of"]


@dataclass(frozen=True)
class AnchorShape:
    """Anchors of all levels.

    Attributes:
        base: square root of the smallest anchor's area on the first level, in pixels.
        scales: sizes per octave.
        ratios: height / width, rising.
        largest: no anchor's area has a larger square root, in pixels: what is larger than the
            pictures fits no object.
    """

    base: float
    scales: int
    ratios: tuple[float, ...]
    largest: float = math.inf

    def octave_base_sizes(self, strides: Sequence[float]) -> list[float]:
        """One per level: the base grows as the stride does, until the largest size is reached."""
        limit = self.largest / 2 ** ((self.scales - 1) / self.scales)
        return [min(self.base * stride / strides[0], limit) for stride in strides]

    def levels(self, strides: Sequence[float], offset: float) -> list[AnchorLevel]:
        """The anchors of each level."""
        sizes = octave_sizes(self.octave_base_sizes(strides), self.scales)
        # height / width = ratio and height * width = size^2
        width = [np.divide.outer(np.asarray(x), np.sqrt(self.ratios)).ravel() for x in sizes]
        height = [np.multiply.outer(np.asarray(x), np.sqrt(self.ratios)).ravel() for x in sizes]
        return [
            AnchorLevel(stride, np.stack([-w, -h, w, h], axis=1) / 2, offset)
            for stride, w, h in zip(strides, width, height, strict=True)
        ]

    def rounded(self) -> AnchorShape:
        """As it is written to a config: the first base to 0.1 pixels, ratios to 3 digits."""
        ratios = tuple(sorted(round(x, 3) for x in self.ratios))
        return dataclasses.replace(self, base=round(self.base, 1), ratios=ratios)

    def coarsely_rounded(self, kept: AnchorShape) -> AnchorShape:
        """Numbers that are easily read: a base from 10 pixels on to whole ones, else to 0.1, and
        ratios to 2 digits. What is as in ``kept`` stays as it is."""
        base, ratios = self.base, self.ratios
        if base != kept.base:
            base = float(round(base)) if base >= 10 else round(base, 1)
        if ratios != kept.ratios:
            ratios = tuple(sorted(float(f"{x:.2g}") for x in ratios))
        return dataclasses.replace(self, base=base, ratios=ratios)


def shape_of(level: AnchorLevel) -> AnchorShape:
    """Base, number of scales and ratios that a level's anchors have."""
    width, height = (np.asarray(level.cells, float)[:, 2:] - level.cells[:, :2]).T
    sizes = np.unique(np.round(np.log2(width * height) / 2, 3))
    ratios = np.unique(np.round(height / width, 3))
    return AnchorShape(float(np.sqrt((width * height).min())), len(sizes), tuple(ratios.tolist()))
