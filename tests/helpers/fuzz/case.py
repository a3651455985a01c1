"""One variation: the files, what may become of them, and the mutations that know it."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.helpers import four_formats
from tests.helpers.fuzz.truth import Option, Truth, truth_of

__all__ = ["CONTENT", "FORMATS", "LATE", "Case", "Template", "content", "late"]

FORMATS = four_formats.FORMATS
CLASSES = ("ant", "b\u00ebe", "cat")  # one that is not ASCII

Mutation = Callable[["Case", random.Random], None]
CONTENT: dict[str, list[Mutation]] = {kind: [] for kind in FORMATS}
"""Mutations of values, which leave all entries at their places."""
LATE: dict[str, list[Mutation]] = {kind: [] for kind in FORMATS}
"""Mutations of structure, text, bytes and files, of which each variation has one at most."""


@dataclass
class Case:
    """Files below ``root`` and what is right of them.

    Attributes:
        accepted: results that are right, each with whether a warning must be there.
        may_refuse: whether an error of one sentence is right, too.
        touched: parts of names, one of which each message must hold.
        places: words for the place, one of which an error must hold; none to ask for nothing.
        notes: what was done, for people.
        before: what was right before the last mutation.
    """

    kind: str
    root: Path
    spec: str
    truth: Truth
    accepted: list[tuple[Truth, bool]]
    classes_file: str | None = None
    may_refuse: bool = False
    touched: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    before: list[Truth] = field(default_factory=list)

    def expect(
        self,
        note: str,
        *options: Option,
        touched: str,
        refuse: bool = False,
        places: tuple[str, ...] = (),
    ) -> None:
        """Say what is right after a mutation: one of ``options``, or an error with ``refuse``.

        Without options only an error is right.
        """
        self.notes.append(note)
        self.touched.append(touched)
        self.places += places
        self.may_refuse |= refuse or not options
        self.before += [truth for truth, _ in self.accepted]
        results = []
        for truth, said in self.accepted:
            for option in options:
                changed = truth.copy()
                if option.edit:
                    option.edit(changed)
                results.append((changed, said or option.said))
        self.accepted = results

    @property
    def images(self) -> Path:
        """The folder of the pictures."""
        names = {"voc": "JPEGImages", "yolo": "images"}
        return self.root / names.get(self.kind, "pictures")

    def annotation_file(self, rng: random.Random) -> Path:
        """One of the files of annotations."""
        files = {
            "coco": ["boxes.json"],
            "csv": ["boxes.csv"],
            "voc": [f"Annotations/{Path(x).stem}.xml" for x in self.truth.sizes],
            "yolo": [
                f"labels/{Path(name).stem}.txt" for name, boxes in self.truth.boxes.items() if boxes
            ],
        }
        return self.root / rng.choice(files[self.kind])

    def pick(self, rng: random.Random) -> tuple[str, int]:
        """A picture with boxes, and the place of one of them."""
        names = [name for name, boxes in self.truth.boxes.items() if boxes]
        name = rng.choice(names)
        return name, rng.choice(sorted(self.truth.boxes[name]))


class Template:
    """A dataset without faults, which each variation copies."""

    def __init__(self, kind: str, root: Path, seed: int):
        pictures = four_formats.some_pictures(4, seed)
        rename = dict(zip(("ant", "bee", "cat"), CLASSES, strict=True))
        for picture in pictures:
            picture.boxes = [(rename[label], *box) for label, *box in picture.boxes]
        self.kind, self.root = kind, root
        self.truth = truth_of(pictures, CLASSES)
        four_formats.write(kind, root, pictures, list(CLASSES))
        if kind == "csv":
            (root / "classes.csv").write_text("\n".join(CLASSES), encoding="utf-8")

    def copy(self, root: Path, with_classes: bool) -> Case:
        """A new variation; ``with_classes``: a CSV comes with its list of classes."""
        shutil.copytree(self.root, root)
        spec = {"coco": f"{root}/boxes.json:{root}/pictures", "csv": f"{root}/boxes.csv"}
        classes = str(root / "classes.csv") if self.kind == "csv" and with_classes else None
        truth = self.truth.copy()
        start = [(truth.copy(), False)]
        return Case(self.kind, root, spec.get(self.kind, str(root)), truth, start, classes)


def content(*kinds: str) -> Callable[[Mutation], Mutation]:
    """Mark a mutation of values of these formats."""

    def mark(function: Mutation) -> Mutation:
        for kind in kinds:
            CONTENT[kind].append(function)
        return function

    return mark


def late(*kinds: str) -> Callable[[Mutation], Mutation]:
    """Mark a mutation of structure, text, bytes or files of these formats."""

    def mark(function: Mutation) -> Mutation:
        for kind in kinds:
            LATE[kind].append(function)
        return function

    return mark
