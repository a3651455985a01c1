"""Which format annotations are in, by what is there."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ...errors import InputError, MissingFileError, did_you_mean
from .table import Source

__all__ = ["FORMATS", "detect"]

FORMATS = ("coco", "voc", "yolo", "csv")
LOOKED_FOR = (
    "COCO: FILE.json, or a folder with one json; VOC: a folder with *.xml or Annotations/*.xml, or "
    "ImageSets/Main/LIST.txt; YOLO: data.yaml, or its folder; CSV: FILE.csv, or a folder with one"
)
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
    if source.images and not Path(source.images).is_dir():
        raise MissingFileError(f"the images of {path} are not there: no folder {source.images}")
    found = _in_folder(path) if path.is_dir() else _of_file(path)
    if source.format:
        found = {source.format: found.get(source.format, [path])}
    if not found:
        raise InputError(f"{path} is in no known format. Looked for {LOOKED_FOR}")
    choices = [(kind, file) for kind, files in found.items() for file in files]
    if len(choices) > 1:
        names = ", ".join(f"{file} ({kind})" for kind, file in choices[:4])
        raise InputError(f"{path} may be read as {names}; name one of these")
    kind, file = choices[0]
    return dataclasses.replace(source, format=kind, annotations=str(file))


def _of_file(path: Path) -> dict[str, list[Path]]:
    if path.suffix.lower() == ".txt" and "ImageSets" in path.parts:
        return {"voc": [path]}
    if path.suffix.lower() == ".xml":  # one of many: the folder is meant
        return {"voc": [path.parent]}
    kind = SUFFIXES.get(path.suffix.lower())
    return {kind: [path]} if kind else {}


def _in_folder(path: Path) -> dict[str, list[Path]]:
    """Format -> what can be read as it. Folders of data must not be searched as a whole."""
    found: dict[str, list[Path]] = {}
    if any(next(folder.glob("*.xml"), None) for folder in (path, path / "Annotations")):
        found["voc"] = [path]
    yamls = [p for name in ("data.yaml", "data.yml") if (p := path / name).is_file()]
    if yamls:
        found["yolo"] = yamls
    for kind in ("json", "csv"):
        files = sorted(path.glob(f"*.{kind}"))
        if kind == "json" and not files:
            files = sorted(path.glob("annotations/*.json"))
        if files:
            found["coco" if kind == "json" else kind] = files
    return found
