"""Pictures to predict, and the command ``predict`` called on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from retinanet_ext.cli import main
from retinanet_ext.inference.outputs import read_lines

SIZES = ((64, 80), (100, 70), (64, 64), (70, 100))
"""Height and width of the pictures of :func:`write_photos`."""


def write_photos(folder: Path) -> Path:
    """Four pictures of random patches: ``0.png`` and so on."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i, (height, width) in enumerate(SIZES):
        coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)
        picture.save(folder / f"{i}.png")
    return folder


def predict(*words: object, expected: int = 0) -> list[dict]:
    """Run the command with its results in ``out``; the lines it wrote."""
    assert main(["predict", "--output", "out", *map(str, words)]) == expected
    return list(read_lines("out/predictions.jsonl")) if Path("out").exists() else []


def without_times(records: list[dict]) -> list[dict]:
    """The lines without what differs from run to run."""
    return [{k: v for k, v in record.items() if k != "ms"} for record in records]
