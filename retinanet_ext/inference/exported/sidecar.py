"""``model.json``: all that is to be known of an exported file, and whether it is that file's."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from ...config import get_cfg
from ...errors import InputError, MissingFileError
from ...files import file_sha256

__all__ = ["FORMAT", "NAME", "SUFFIXES", "VERSION", "Sidecar", "cfg_of_export", "is_export"]

NAME = "model.json"
FORMAT, VERSION = "retinanet_ext export", 1
SUFFIXES = {
    "onnx": ".onnx",
    "openvino": ".xml",
    "torch-export": ".pt2",
    "torchscript": ".torchscript",
}
"""Format -> the end of its file's name."""

KEYS = {
    "INPUT.FORMAT": ("input", "channels"),
    "INPUT.MIN_SIZE_TEST": ("resize", "shorter"),
    "INPUT.MAX_SIZE_TEST": ("resize", "longer"),
    "INPUT.SIXTEEN_BIT": ("resize", "sixteen_bit"),
    "MODEL.PIXEL_MEAN": ("input", "mean"),
    "MODEL.PIXEL_STD": ("input", "std"),
    "MODEL.RETINANET.SCORE_THRESH_TEST": ("decode", "score_thresh"),
    "MODEL.RETINANET.NMS_THRESH_TEST": ("decode", "nms_thresh"),
    "MODEL.RETINANET.NMS_KIND": ("decode", "nms"),
    "TEST.DETECTIONS_PER_IMAGE": ("decode", "max_detections"),
}
"""Config key -> where its value stands."""

OF_ANCHORS = {
    "MODEL.RETINANET.TOPK_CANDIDATES_TEST": ("decode", "topk_per_level"),
    "MODEL.RETINANET.SOFT_NMS_METHOD": ("decode", "soft_nms_method"),
    "MODEL.RETINANET.SOFT_NMS_SIGMA": ("decode", "soft_nms_sigma"),
    "MODEL.RETINANET.BBOX_REG_WEIGHTS": ("decode", "delta_weights"),
}
"""The same, of what only files of detectors with anchors hold."""

LATER_KEYS = {
    "MODEL.RETINANET.BOX_CODER": ("decode", "box_coder"),
    "MODEL.RETINANET.QUALITY_BRANCH": ("decode", "quality"),
    "MODEL.RETINANET.CANDIDATES_BY": ("decode", "candidates_by"),
}
"""The same, of what is not in files of the first exports: those have the default."""


def is_export(path: str | os.PathLike[str]) -> bool:
    """Whether it names an exported file, or the folder of one."""
    path = os.fspath(path)
    if os.path.isdir(path):
        return os.path.isfile(os.path.join(path, NAME))
    return path.endswith(tuple(SUFFIXES.values())) and os.path.isfile(path)


@dataclass(frozen=True)
class Sidecar:
    """An exported file and what is known of it.

    Attributes:
        path: of the file.
        meta: the content of ``model.json``.
    """

    path: str
    meta: Mapping[str, Any]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Sidecar:
        """Of an exported file, or the folder of one.

        Raises:
            MissingFileError: one of the two is not there.
            InputError: they do not belong together, or were written by another version.
        """
        path = os.fspath(path)
        folder = path if os.path.isdir(path) else os.path.dirname(path)
        sidecar = os.path.join(folder, NAME)
        if not os.path.isfile(sidecar):
            raise MissingFileError(
                f"'{path}' has no {NAME} beside it, which says what its numbers mean; keep the "
                "files of an export together"
            )
        try:
            meta = json.loads(Path(sidecar).read_text(encoding="utf-8"))
            known = meta["format"] == FORMAT
            file, digest = meta["model"]["file"], meta["model"]["sha256"]
        except (ValueError, KeyError, TypeError):
            raise InputError(f"'{sidecar}' is not the {NAME} of an export; export again") from None
        if not known or meta["version"] != VERSION:
            raise InputError(
                f"'{sidecar}' is of '{meta['format']}' version {meta['version']}, and this "
                f"package reads version {VERSION}; export again"
            )
        if os.path.isdir(path):
            path = os.path.join(folder, file)
        if not os.path.isfile(path):
            raise MissingFileError(
                f"'{sidecar}' goes with {file}, which is not there; an export whose verification "
                "failed leaves only a file that ends with .rejected"
            )
        if file_digest(path) != digest:
            raise InputError(
                f"'{path}' is not the file that {NAME} beside it was written for (sha256); keep "
                "the files of one export together"
            )
        return cls(path, meta)

    @property
    def kind(self) -> str:
        """One of :data:`SUFFIXES`."""
        return str(self.meta["model"]["format"])

    @property
    def head(self) -> str:
        """How far the file goes: "raw", "decoded" or "nms"."""
        return str(self.meta["model"]["head"])

    @property
    def class_names(self) -> list[str]:
        """(K,)."""
        return list(self.meta["classes"])


def file_digest(path: str) -> str:
    """SHA-256 of an exported file; of OpenVINO's two, of both."""
    if not path.endswith(SUFFIXES["openvino"]):
        return file_sha256(path)
    both = (file_sha256(path), file_sha256(path.removesuffix(".xml") + ".bin"))
    return hashlib.sha256("".join(both).encode()).hexdigest()


def digest_of(meta: Mapping[str, Any]) -> str:
    """SHA-256 of what a ``model.json`` says, without that of the file, which holds this one."""
    model = {k: v for k, v in meta["model"].items() if k != "sha256"}
    text = json.dumps({**meta, "model": model}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def cfg_of_export(path: str | os.PathLike[str]) -> CfgNode:
    """A config with all that is read where an exported file is used; MODEL.WEIGHTS is the file.

    Args:
        path: of the file or its folder.

    Raises:
        MissingFileError, InputError: see :meth:`Sidecar.read`.
    """
    sidecar = Sidecar.read(path)
    meta, cfg = sidecar.meta, get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "RetinaNetExt"
    cfg.MODEL.WEIGHTS = sidecar.path
    cfg.MODEL.DEVICE = "cpu"
    optional = LATER_KEYS if "anchors" in meta else {**LATER_KEYS, **OF_ANCHORS}
    for name, (part, key) in {**KEYS, **OF_ANCHORS, **LATER_KEYS}.items():
        if name in optional and key not in meta[part]:
            continue
        value = meta[part][key]
        cfg.merge_from_list([name, tuple(value) if isinstance(value, list) else value])
    cfg.MODEL.RETINANET.NUM_CLASSES = len(meta["classes"])
    cfg.MODEL.RETINANET.CLS_AGNOSTIC_BBOX_REG = not meta["decode"].get("boxes_per_class", False)
    cfg.DATASETS.TEST = tuple(meta["datasets"])
    return cfg
