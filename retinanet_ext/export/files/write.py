"""Tracing the module, and writing what comes of it in one of four formats."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch

from ...compat import any_size
from ...errors import InputError, one_line
from ...inference.exported.engines import SIDECAR_KEY, require
from ..graph.detector import ExportableDetector
from ..graph.nms import nms_by_onnx_node, nms_by_onnx_symbol, nms_by_torchvision, onnx_translations
from .shape import InputShape

__all__ = ["EXPORTERS", "sign_onnx", "to_openvino", "write_file"]

EXPORTERS = ("dynamo", "torchscript")
"""How PyTorch makes ONNX of a module: from its program, or from a trace of it."""


def write_file(
    module: ExportableDetector,
    path: str,
    format: str,
    shape: InputShape,
    digest: str,
    opset: int = 18,
    exporter: str = "dynamo",
) -> None:
    """Write ``module`` as a file.

    Args:
        module: in evaluation mode.
        path: of the file. For OpenVINO, the ONNX file that it is made of stays beside it, with
            ``.onnx`` at the end of its name.
        format: one of :data:`~retinanet_ext.inference.exported.sidecar.SUFFIXES`.
        shape: of the input.
        digest: of the ``model.json`` that goes with it; is put into the file.
        opset: of ONNX.
        exporter: one of :data:`EXPORTERS`; read for ONNX and OpenVINO.

    Raises:
        MissingPackageError: names the extra.
        InputError: this PyTorch cannot do it.
    """
    module = module.eval()
    with _quiet(), torch.no_grad():
        if format in ("onnx", "openvino"):
            onnx_path = path if format == "onnx" else f"{path}.onnx"
            _write_onnx(module, onnx_path, shape, opset, exporter)
            sign_onnx(onnx_path, digest)
            if format == "openvino":
                to_openvino(onnx_path, path, digest)
            return
        module.nms = nms_by_torchvision
        kept = {SIDECAR_KEY: digest}
        if format == "torchscript":
            traced = torch.jit.trace(module, (shape.tensor(),), check_trace=False)
            torch.jit.save(traced, path, _extra_files=kept)
            return
        axes = shape.axes(torch.export.Dim.DYNAMIC)
        with any_size():
            program = torch.export.export(module, (shape.tensor(),), dynamic_shapes=(axes,))
        torch.export.save(program, path, extra_files=kept)


def _write_onnx(
    module: ExportableDetector, path: str, shape: InputShape, opset: int, exporter: str
) -> None:
    require("onnx", "onnx")
    names: dict[str, Any] = {
        "input_names": ["images"],
        "output_names": module.output_names,
        "opset_version": opset,
    }
    if exporter == "torchscript":
        module.nms = nms_by_onnx_symbol
        names_of = {0: "batch", 2: "height", 3: "width"}
        dynamic = {axis: names_of[axis] for axis in shape.axes(None)}
        axes = {"images": dynamic}
        for name in module.output_names:
            last = 3 if module.head == "raw" else 0
            axes[name] = {k: f"{name}_{x}" if k else x for k, x in dynamic.items() if k <= last}
        with _explained(exporter):
            torch.onnx.export(
                module, (shape.tensor(),), path, dynamo=False, dynamic_axes=axes, **names
            )
        return
    require("onnxscript", "onnx")
    if tuple(int(x) for x in torch.__version__.split(".")[:2]) < (2, 6):
        raise InputError(
            f"--exporter dynamo needs PyTorch 2.6, and this is {torch.__version__}; pass "
            "--exporter torchscript"
        )
    module.nms = nms_by_onnx_node
    with _explained(exporter):
        torch.onnx.export(
            module,
            (shape.tensor(),),
            path,
            dynamo=True,
            dynamic_shapes=(shape.axes(torch.export.Dim.DYNAMIC),),
            external_data=False,  # one file
            verify=False,  # done by us, at more sizes
            verbose=False,
            custom_translation_table=onnx_translations(),
            **names,
        )


@contextlib.contextmanager
def _explained(exporter: str) -> Iterator[None]:
    """Turn what PyTorch says of a part that it has no ONNX for into an InputError."""
    try:
        yield
    except (RuntimeError, ValueError, TypeError) as error:  # its errors have few names
        other = next(x for x in EXPORTERS if x != exporter)
        raise InputError(
            f"PyTorch cannot make ONNX of this model ({one_line(error)[:200]}); try --exporter "
            f"{other}, or --format torch-export"
        ) from error


def sign_onnx(path: str, digest: str) -> None:
    """Check the graph, that it asks for nothing but ONNX's own operators, and sign it.

    Raises:
        InputError: it does ask for others.
    """
    onnx = require("onnx", "onnx")
    model = onnx.load(path)
    foreign = sorted({f"{x.domain}::{x.op_type}" for x in _nodes(model) if x.domain not in _OWN})
    if foreign:
        raise InputError(
            f"the graph holds operators that are not ONNX's ({', '.join(foreign)}), so nobody "
            "else could run it; a part of this model cannot be exported"
        )
    del model.metadata_props[:]  # names of files on this machine
    for node in _nodes(model):
        del node.metadata_props[:]
        node.doc_string = ""
    onnx.helper.set_model_props(model, {SIDECAR_KEY: digest})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


_OWN = ("", "ai.onnx")


def _nodes(model: Any) -> Iterator[Any]:
    yield from model.graph.node
    for function in model.functions:
        yield from function.node


def to_openvino(onnx_path: str, path: str, digest: str) -> None:
    """Write an ONNX file as OpenVINO's two, signed."""
    openvino = require("openvino", "openvino")
    model = openvino.convert_model(onnx_path)
    model.set_rt_info(digest, SIDECAR_KEY)
    openvino.save_model(model, path, compress_to_fp16=False)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what the tracers say of shapes, which the verification tests."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    levels = [x.level for x in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for each in loggers:
            each.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for each, level in zip(loggers, levels, strict=True):
                each.setLevel(level)
