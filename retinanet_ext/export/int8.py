"""A verified float32 export made into one of 8 bits, if its AP stays."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

from torch import nn

from ..errors import InputError
from ..inference import Predictor
from ..inference.exported import Sidecar, cfg_of_export
from ..inference.exported.model import build_exported
from ..inference.exported.sidecar import digest_of
from .files import sign_onnx, to_openvino
from .folder import weights_size, write_meta
from .options import ExportOptions
from .quantize import METHODS, check_calibration, needs_seven_bits, quantize_onnx
from .verify import Check

__all__ = ["LARGEST_DROP", "Measure", "check_int8", "make_int8"]

LARGEST_DROP = 2.0
"""Points of AP from which on a file is refused."""

WELL_ENOUGH = 0.5
"""Points of AP up to which no other way is tried."""

Measure = Callable[[nn.Module], float]
"""Of a model of Detectron2's interface, AP in points."""


def check_int8(options: ExportOptions, measure: Measure | None) -> None:
    """Raise InputError for options that do not go with ``--precision int8``."""
    if options.format not in ("onnx", "openvino"):
        raise InputError(
            f"--precision int8 is made for --format onnx and openvino, not for {options.format}"
        )
    if options.head != "raw":
        raise InputError(
            f"--precision int8 goes with --head raw: boxes and scores of 8 bits, as of "
            f"{options.head}, are no detections; decode.py and predict decode in float32"
        )
    check_calibration(options.calibrate, options.calibrate_named)
    if measure is None and not options.force:
        raise InputError(
            "there is no test set here to measure the AP of --precision int8 on; set "
            "DATASETS.TEST (--opts) or --data-root, or pass --force to do without"
        )


def make_int8(
    meta: dict[str, Any],
    options: ExportOptions,
    predictor: Predictor,
    measure: Measure | None,
    say: Callable[[str], None],
) -> list[Check]:
    """Put a file of 8 bits in the place of the float32 one, which was verified.

    Args:
        meta: the content of ``model.json``.
        options: of the export.
        predictor: of PyTorch, whose AP is that of float32.
        measure: AP; None: it is not known, and not asked for.
        say: is told the AP of each way.

    Returns:
        The comparison of the AP; empty without ``measure``.
    """
    folder = options.output
    path = Sidecar.read(folder).path
    source, size = f"{path}.onnx", weights_size(path)
    if options.format == "onnx":
        os.replace(path, source)
    before = 0.0 if measure is None else measure(predictor.model)
    tried: list[tuple[float, str]] = []
    for method in METHODS:
        _make(meta, folder, source, path, options, method)
        if measure is None:
            break
        after = measure(build_exported(cfg_of_export(folder)).eval())
        say(f"AP {before:.2f} in float32, {after:.2f} in int8 ({method})")
        tried.append((before - after, method))
        if before - after <= WELL_ENOUGH:
            break
    if tried and min(tried) != tried[-1]:
        _make(meta, folder, source, path, options, min(tried)[1])
    smaller = weights_size(path)
    say(f"{path}: {smaller / 1e6:.1f} MB, {smaller / size:.2f} of that of float32")
    if not tried:
        return []
    drop, method = min(tried)
    detail = f"{before:.2f} in float32, {before - drop:.2f} in int8, by {method}"
    return [Check("AP", LARGEST_DROP, drop, detail)]


def _make(
    meta: dict[str, Any],
    folder: str,
    source: str,
    path: str,
    options: ExportOptions,
    method: str,
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        quantized = os.path.join(scratch, "model.onnx")
        kept = quantize_onnx(source, quantized, options.calibrate, meta, method)
        meta["model"]["precision"] = "int8"
        meta["model"]["quantized"] = {
            "by": "onnxruntime.quantization, QDQ, per channel",
            "pictures": len(options.calibrate),
            "range": method,
            "seven_bits": needs_seven_bits(),
            "in_float32": kept,
        }
        if options.format == "openvino":
            to_openvino(quantized, path, digest_of(meta))
        else:
            sign_onnx(quantized, digest_of(meta))
            shutil.move(quantized, path)
    write_meta(folder, meta)
