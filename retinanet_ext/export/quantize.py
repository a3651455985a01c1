"""Networks of 8 bits: ONNX Runtime's static quantisation of the head's outputs.

What follows the head stays in float32 and outside of the file: scores and boxes of 8 bits are no
detections. The last convolutions, whose outputs are the logits and deltas, stay in float32 too. The
first one does not: pixels have 8 bits anyway, and between a float layer and 8 bits ONNX Runtime
leaves max pooling in a layout where it takes a third of the network's time.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..inference.exported.engines import require
from ..inference.exported.standalone import preprocess
from .pictures import read

__all__ = ["FEWEST_PICTURES", "METHODS", "check_calibration", "needs_seven_bits", "quantize_onnx"]

FEWEST_PICTURES = 16
METHODS = {"MinMax": False, "MinMaxAverage": True}
"""How the range of an activation is found: the extremes of all pictures, or the mean of the
extremes of each, which leaves outliers out. Name -> whether it is a mean."""


def check_calibration(pictures: Sequence[str], named: str) -> None:
    """Raise InputError for too few pictures.

    Args:
        pictures: files.
        named: what ``--calibrate`` names.
    """
    if len(pictures) < FEWEST_PICTURES:
        raise InputError(
            f"--calibrate {named} gives {len(pictures)} pictures, and {FEWEST_PICTURES} are the "
            "fewest that show what values the layers take; name a folder with more"
        )


def needs_seven_bits() -> bool:
    """Whether this CPU's products of 8 bits overflow, which kernels of 7 bits avoid."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    with contextlib.suppress(OSError):
        return "vnni" not in Path("/proc/cpuinfo").read_text()
    return True


def quantize_onnx(
    path: str, target: str, pictures: Sequence[str], meta: Mapping[str, Any], method: str
) -> list[str]:
    """Write the network of a float32 file with 8 bits.

    Args:
        path: an ONNX file with the head's outputs.
        target: the file to write.
        pictures: files to calibrate on.
        meta: the content of ``model.json``, by which pictures are prepared.
        method: one of :data:`METHODS`.

    Returns:
        Names of the convolutions that stay in float32.
    """
    onnx = require("onnx", "onnx")
    quantization = require("onnxruntime.quantization", "onnx")
    prepare = require("onnxruntime.quantization.shape_inference", "onnx").quant_pre_process
    with tempfile.TemporaryDirectory() as scratch, _quiet():
        prepared = os.path.join(scratch, "prepared.onnx")
        prepare(path, prepared, skip_symbolic_shape=True)
        model = onnx.load(prepared)
        kept = _kept_convolutions(model)
        quantization.quantize_static(
            prepared,
            target,
            _Reader(pictures, meta),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            reduce_range=needs_seven_bits(),
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=[*kept, *_norms(model)],
            calibrate_method=quantization.CalibrationMethod.MinMax,
            extra_options={
                "CalibMovingAverage": METHODS[method],
                "CalibMaxIntermediateOutputs": _chunk(len(pictures)),
            },
        )
    return kept


class _Reader:
    """Inputs of single pictures, in the form that ONNX Runtime asks for."""

    def __init__(self, pictures: Sequence[str], meta: Mapping[str, Any]):
        self._inputs = self._all(pictures, meta)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._inputs, None)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return self._inputs

    @staticmethod
    def _all(pictures: Sequence[str], meta: Mapping[str, Any]) -> Iterator[dict[str, np.ndarray]]:
        for path in pictures:
            small = preprocess.resize(read(path, meta), meta)
            count = meta["input"]["batch"] or 1
            yield {meta["input"]["name"]: preprocess.batch([small] * count, meta)}


def _chunk(count: int) -> int:
    """Pictures whose extremes are put together at once.

    ONNX Runtime takes a last chunk of none for an error.
    """
    return next(size for size in (16, 15, 17, 13) if count % size)


def _kept_convolutions(model: Any) -> list[str]:
    """Names of the convolutions whose outputs are the file's."""
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    outputs = {output.name for output in model.graph.output}
    last = [x.name for x in convolutions if x.output[0] in outputs]
    if len(last) != len(outputs):
        raise InputError(
            "not all outputs of the head come from a convolution, so int8 would not keep the last "
            "layers in float32; export with --precision float32"
        )
    return last


def _norms(model: Any) -> list[str]:
    """Names of the normalisations, which no engine computes in 8 bits.

    Asked to all the same, ONNX Runtime copies the bias that they share under names such as "val_30"
    and a number, which other tensors may have.
    """
    return [x.name for x in model.graph.node if x.op_type == "InstanceNormalization"]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what ONNX Runtime says of each layer, on the root logger."""
    root, level = logging.getLogger(), logging.getLogger().level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
