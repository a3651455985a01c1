"""Inference of the same weights in other precisions, and by ONNX Runtime and OpenVINO.

The network is written to a file that ends with the head's outputs, as ``retinanet-ext export --head
raw`` does; decoding and NMS are this package's for all of them.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from PIL import Image

from ...errors import UserError
from ...export.check import check_config, check_model
from ...export.files import InputShape, sign_onnx, to_openvino, write_file
from ...export.folder import make_meta, write_meta
from ...export.graph.module import ExportableRetinaNet
from ...export.options import ExportOptions
from ...export.quantize import quantize_onnx
from ...inference.exported import cfg_of_export
from ...inference.exported.engines import require
from ...inference.exported.model import build_exported
from ...inference.exported.sidecar import SUFFIXES, digest_of
from ...modeling.speedups.settings import best_autocast
from ..inputs import make_batch
from ..peers import OURS, build_side
from ..settings import Settings

__all__ = ["EXACT", "Engines", "build_engines"]

BUDGET = 150.0
"""Seconds from which on no further file is made."""

CALIBRATION_PICTURES = 2  # the values of int8 are of no account here, its time is
CALIBRATION_SIDE = 256

EXACT = ("ONNX Runtime float32", "OpenVINO float32")
"""Those whose detections have to be Detectron2's."""


@dataclass(frozen=True)
class _Kind:
    """One row: a file and how it is run."""

    name: str
    format: str
    int8: bool = False
    precision: str = ""


KINDS = (
    _Kind("ONNX Runtime float32", "onnx"),
    _Kind("ONNX Runtime int8", "onnx", int8=True),
    _Kind("OpenVINO float32", "openvino"),
    _Kind("OpenVINO bfloat16", "openvino", precision="bfloat16"),
    _Kind("OpenVINO int8", "openvino", int8=True),
)


@dataclass
class Engines:
    """What there is to measure.

    Attributes:
        models: name of a row -> model with the interface of Detectron2's, in evaluation mode.
        absent: name of a row -> why there is none.
    """

    models: dict[str, Any] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def named(self, name: str) -> str:
        """The side of the benchmark that stands for a row."""
        return f"{OURS}, {name}"


def build_engines(
    settings: Settings, ours: Any, folder: str, say: Callable[[str], None]
) -> Engines:
    """The rows' models, with the weights of ``ours``.

    Args:
        settings: of the CPU.
        ours: our detector.
        folder: empty, for the files.
        say: is told what is made.
    """
    engines, start = Engines(), time.perf_counter()
    _add_bfloat16(engines, settings, ours)
    try:
        check_config(settings.cfg, ExportOptions(folder, head="raw"))
        check_model(ours)
    except UserError as error:
        engines.absent.update((kind.name, str(error)) for kind in KINDS)
        return engines
    files = _Files(settings, ours, folder)
    for kind in KINDS:
        if time.perf_counter() - start > BUDGET:
            engines.absent[kind.name] = f"making the others took more than {BUDGET:g} s"
            continue
        if kind.precision and not best_autocast(torch.device("cpu")):
            engines.absent[kind.name] = NO_BFLOAT16
            continue
        say(f"inference: making the file for {kind.name}")
        try:
            engines.models[kind.name] = files.model(kind)
        except UserError as error:  # a package that is missing, a graph that cannot be written
            engines.absent[kind.name] = str(error)
    return engines


NO_BFLOAT16 = "this processor does not compute in bfloat16 (AVX512_BF16 or AMX)"


def _add_bfloat16(engines: Engines, settings: Settings, ours: Any) -> None:
    """PyTorch's own row: MODEL.SPEEDUPS.AUTOCAST auto."""
    name, precision = "bfloat16", best_autocast(torch.device(settings.device))
    if not precision:
        engines.absent[name] = NO_BFLOAT16
        return
    model = build_side(settings.with_keys({"MODEL.SPEEDUPS.AUTOCAST": precision}), OURS)
    model.load_state_dict(ours.state_dict())
    engines.models[name] = model.eval()


class _Files:
    """Files of one detector, each made when it is first asked for."""

    def __init__(self, settings: Settings, ours: Any, folder: str):
        self._settings, self._ours, self._folder = settings, ours, folder
        self._made: dict[tuple[str, bool], str] = {}
        self._meta: dict[str, Any] = {}

    def model(self, kind: _Kind) -> Any:
        """The model of a row.

        Raises:
            UserError: a package is not there, or the network cannot be written.
        """
        require("onnx", "onnx")
        if kind.int8 or kind.format == "onnx":
            require("onnxruntime", "onnx")
        if kind.format == "openvino":
            require("openvino", "openvino")
        cfg = cfg_of_export(self._file(kind.format, kind.int8))
        cfg.MODEL.SPEEDUPS.AUTOCAST = kind.precision
        return build_exported(cfg).eval()

    def _file(self, format: str, int8: bool) -> str:
        """The folder of a file."""
        if (format, int8) in self._made:
            return self._made[format, int8]
        if (format, int8) == ("onnx", False):
            return self._write()
        source = os.path.join(self._file("onnx", int8 and format == "openvino"), "model.onnx")
        folder = self._new_folder(format, int8)
        meta = copy.deepcopy(self._meta)
        meta["model"].update(
            file=f"model{SUFFIXES[format]}",
            format=format,
            precision="int8" if int8 else "float32",
        )
        path = os.path.join(folder, meta["model"]["file"])
        if format == "openvino":
            to_openvino(source, path, digest_of(meta))
        else:
            small = {"shorter": CALIBRATION_SIDE, "longer": 2 * CALIBRATION_SIDE}
            resized = {**meta, "resize": {**meta["resize"], **small}}
            quantize_onnx(source, path, list(self._pictures()), resized, "MinMax")
            sign_onnx(path, digest_of(meta))
        write_meta(folder, meta)
        self._made[format, int8] = folder
        return folder

    def _write(self) -> str:
        """The float32 file that all others are made of."""
        cfg, module = self._cfg(), ExportableRetinaNet(self._ours, "raw").eval()
        shape = InputShape(int(module.mean.numel()))
        names = [f"class {i}" for i in range(self._settings.num_classes)]
        of_model = {"file": "model.onnx", "format": "onnx", "head": "raw", "precision": "float32"}
        self._meta = make_meta(module, self._ours, cfg, names, shape, of_model)
        folder = self._new_folder("onnx", False)
        path = os.path.join(folder, "model.onnx")
        # The trace takes seconds where dynamo takes a minute; both give the same convolutions.
        write_file(module, path, "onnx", shape, digest_of(self._meta), exporter="torchscript")
        write_meta(folder, self._meta)
        self._made["onnx", False] = folder
        return folder

    def _cfg(self) -> CfgNode:
        """The config, with the settings' size as the size of pictures."""
        cfg = self._settings.cfg.clone()
        cfg.defrost()
        size = self._settings.size
        cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = min(size), 2 * max(size)
        return cfg

    def _new_folder(self, format: str, int8: bool) -> str:
        folder = os.path.join(self._folder, f"{format}-{'int8' if int8 else 'float32'}")
        os.makedirs(folder)
        return folder

    def _pictures(self) -> Iterator[str]:
        """Files to calibrate int8 with."""
        for i, entry in enumerate(make_batch(self._settings, CALIBRATION_PICTURES)):
            path = Path(self._folder) / f"{i}.png"
            pixels = np.ascontiguousarray(entry["image"].numpy().transpose(1, 2, 0))
            Image.fromarray(pixels).save(path)
            yield str(path)
