"""Pascal VOC: one xml file per image."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from ...errors import InputError, MissingFileError
from .builder import TableBuilder
from .images import is_hidden, is_image
from .places import XML_FOLDERS, subfolder
from .plain_text import read_text, read_xml
from .table import BoxTable, Inputs, Source
from .text import parse_flag, parse_number, parse_size, read_class_file

__all__ = ["read_voc"]

logger = logging.getLogger(__name__)

IMAGE_FOLDERS = ("JPEGImages", "images", "image", "imgs")  # in any case
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read_voc(source: Source, inputs: Inputs) -> BoxTable:
    """Read a folder of xml files, or those that a list in ImageSets/Main names.

    VOC counts pixels from 1 and both corners belong to the box, so its left edge is at ``xmin - 1``
    and its right edge at ``xmax``, as in Detectron2; without ``one_based`` the numbers are edges.
    Objects marked difficult become crowds: neither objects nor background.

    Raises:
        ValueError: names the file and what is wrong in it.
        FileNotFoundError: an xml of the list is missing, or all images are. Single images that are
            not there are :attr:`BoxTable.bad`.
    """
    folder, parent = _folders(Path(source.annotations))
    inputs.add(folder)
    names = read_class_file(source.classes, inputs) if source.classes else None
    images = _images(_image_folder(source, folder, parent), inputs)
    builder = TableBuilder(names, inputs)
    zeros = []
    lost: list[tuple[Path, str]] = []
    xml_of: dict[str, Path] = {}
    for path in _xml_files(Path(source.annotations), folder, inputs):
        root = _root(path, inputs)
        image, missing = _image_of(path, root, images)
        if image in xml_of:
            raise InputError(
                f"{path} and {xml_of[image]} both belong to the picture {image}; remove one, or "
                "give each the name of its picture"
            )
        xml_of[image] = path
        if missing:
            lost.append((path, missing))
        if _read_file(path, root, image, missing, builder, source.one_based):
            zeros.append(path)
    if lost and len(lost) == len(xml_of):
        path, missing = lost[0]
        where = _image_folder(source, folder, parent)
        raise MissingFileError(
            f"{path}: there is no {missing} in {where}, nor any other picture of an xml; name the "
            "folder of the images, as ANNOTATIONS:IMAGE_DIR or IMAGES"
        )
    if zeros:
        logger.warning(
            "%s: %d files have a coordinate below 1 (first %s), so they do not count pixels from 1 "
            "as VOC does; set ONE_BASED: False for this dataset in DATASETS.EXTRA",
            folder,
            len(zeros),
            zeros[0].name,
        )
    return builder.build()


def _folders(path: Path) -> tuple[Path, Path]:
    """Folder of the xml files, and the one that holds it."""
    if path.is_file():  # ROOT/ImageSets/Main/LIST.txt
        root = path.parents[2] if len(path.parents) > 2 else path.parent
        return subfolder(root, *XML_FOLDERS) or root / "Annotations", root
    if found := subfolder(path, *XML_FOLDERS):
        return found, path
    return path, path.parent


def _xml_files(path: Path, folder: Path, inputs: Inputs) -> list[Path]:
    if not path.is_file():
        found = (Path(entry.path) for entry in os.scandir(folder) if not is_hidden(entry.name))
        return sorted(path for path in found if path.suffix.lower() == ".xml")
    inputs.add(path)
    files = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line.strip():
            choices = [folder / f"{name}.xml" for name in _names_in(line)]
            files.append(next((file for file in choices if os.path.isfile(file)), choices[0]))
            if not os.path.isfile(files[-1]):
                raise MissingFileError(f"{path}, line {number}: there is no {files[-1]}")
    distinct = list(dict.fromkeys(files))
    if len(distinct) < len(files):
        twice = next(file for file in distinct if files.count(file) > 1)
        logger.warning(
            "%s: %d lines repeat a picture (first %s); each counts once",
            path,
            len(files) - len(distinct),
            twice.stem,
        )
    return distinct


def _names_in(line: str) -> list[str]:
    """What a line of a list may mean, without suffix: all of it, or all but the flag of a class.

    Names may hold spaces, and folders and suffixes may stand around them.
    """
    name = line.strip().strip("\"'").replace("\\", "/")
    found = []
    for text in (name, _FLAG_OF_CLASS.sub("", name)):
        stem, suffix = os.path.splitext(os.path.basename(text))
        known = suffix.lower() == ".xml" or is_image(f"x{suffix}")
        found += [os.path.basename(text), *([stem] if known else [])]
    return list(dict.fromkeys(found))


_FLAG_OF_CLASS = re.compile(r"\s+(-1|0|1)$")


def _image_folder(source: Source, folder: Path, root: Path) -> Path:
    if source.images:
        return Path(source.images)
    beside = subfolder(root, *IMAGE_FOLDERS)
    if beside is None or any(is_image(entry.name) for entry in os.scandir(folder)):
        return folder  # pictures and xml in one folder
    return beside


def _images(folder: Path, inputs: Inputs) -> dict[str, str]:
    """Path of each image by file name, and by name without suffix."""
    inputs.add(folder)
    paths = sorted(entry.path for entry in os.scandir(folder) if is_image(entry.name))
    if not paths:
        raise MissingFileError(
            f"there is no image in {folder}; say where they are, as ANNOTATIONS:IMAGE_DIR or IMAGES"
        )
    return {Path(p).stem: p for p in paths} | {Path(p).name: p for p in paths}


def _image_of(path: Path, root: ElementTree.Element, images: dict[str, str]) -> tuple[str, str]:
    """The picture of an xml file: the one of its own name, else the one that it names inside.

    People copy and rename files and forget what is written in them.

    Returns:
        Its path, and "" or, where it is not there, what was looked for.
    """
    name = os.path.basename((root.findtext("filename") or "").strip().replace("\\", "/"))
    named = images.get(name)
    if named is not None and Path(named).stem == path.stem:
        return named, ""  # of a.jpg and a.png
    image = images.get(path.stem) or named or images.get(Path(name).stem)
    if image is not None:
        return image, ""
    folder = os.path.dirname(next(iter(images.values())))
    return os.path.join(folder, name or path.stem), f"image '{name}' or '{path.stem}.*'"


def _read_file(
    path: Path,
    root: ElementTree.Element,
    image: str,
    missing: str,
    builder: TableBuilder,
    one_based: bool,
) -> bool:
    """Add one image; return whether a coordinate is below 1."""
    height, width = (_length(root, tag, path) for tag in ("height", "width"))
    if missing:
        index = builder.add_bad_image(image, f"does not exist ({path.name})", height, width)
    else:
        index = builder.add_image(image, height, width)
    below = False
    _check_places(root, path)
    for number, element in enumerate(root.findall("object"), 1):
        where = f"{path}, object {number}"
        of_object = _children(element, where)
        label, bounds = (of_object["name"].text or "").strip(), of_object["bndbox"]
        if not label:
            raise InputError(f"{where}: its name is empty")
        corners = _children(bounds, where, CORNERS)
        x1, y1, x2, y2 = (parse_number(corners[tag].text, where, tag) for tag in CORNERS)
        below |= one_based and min(x1, y1) < 1
        shift = 1 if one_based else 0
        difficult = parse_flag(element.findtext("difficult"), where, "difficult")
        box = (x1 - shift, y1 - shift, x2, y2)
        builder.add_box(index, box, builder.class_index(label, where), difficult)
    return below


def _children(
    element: ElementTree.Element, where: str, needed: Sequence[str] = ("name", "bndbox")
) -> dict[str, ElementTree.Element]:
    """What is in an element, by tag; each of ``needed`` once, since of two neither can be trusted.

    Raises:
        ValueError: one of ``needed`` is missing or there twice.
    """
    found = {}
    for child in element:
        if child.tag in found and child.tag in needed:
            raise InputError(f"{where}: has <{child.tag}> twice; remove the wrong one")
        found[child.tag] = child
    missing = [tag for tag in needed if tag not in found]
    if missing:
        raise InputError(f"{where}: has no {missing[0]}")
    return found


def _check_places(root: ElementTree.Element, path: Path) -> None:
    """No object and no box may be where they are not looked for, and be lost without a word.

    Raises:
        ValueError: a tag is in another case or namespace, or inside of something else.
    """
    objects = root.findall("object")
    right = {"object": len(objects), "bndbox": 0}
    right["bndbox"] = sum(len(x.findall("bndbox")) + len(x.findall("part/bndbox")) for x in objects)
    tags = [str(x.tag).rpartition("}")[2].lower() for x in root.iter()]
    for tag, number in right.items():
        if tags.count(tag) > number:
            raise InputError(
                f"{path}: {tags.count(tag) - number} <{tag}> are not where VOC has them, directly "
                "in <annotation> and in lower case, without a namespace (a <bndbox> in an <object>)"
            )


def _root(path: Path, inputs: Inputs) -> ElementTree.Element:
    inputs.add(path)
    root = read_xml(path)
    if root.tag != "annotation":
        raise InputError(f"{path} is not VOC xml: it starts with <{root.tag}>, not <annotation>")
    return root


def _length(root: ElementTree.Element, tag: str, path: Path) -> int:
    """Recorded height or width; 0 where there is none, and the image is to be asked."""
    text = root.findtext(f"size/{tag}")
    return parse_size(text, f"{path}", tag) if text and text.strip() else 0
