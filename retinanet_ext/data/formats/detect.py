"""Which format annotations are in, by what is there."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
from pathlib import Path

from detectron2.utils.logger import log_first_n

from ...errors import InputError, MissingFileError, did_you_mean
from ...untrusted import check_regular
from .images import is_hidden, is_image
from .places import CLASS_LISTS, LABEL_FOLDERS, PART_NAMES, XML_FOLDERS, subfolder
from .table import Source

__all__ = ["FORMATS", "detect", "part_of", "split_folders"]

FORMATS = ("coco", "voc", "yolo", "csv")
LOOKED_FOR = (
    "COCO: FILE.json, or a folder with one json; VOC: a folder with *.xml or Annotations/*.xml, or "
    "ImageSets/Main/LIST.txt; YOLO: data.yaml, its folder, or labels/ with classes.txt; CSV: "
    "FILE.csv, or a folder with one; or such a folder in each of train/ and val/"
)
SMALL_JSON = 2**20  # bytes
SUFFIXES = {".json": "coco", ".csv": "csv", ".yaml": "yolo", ".yml": "yolo", ".xml": "voc"}


def detect(source: Source) -> Source:
    """Fill in ``format``, and turn a folder that holds one annotation file into that file.

    Raises:
        FileNotFoundError: there is nothing at that path.
        ValueError: no format fits, or several do; says what was looked for.
    """
    path = Path(source.annotations)
    if source.format and source.format not in FORMATS:
        raise InputError(
            f"FORMAT of {path} is '{source.format}'.{did_you_mean(source.format, FORMATS)} Known: "
            f"{', '.join(FORMATS)}"
        )
    if not path.exists():
        raise MissingFileError(f"annotations {path} do not exist")
    if not path.is_dir():
        check_regular(path)
    if source.images and not Path(source.images).is_dir():
        raise MissingFileError(f"the images of {path} are not there: no folder {source.images}")
    found = _in_folder(path) if path.is_dir() else _of_file(path)
    if source.format:
        found = {source.format: found.get(source.format, [path])}
    elif source.subset and (one := _of_part(found, source.subset)):
        found = one
        _say(path, next(iter(one.values()))[0], source.subset)
    if not found and source.subset in (parts := split_folders(path)):
        _say(path, parts[source.subset], source.subset)
        return detect(dataclasses.replace(source, annotations=str(parts[source.subset])))
    if not found and (inner := _only_folder(path)):
        return detect(dataclasses.replace(source, annotations=str(inner)))
    if not found:
        raise InputError(f"{path} is in no known format{_seen(path)}. Looked for {LOOKED_FOR}")
    choices = [(kind, file) for kind, files in found.items() for file in files]
    if len(choices) > 1:
        names = ", ".join(f"{file} ({kind})" for kind, file in choices[:4])
        raise InputError(f"{path} may be read as {names}; name one of these")
    kind, file = choices[0]
    if kind == "voc" and source.subset and (lists := _voc_lists(file)):
        file = lists.get(source.subset, file)
    return dataclasses.replace(source, format=kind, annotations=str(file))


def split_folders(path: str | os.PathLike[str]) -> dict[str, Path]:
    """Folders of "train", "val" and "test", each with annotations of its own, as tools export them.

    They are looked for in ``path`` and in its folder ``images``. Without one for validation, that
    of the test is taken.
    """
    root = Path(path)
    for base in (root, subfolder(root, "images")):
        found: dict[str, Path] = {}
        for part, names in PART_NAMES.items():
            folder = subfolder(base, *names) if base else None
            if folder and _in_folder(folder):
                found[part] = folder
        if "train" in found:
            if "test" in found:
                found.setdefault("val", found["test"])
            return found
    return {}


def part_of(stem: str) -> str:
    """Whether a file name speaks of "train", "val" or "test"; "" if of none or of several."""
    words = set(re.findall("[a-z]+", stem.lower()))
    found = [part for part, names in PART_NAMES.items() if words & set(names)]
    return found[0] if len(found) == 1 else ""


def _of_part(found: dict[str, list[Path]], subset: str) -> dict[str, list[Path]]:
    """Of several files of one format, such as train.json and val.json, the one of ``subset``."""
    (kind, files), *others = found.items() if found else [("", [])]
    parts = [part_of(file.stem) for file in files]
    if subset == "val" and "val" not in parts and "train" in parts:
        subset = "test"  # as of folders
    chosen = [file for file, part in zip(files, parts, strict=True) if part == subset]
    return {kind: chosen} if not others and len(files) > 1 and len(chosen) == 1 else {}


def _only_folder(path: Path) -> Path | None:
    """The one folder in ``path``, as archives are unpacked; None where there is more."""
    if not path.is_dir():
        return None
    entries = [x for x in path.iterdir() if not is_hidden(x.name)]
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else None


def _voc_lists(path: Path) -> dict[str, Path]:
    """``ImageSets/Main/train.txt`` and ``val.txt`` (or ``test.txt``); {} unless there are both."""
    found: dict[str, Path] = {}
    for part, names in PART_NAMES.items():
        lists = (path / "ImageSets" / "Main" / f"{name}.txt" for name in names)
        if (first := next((x for x in lists if x.is_file()), None)) is not None:
            found[part] = first
    if "test" in found:
        found.setdefault("val", found["test"])
    return found if {"train", "val"} <= found.keys() else {}


def _say(path: Path, taken: Path, subset: str) -> None:
    log_first_n(logging.WARNING, f"{path}: taking {taken} for '{subset}'", key="message")


def _seen(path: Path) -> str:
    """What a folder holds that comes near to a format."""
    if path.is_dir() and subfolder(path, "labels"):
        return (
            ", though it has labels/ as YOLO does: no file names the classes; put a data.yaml into "
            "it, with 'train: images' and 'names: [...]'"
        )
    return ""


def _of_file(path: Path) -> dict[str, list[Path]]:
    if path.suffix.lower() == ".txt" and "ImageSets" in path.parts:
        return {"voc": [path]}
    if path.suffix.lower() == ".xml":  # one of many: the folder is meant
        return {"voc": [path.parent]}
    if path.name in CLASS_LISTS:
        return {"yolo": [path]}
    kind = SUFFIXES.get(path.suffix.lower())
    return {kind: [path]} if kind else {}


def _in_folder(path: Path) -> dict[str, list[Path]]:
    """Format -> what can be read as it. Folders of data must not be searched as a whole."""
    found: dict[str, list[Path]] = {}
    if any(_has_xml(folder) for folder in (path, subfolder(path, *XML_FOLDERS)) if folder):
        found["voc"] = [path]
    yamls = [p for name in ("data.yaml", "data.yml") if (p := path / name).is_file()]
    if yamls:
        found["yolo"] = yamls
    for kind in ("json", "csv"):
        files = [x for x in sorted(path.glob(f"*.{kind}")) if not is_hidden(x.name)]
        if kind == "json" and not files:
            files = sorted(path.glob("annotations/*.json"))
        if files:
            found["coco" if kind == "json" else kind] = files
    if "yolo" not in found and (lists := _class_lists(path)):
        found["yolo"] = lists
    if not found and (others := [x for x in sorted(path.glob("*.y*ml")) if _has_names(x)]):
        found["yolo"] = others
    if "coco" in found and (len(found) > 1 or len(found["coco"]) > 1):  # tools leave notes beside
        found["coco"] = [x for x in found["coco"] if _may_be_coco(x)]
        found = {kind: files for kind, files in found.items() if files}
    return found


def _has_xml(folder: Path) -> bool:
    return any(
        x.name.lower().endswith(".xml") and not is_hidden(x.name) for x in os.scandir(folder)
    )


def _class_lists(path: Path) -> list[Path]:
    """A list of class names beside YOLO labels, for which no data.yaml was written."""
    files = [path / name for name in CLASS_LISTS if (path / name).is_file()]
    parts = (subfolder(path, *names) for names in PART_NAMES.values())
    folders = [path, *(x for x in parts if x)]
    if any(subfolder(x, *LABEL_FOLDERS) for x in folders):
        return files[:1] or _lists_among_labels(path)
    return files[:1] if files and _has_labels_beside_pictures(path) else []


def _lists_among_labels(path: Path) -> list[Path]:
    """``labels/classes.txt``, as LabelImg writes it, where images/ is beside."""
    labels = subfolder(path, *LABEL_FOLDERS)
    if labels is None or subfolder(path, "images") is None:
        return []
    return [labels / name for name in CLASS_LISTS if (labels / name).is_file()][:1]


def _has_labels_beside_pictures(path: Path) -> bool:
    """Whether a folder holds a.jpg and a.txt, as LabelImg leaves them."""
    names = [x.name for x in os.scandir(path)]
    stems = {os.path.splitext(x)[0] for x in names if is_image(x)}
    return any(x.lower().endswith(".txt") and os.path.splitext(x)[0] in stems for x in names)


def _has_names(path: Path) -> bool:
    """Whether a yaml lists class names, as a data.yaml of another name does."""
    with open(path, "rb") as file:
        return re.search(rb"^names\s*:", file.read(SMALL_JSON), re.MULTILINE) is not None


def _may_be_coco(path: Path) -> bool:
    """Whether a json has images; large ones are not looked into."""
    if path.stat().st_size > SMALL_JSON:
        return True
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return True  # to be told what is wrong with it
    return isinstance(content, dict) and "images" in content
