"""Reports of made-up detections, and what is in their pages."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from retinanet_ext.cli import main

from .coco_results import as_results
from .coco_scenes import CLASSES, SIZE, noisy_predictions, random_ground_truth

__all__ = ["Page", "lay_out", "pictures", "read", "report", "scene"]

VOID = {"meta", "img", "link", "br", "input", "line", "circle", "rect"}


def scene(
    seed: int = 0, classes: tuple[str, ...] = CLASSES, **options: Any
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ground truth and imperfect COCO results."""
    rng = np.random.default_rng(seed)
    truth = random_ground_truth(rng, classes=classes, **options)
    return truth, as_results(noisy_predictions(rng, truth, noise=0.08))


def lay_out(truth: dict[str, Any], results: list[dict[str, Any]]) -> list[str]:
    """Write both files to the current folder; the words that name them."""
    Path("val.json").write_text(json.dumps(truth))
    Path("found.json").write_text(json.dumps(results))
    return ["report", "--predictions", "found.json", "--annotations", "val.json"]


def report(truth: dict[str, Any], results: list[dict[str, Any]], *words: str) -> dict[str, Any]:
    """Write a report to the current folder; the content of its json."""
    assert main([*lay_out(truth, results), "--bootstrap", "20", *words]) == 0
    return read()


def read() -> dict[str, Any]:
    return json.loads(Path("report.json").read_text())


def pictures(truth: dict[str, Any], folder: Path, **save: Any) -> None:
    """Write the pictures of the scenes, noise, as JPEG whatever their names end in."""
    folder.mkdir(parents=True, exist_ok=True)
    for image in truth["images"]:
        pixels = np.random.default_rng(image["id"]).integers(0, 256, (SIZE // 8, SIZE // 8, 3))
        small = Image.fromarray(pixels.astype(np.uint8)).resize((SIZE, SIZE))
        small.save(folder / image["file_name"], "JPEG", **save)


class Page(HTMLParser):
    """What a browser makes of a page: its elements and its text.

    Attributes:
        elements: tag and attributes of each, in order.
        text: of all but scripts and styles.
        scripts: their content.
        unclosed: tags that were opened and not closed.
    """

    def __init__(self, path: str | Path = "report.html"):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: list[str] = []
        self.unclosed: list[str] = []
        self.source = Path(path).read_text("utf-8")
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.unclosed.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        assert self.unclosed and self.unclosed[-1] == tag, (tag, self.unclosed[-3:], self.getpos())
        self.unclosed.pop()

    def handle_data(self, data: str) -> None:
        if self.unclosed[-1:] == ["script"]:
            self.scripts.append(data)
        elif self.unclosed[-1:] != ["style"]:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Attributes of the elements of this tag."""
        return [attrs for name, attrs in self.elements if name == tag]

    def ids(self) -> list[str]:
        """Of the sections, in order."""
        return [str(attrs["id"]) for attrs in self.all("section")]
