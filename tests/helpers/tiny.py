"""A dataset and a network small enough to train within seconds in a test."""

from __future__ import annotations

import copy
import functools
import json
import logging
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode
from PIL import Image, ImageDraw

from retinanet_ext import get_cfg, load_config_file
from tests.helpers.loggers import kept_loggers

IMAGE_SIZE = 64
CLASSES = ("Platelets", "RBC", "WBC")
COLORS = ("red", "green", "blue")

# Equal in every run and process: no random resize, no flip, images loaded in the process itself.
SETTINGS: dict[str, Any] = {
    "MODEL": {
        "META_ARCHITECTURE": "RetinaNetExt",
        "DEVICE": "cpu",
        "BACKBONE": {"NAME": "build_retinanet_resnet_fpn_backbone", "FREEZE_AT": 0},
        "RESNETS": {
            "DEPTH": 18,
            "RES2_OUT_CHANNELS": 64,
            "OUT_FEATURES": ["res3", "res4", "res5"],
        },
        "FPN": {"IN_FEATURES": ["res3", "res4", "res5"], "OUT_CHANNELS": 32},
        "ANCHOR_GENERATOR": {
            "NAME": "RetinaNetAnchorGenerator",
            "OCTAVE_BASE_SIZES": [16.0, 32.0, 64.0, 128.0, 256.0],
            "SCALES_PER_OCTAVE": 1,
        },
        "RETINANET": {"NUM_CLASSES": len(CLASSES), "NUM_CONVS": 1},
    },
    "DATASETS": {"TRAIN": "('bccd_train',)", "TEST": "('bccd_val',)"},
    "DATALOADER": {"NUM_WORKERS": 0, "ASPECT_RATIO_GROUPING": False},
    "SOLVER": {
        "IMS_PER_BATCH": 4,
        "BASE_LR": 0.001,
        "MAX_ITER": 5,
        "STEPS": "()",
        "WARMUP_ITERS": 0,
    },
    "INPUT": {
        "MIN_SIZE_TRAIN": f"({IMAGE_SIZE},)",
        "MIN_SIZE_TEST": IMAGE_SIZE,
        "RANDOM_FLIP": "none",
    },
    "SEED": 7,
    "VERSION": 2,
}

# Keys of a tiny config with the 3 x 3 anchors of the paper at each location.
NINE_ANCHORS = {"MODEL.FPN.OUT_CHANNELS": 16, "MODEL.ANCHOR_GENERATOR.SCALES_PER_OCTAVE": 3}


def write_dataset(root: Path, num_train: int = 12, num_val: int = 3) -> Path:
    """Write coloured rectangles under the built-in name ``bccd``; return ``root``."""
    rng = random.Random(0)
    for split, num_images in (("train", num_train), ("val", num_val)):
        folder = root / "bccd" / split
        folder.mkdir(parents=True)
        images, annotations = [], []
        for image_id in range(1, num_images + 1):
            name = f"{image_id:03d}.png"
            image = Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), "gray")
            for _ in range(rng.randint(1, 3)):
                annotations.append(_draw_object(rng, image, image_id, len(annotations) + 1))
            image.save(folder / name)
            images.append(
                {"id": image_id, "file_name": name, "width": IMAGE_SIZE, "height": IMAGE_SIZE}
            )
        _write_json(root, split, images, annotations)
    return root


def _draw_object(rng: random.Random, image: Image.Image, image_id: int, ann_id: int) -> dict:
    width, height = rng.randint(12, 40), rng.randint(12, 40)
    left, top = rng.randint(0, IMAGE_SIZE - width), rng.randint(0, IMAGE_SIZE - height)
    kind = rng.randrange(len(CLASSES))
    box = (left, top, left + width - 1, top + height - 1)
    ImageDraw.Draw(image).rectangle(box, fill=COLORS[kind])
    return {
        "id": ann_id,
        "image_id": image_id,
        "category_id": kind + 1,
        "bbox": [left, top, width, height],
        "area": width * height,
        "iscrowd": 0,
    }


def _write_json(root: Path, split: str, images: list, annotations: list) -> None:
    folder = root / "bccd" / "annotations"
    folder.mkdir(exist_ok=True)
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES, start=1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / f"instances_{split}.json").write_text(json.dumps(content))


def write_config(folder: Path) -> Path:
    """Write :data:`SETTINGS`, with ``OUTPUT_DIR`` ``folder/output``, to a yaml file."""
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**SETTINGS, "OUTPUT_DIR": str(folder / "output")}))
    return path


def tiny_cfg(
    folder: Path | None = None, keys: Mapping[str, Any] | None = None, **retinanet: Any
) -> CfgNode:
    """The tiny config, for use inside of the test's process.

    Args:
        folder: gets the file of :func:`write_config` and is where ``OUTPUT_DIR`` lies; without one
            the config comes from :data:`SETTINGS` and is fit for building models only.
        keys: other values, of any type, by the whole name of their key.
        retinanet: other values of keys of ``MODEL.RETINANET``.
    """
    cfg = get_cfg()
    if folder is None:
        cfg.merge_from_other_cfg(CfgNode({"MODEL": copy.deepcopy(SETTINGS["MODEL"])}))
    else:
        load_config_file(cfg, write_config(folder))
    whole = {f"MODEL.RETINANET.{key}": value for key, value in retinanet.items()}
    for name, value in {**(keys or {}), **whole}.items():
        *parents, key = name.split(".")
        node = functools.reduce(getattr, parents, cfg)
        assert key in node, name
        node[key] = value
    return cfg


@contextmanager
def restored_loggers() -> Iterator[None]:
    """Undo what Detectron2's ``setup_logger`` does to loggers: it also hides them from caplog."""
    with kept_loggers() as loggers:
        for log in loggers:
            log.setLevel(
                logging.INFO
            )  # the trainer then sees logging as set up and leaves it alone
        yield
