"""YOLO's data.yaml: class names, and where the images of each list are, on whatever machine."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ...errors import InputError, MissingFileError, one_line
from ...untrusted import YAML_BYTES, compose_yaml
from .images import is_hidden, is_image
from .places import (
    CLASS_LISTS,
    LABEL_FOLDERS,
    PART_NAMES,
    Place,
    find_place,
    path_parts,
    say_found,
    subfolder,
    tail,
)
from .plain_text import DataYamlLoader, read_text
from .table import Inputs, Source

__all__ = ["has_val", "load_data_yaml", "yolo_images", "yolo_subsets"]

SUBSETS = tuple(PART_NAMES)

logger = logging.getLogger(__name__)


def load_data_yaml(path: str) -> dict[str, Any]:
    """Content of a data.yaml, in which no Python object can hide; its lists are named as here.

    A list of class names (classes.txt, obj.names) is taken for one, with the images beside it.

    Raises:
        ValueError: the file is not yaml, or lists no class names.
    """
    if os.path.basename(path) in CLASS_LISTS:
        return _from_class_list(Path(path))
    try:
        text = read_text(path, YAML_BYTES)
        compose_yaml(path, text)
        content = yaml.load(text, DataYamlLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{path} is not safe yaml: {one_line(error)}") from error
    if not isinstance(content, dict) or not isinstance(content.get("names"), (list, dict)):
        raise InputError(f"{path} is not a YOLO data.yaml: it has no 'names'")
    for part, names in PART_NAMES.items():  # some tools write valid for val
        given = next((content[name] for name in names if content.get(name)), None)
        if given is not None:
            content[part] = given
    if content.get("train") and content.get("test") and not _is_there(path, content, "val"):
        if content.get("val") and not _is_there(path, content, "test"):
            return content
        content["val"] = content["test"]  # as of folders
    return content


def yolo_subsets(path: str) -> list[str]:
    """Which of train, val and test a data.yaml lists images for."""
    content = load_data_yaml(path)
    return [name for name in SUBSETS if content.get(name)]


def has_val(path: str) -> bool:
    """Whether a data.yaml lists validation images that are there.

    Roboflow lists all three parts, whichever of them were exported.
    """
    content = load_data_yaml(path)
    found = _is_there(path, content, "val")
    if content.get("val") and not found:
        text = "%s: the images of 'val' (%s) are not there; it counts as a set without them"
        logger.warning(text, path, content["val"])
    return found


def yolo_images(source: Source, content: dict[str, Any], inputs: Inputs) -> tuple[list[str], bool]:
    """The images of one list of a data.yaml, and whether they are all that their folders hold.

    Raises:
        ValueError: the list is not chosen.
        FileNotFoundError: its folder or file is not there, or none of the images is.
    """
    path = source.annotations
    given = [name for name in SUBSETS if content.get(name)]
    subset = source.subset or (given[0] if len(given) == 1 else "")
    root = _root(path, content)
    if source.images:
        places = [Path(source.images)]
    elif subset in given:
        entries = content[subset]
        entries = entries if isinstance(entries, list) else [entries]
        for entry in entries:
            if isinstance(entry, bool) or not isinstance(entry, str | int) or not _posix(entry):
                raise InputError(
                    f"{path}: '{subset}' holds {entry!r}, but must be a folder, a file with a list "
                    "of images, or several of them"
                )
        places = [_place(_posix(entry), root, Path(path)) for entry in entries]
    else:
        raise InputError(
            f"{path} has lists {', '.join(given) or 'of nothing'}, and SUBSET is '{subset}'; set "
            "it to one of them"
        )
    found = [image for place in places for image in _images_of(place, root, Path(path), inputs)]
    if not found:
        raise MissingFileError(f"{path}: no image in {', '.join(map(str, places))}{_hint(path)}")
    return list(dict.fromkeys(found)), all(place.is_dir() for place in places)


def _from_class_list(path: Path) -> dict[str, Any]:
    names = [line.strip() for line in read_text(path).splitlines()]
    content: dict[str, Any] = {"names": [name for name in names if name]}
    root = path.parent
    if _is_among_labels(path):
        content["path"], root = "..", path.parent.parent
    known = {x.name.lower(): x.name for x in os.scandir(root) if x.is_file()}
    for part, words in PART_NAMES.items():  # CVAT's parts are called Train, Validation, Test
        found = next((known[f"{x}.txt"] for x in words if f"{x}.txt" in known), None)
        if found:
            content[part] = found
    if not any(content.get(part) for part in PART_NAMES):
        content |= _folders_of_parts(root)
    if not any(content.get(part) for part in PART_NAMES):
        folder = subfolder(root, "images", *LABEL_FOLDERS[1:])
        content["train"] = folder.name if folder else "."
    if "train" in content and "test" in content:
        content.setdefault("val", content["test"])
    return content


def _is_among_labels(path: Path) -> bool:
    """Whether a list of names lies in labels/, where LabelImg writes it, beside images/."""
    beside = path.parent.name.lower() in LABEL_FOLDERS
    return beside and subfolder(path.parent.parent, "images") is not None


def _folders_of_parts(root: Path) -> dict[str, str]:
    """``images/train`` or ``train/images`` and so on for each part; {} where none is for training.

    The folders hold labels, too, or have a folder of labels beside them.
    """
    images = subfolder(root, "images")
    found: dict[str, str] = {}
    for part, names in PART_NAMES.items():
        folder = subfolder(images, *names) if images else None
        if folder is None and (own := subfolder(root, *names)):
            folder = subfolder(own, "images")
        if folder is not None:
            found[part] = os.path.relpath(folder, root).replace(os.sep, "/")
    return found if "train" in found else {}


def _posix(value: Any) -> str:
    return str(value or "").strip().replace("\\", "/")


def _hint(path: str | Path) -> str:
    return f"; name the folder of the images, as {path}:IMAGE_DIR"


def _root(path: str, content: dict[str, Any]) -> Path:
    return Path(path).parent / _posix(content.get("path"))


def _is_there(path: str, content: dict[str, Any], part: str) -> bool:
    """Whether one of the folders and files of a part is found; True where it is no text, too."""
    entries = content.get(part) or []
    root = _root(path, content)
    return any(
        not isinstance(x, str) or _find(_posix(x), root, Path(path))
        for x in (entries if isinstance(entries, list) else [entries])
    )


def _place(entry: str, root: Path, path: Path) -> Path:
    """The folder or list that ``entry`` means, as it is written or where it evidently is."""
    found = _find(entry, root, path)
    if found is None:
        looked = ", ".join(dict.fromkeys(os.path.normpath(x) for x in _written(entry, root, path)))
        raise MissingFileError(f"{path}: '{entry}' is none of {looked}{_hint(path)}")
    place, is_written = found
    if not is_written:
        logger.warning("%s: '%s' is not there; taking %s", path, entry, place)
    return place


def _written(entry: str, root: Path, path: Path) -> list[Path]:
    # Roboflow writes ../train/images for a folder that is beside the yaml.
    return [root / entry, path.parent / entry, path.parent / entry.removeprefix("../")]


def _find(entry: str, root: Path, path: Path) -> tuple[Path, bool] | None:
    """Where ``entry`` is, and whether that is where it says."""
    written = _written(entry, root, path)
    elsewhere = []
    for name in dict.fromkeys((os.fspath(root / entry), entry)):
        tails = [tail(name, n) for n in range(1, len(path_parts(name)) + 1)]
        elsewhere += [path.parent / x for text in tails for x in _other_names(text)]
    for place in [*written, *elsewhere]:
        if os.path.exists(place):  # unlike pathlib, for names of any length
            return Path(os.path.normpath(place)), place == written[0]
    return None


def _other_names(name: str) -> Iterator[str]:
    """``valid/images`` -> itself, ``val/images`` and ``validation/images``."""
    yield name
    parts = name.split("/")
    for i, part in enumerate(parts):
        for words in PART_NAMES.values():
            if part.lower() in words:
                yield from ("/".join([*parts[:i], x, *parts[i + 1 :]]) for x in words if x != part)


def _images_of(place: Path, root: Path, path: Path, inputs: Inputs) -> list[str]:
    """Images below a folder, or those that a text file lists, one per line."""
    inputs.add(place)
    if place.is_dir():
        found = []
        for folder, folders, files in os.walk(place):
            folders[:] = [name for name in folders if not is_hidden(name)]
            inputs.add(folder)
            found += [os.path.join(folder, name) for name in files if is_image(name)]
        return sorted(found)
    if is_image(place.name):
        return [os.fspath(place)]
    lines = [line.strip() for line in read_text(place).splitlines()]
    names = list(dict.fromkeys(line for line in lines if line))
    bases = list(dict.fromkeys((place.parent, root, path.parent)))
    found_in = find_place(names, bases)
    if found_in is None:
        if not names:
            return []
        looked = ", ".join(os.path.normpath(folder / _posix(names[0])) for folder in bases)
        raise MissingFileError(
            f"{place}: none of its {len(names)} images is there, the first as one of {looked}"
            f"{_hint(path)}"
        )
    if found_in != Place(os.fspath(place.parent)):
        say_found(os.fspath(place), names, found_in)
    return [os.path.normpath(found_in.path(name)) for name in names]
