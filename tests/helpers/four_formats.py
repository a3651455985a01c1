"""The same pictures and boxes written as COCO, VOC, YOLO and CSV, by code of its own.

What differs between them is the folder of the images alone: ids are the places of the pictures in
the list, from 1, in COCO as in the formats that have none.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from PIL import Image

from tests.helpers.coco_file import coco_file

FORMATS = ("coco", "voc", "yolo", "csv")


@dataclass
class Picture:
    """Boxes are (class name, x1, y1, x2, y2) in pixels."""

    name: str
    width: int
    height: int
    boxes: list[tuple[str, float, float, float, float]] = field(default_factory=list)


def some_pictures(count: int = 6, seed: int = 0) -> list[Picture]:
    """Tiny pictures of different sizes, the last without objects."""
    rng = random.Random(seed)
    pictures = []
    for i in range(count):
        picture = Picture(f"p{i:02d}.png", rng.randint(40, 80), rng.randint(40, 80))
        for label in ("ant", "bee", "cat")[: 0 if i == count - 1 else 3]:
            x, y = round(rng.uniform(1, 9), 2), round(rng.uniform(1, 9), 2)
            box = (x, y, round(x + rng.uniform(5, 30), 2), round(y + rng.uniform(5, 30), 2))
            picture.boxes.append((label, *box))
        pictures.append(picture)
    return pictures


def pictures_of_coco(path: Path, count: int) -> list[Picture]:
    """The first ``count`` pictures of a json, by file name."""
    content = json.loads(path.read_text())
    names = {c["id"]: c["name"] for c in content["categories"]}
    images = sorted(content["images"], key=lambda image: image["file_name"])[:count]
    pictures = {i["id"]: Picture(i["file_name"], i["width"], i["height"]) for i in images}
    for annotation in content["annotations"]:
        if annotation["image_id"] in pictures:
            x, y, w, h = annotation["bbox"]
            box = (names[annotation["category_id"]], x, y, round(x + w, 3), round(y + h, 3))
            pictures[annotation["image_id"]].boxes.append(box)
    return list(pictures.values())


def write_images(folder: Path, pictures: list[Picture]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        Image.new("RGB", (picture.width, picture.height), "gray").save(folder / picture.name)
    return folder


def write(
    kind: str, root: Path, pictures: list[Picture], names: list[str], images: Path | None = None
) -> str:
    """Write annotations, and images unless there are some, below ``root``; return what to name."""
    root.mkdir(parents=True, exist_ok=True)
    writer = {"coco": _coco, "voc": _voc, "yolo": _yolo, "csv": _csv}[kind]
    target = {"voc": root / "JPEGImages", "yolo": root / "images"}.get(kind, root / "pictures")
    if images is None:
        write_images(target, pictures)
    else:
        target.symlink_to(images, target_is_directory=True)
    return writer(root, pictures, names)


def _coco(root: Path, pictures: list[Picture], names: list[str]) -> str:
    ids = {name: 3 * i + 2 for i, name in enumerate(names)}  # with gaps
    boxes = [
        {"image_id": i, "category_id": ids[label], "bbox": [x1, y1, x2 - x1, y2 - y1]}
        for i, picture in enumerate(pictures, 1)
        for label, x1, y1, x2, y2 in picture.boxes
    ]
    sizes = {p.name: (p.width, p.height) for p in pictures}
    path = coco_file(root / "boxes.json", sizes, boxes, {ids[x]: x for x in reversed(names)})
    return f"{path}:{root / 'pictures'}"


def _voc(root: Path, pictures: list[Picture], names: list[str]) -> str:
    folder = root / "Annotations"
    folder.mkdir()
    for p in pictures:
        objects = "".join(
            f"<object><name>{label}</name><difficult>0</difficult><bndbox><xmin>{x1 + 1}</xmin>"
            f"<ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
            for label, x1, y1, x2, y2 in p.boxes
        )
        (folder / p.name).with_suffix(".xml").write_text(
            f"<annotation><filename>{p.name}</filename><size><width>{p.width}</width>"
            f"<height>{p.height}</height><depth>3</depth></size>{objects}</annotation>"
        )
    return str(root)


def _yolo(root: Path, pictures: list[Picture], names: list[str]) -> str:
    (root / "labels").mkdir()
    for p in pictures:
        if not p.boxes:
            continue
        lines = [
            f"{names.index(label)} {(x1 + x2) / 2 / p.width!r} {(y1 + y2) / 2 / p.height!r} "
            f"{(x2 - x1) / p.width!r} {(y2 - y1) / p.height!r}"
            for label, x1, y1, x2, y2 in p.boxes
        ]
        (root / "labels" / p.name).with_suffix(".txt").write_text("\n".join(lines))
    content = {"path": ".", "train": "images", "nc": len(names), "names": names}
    (root / "data.yaml").write_text(yaml.safe_dump(content))
    return str(root)


def _csv(root: Path, pictures: list[Picture], names: list[str]) -> str:
    lines = []
    for p in pictures:
        lines += [f"pictures/{p.name},{x1},{y1},{x2},{y2},{n}" for n, x1, y1, x2, y2 in p.boxes]
        lines += [] if p.boxes else [f"pictures/{p.name},,,,,"]
    (root / "boxes.csv").write_text("\n".join(lines) + "\n")
    return str(root / "boxes.csv")
