"""Finding pictures whose paths were written on another machine, or from another folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detectron2.utils.logger import log_first_n

from ...errors import MissingFileError

__all__ = [
    "CLASS_LISTS",
    "LABEL_FOLDERS",
    "PART_NAMES",
    "XML_FOLDERS",
    "Place",
    "find_images",
    "find_in_one_of",
    "find_place",
    "path_parts",
    "sample_of",
    "say_found",
    "subfolder",
    "tail",
]

# What tools call the parts of a dataset, its folders and its lists.
PART_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
CLASS_LISTS = ("classes.txt", "obj.names")
LABEL_FOLDERS = ("labels", "obj_train_data")
XML_FOLDERS = ("Annotations",)  # VOC's, in any case
SAMPLE = 100  # names that are looked for; a folder that has none of them is not the right one


@dataclass(frozen=True)
class Place:
    """Where pictures are: in ``folder``, by their names as :func:`tail` shortens them."""

    folder: str
    dropped: int = 0

    def path(self, name: str) -> str:
        """The path of the picture that annotations call ``name``."""
        return os.path.join(self.folder, tail(name, self.dropped))


def path_parts(name: str) -> list[str]:
    """``"C:\\\\a\\\\b.jpg"`` -> ``["C:", "a", "b.jpg"]``: both kinds of slashes, no dots."""
    return [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]


def tail(name: str, dropped: int) -> str:
    """All of ``name`` with 0; with 1 without root and dots, with more without its first parts."""
    parts = path_parts(name)
    if not dropped or not parts:
        return name.replace("\\", "/")
    return "/".join(parts[min(dropped, len(parts)) - 1 :])


def find_place(names: Sequence[str], folders: Sequence[str | os.PathLike[str]]) -> Place | None:
    """The first of ``folders`` that holds some of the pictures ``names``, as they are called there.

    Names are tried as they are; then without root and dots, without their first part, their first
    two and so on, unless two of them would become one.

    Returns:
        None where no folder holds any of :data:`SAMPLE` of them, evenly chosen.
    """
    sample = sample_of(names)
    depth = max((len(path_parts(name)) for name in sample), default=1)
    for dropped in range(depth + 1):
        for folder in folders:
            place = Place(os.fspath(folder), dropped)
            if any(os.path.isfile(place.path(name)) for name in sample):
                return place if not dropped or _stay_different(names, dropped) else None
    return None


def find_images(path: str, names: list[str], folder: str = "") -> Place:
    """Where the images of a json are: in ``folder``, or else in one of the usual ones beside it.

    Raises:
        FileNotFoundError: none of them is there, and no folder is given; says what was looked for.
    """
    split = Path(path).stem.removeprefix("instances_")
    root, beside = Path(path).parent.parent, Path(path).parent
    usual = [
        beside,
        beside / "images",
        beside / "images" / split,
        beside / split,
        beside / Path(path).stem,
        root,
        root / "images",
        root / split,
        root / "images" / split,
    ]
    folders = [Path(folder)] if folder else list(dict.fromkeys(usual))
    place = find_place(names, folders)
    if place is None:
        rest = (Place(os.fspath(x)) for x in folders)
        place = next((x for x in rest if any(os.path.isfile(x.path(name)) for name in names)), None)
    if place is None and folder:
        return Place(folder)
    if place is None:
        bases = [beside, root] if beside.name.lower() == "annotations" else [beside]
        place = next((x for base in bases if (x := find_in_one_of(names, base))), None)
    if place is None:
        raise MissingFileError(
            f"{path}: image {names[0]} is in none of {', '.join(map(str, folders))}, nor is any of "
            f"the {len(names)}; say where, as {path}:IMAGE_DIR or IMAGES"
        )
    if place.dropped:
        say_found(path, names, place)
    return place


def find_in_one_of(names: Sequence[str], base: Path) -> Place | None:
    """The one folder in ``base``, whatever its name, that holds some of the pictures ``names``.

    Returns:
        None where none does, or several do.
    """
    folders = (x for x in sorted(base.iterdir()) if x.is_dir() and not x.name.startswith("."))
    found = [place for x in folders if (place := find_place(names, [x]))]
    return found[0] if len(found) == 1 else None


def say_found(path: str, names: Sequence[str], place: Place) -> None:
    """Say once where pictures were found that are not where the file ``path`` has them."""
    shown = tail(names[0], place.dropped)
    text = f"its pictures are not where it says ({names[0]}) and were found in {place.folder}"
    log_first_n(logging.WARNING, f"{path}: {text} ({shown})", key="message")


def subfolder(path: Path, *names: str) -> Path | None:
    """The first of these folders in ``path``, in whatever case it is written."""
    if not path.is_dir():
        return None
    found = {entry.name.lower(): Path(entry.path) for entry in os.scandir(path) if entry.is_dir()}
    chosen = [path / name for name in names if (path / name).is_dir()]
    chosen += [found[name.lower()] for name in names if name.lower() in found]
    return chosen[0] if chosen else None


def sample_of(names: Sequence[str]) -> list[str]:
    """At most :data:`SAMPLE` of the names, evenly chosen, the first among them."""
    return list(names[:: max(1, -(-len(names) // SAMPLE))])


def _stay_different(names: Sequence[str], dropped: int) -> bool:
    before = {os.path.normpath(tail(name, 0)) for name in names}
    return len({tail(name, dropped) for name in names}) == len(before)
