"""A whole export: check, write, verify."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

from detectron2.config import CfgNode

from ..inference import Predictor
from ..inference.exported.engines import require
from ..inference.exported.sidecar import SUFFIXES, digest_of
from .check import check_config, check_model
from .files import InputShape, write_file
from .folder import make_folder, make_meta, weights_size, withdraw, write_meta, write_standalone
from .graph.detector import ExportableDetector
from .graph.module import ExportableRetinaNet
from .int8 import Measure, check_int8, make_int8
from .options import ExportOptions, check_options
from .pictures import enough_pictures
from .reference import plain_predictor
from .verify import Check, reject, renew_golden, verify, write_parity

__all__ = ["export"]


def export(
    cfg: CfgNode,
    options: ExportOptions,
    say: Callable[[str], None] = print,
    measure: Measure | None = None,
) -> list[Check]:
    """Export the model of a config, and verify what came of it.

    Args:
        cfg: with its ``MODEL.WEIGHTS``.
        options: see there.
        say: is told what is done.
        measure: AP of a model, for ``--precision int8``.

    Returns:
        The comparisons of the verification, all passed.

    Raises:
        UserError: an option or the model cannot be exported so; names the fix.
        ExportRejected: the file differs from the detector; it was renamed.
    """
    check_options(options)
    check_config(cfg, options)
    if options.precision == "int8":
        check_int8(options, measure)
        require("onnxruntime", "onnx")
    for package, extra in NEEDS[options.format]:
        require(package, extra)
    predictor = plain_predictor(cfg)
    model: Any = predictor.model
    module = _graph_of(model, options.head).eval()
    shape = _shape(options, module, predictor.cfg, say)
    make_folder(options.output, options.overwrite)
    file = f"model{SUFFIXES[options.format]}"
    of_model = {
        "file": file,
        "format": options.format,
        "head": options.head,
        "precision": "float32",
        **({"opset": options.opset} if options.format == "onnx" else {}),
    }
    meta = make_meta(module, model, predictor.cfg, predictor.class_names, shape, of_model)
    path = os.path.join(options.output, file)
    try:
        start = time.perf_counter()
        write_file(
            module, path, options.format, shape, digest_of(meta), options.opset, options.exporter
        )
        write_meta(options.output, meta)
        write_standalone(options.output, options.format)
        size = weights_size(path) / 1e6
        say(f"{path}: {size:.1f} MB, written in {time.perf_counter() - start:.0f} s")
        try:
            return _verified(meta, options, predictor, say, measure)
        except BaseException:  # Ctrl-C, too: what nobody has compared is not loaded
            withdraw(path)
            raise
    finally:
        with contextlib.suppress(FileNotFoundError):  # what another format was made of
            os.remove(f"{path}.onnx")


def _graph_of(model: Any, head: str) -> ExportableDetector:
    """What is put into the file: the model's own graph, or that of a RetinaNet."""
    if hasattr(model, "export_graph"):
        return model.export_graph(head)
    check_model(model)
    return ExportableRetinaNet(model, head)


def _verified(
    meta: dict[str, Any],
    options: ExportOptions,
    predictor: Predictor,
    say: Callable[[str], None],
    measure: Measure | None,
) -> list[Check]:
    """Compare the file with PyTorch, make it one of 8 bits if that is wanted, or reject it."""
    with tempfile.TemporaryDirectory() as scratch:
        pictures = enough_pictures(options.pictures, scratch)
        checks = verify(options.output, predictor, pictures)
    if not all(x.passed for x in checks):
        reject(options.output, checks)
    say(_summary(checks))
    if options.head != "raw" and not any(x.boxes for x in checks):
        say(
            "nothing was found in these pictures, so no box was compared; pass --verify with "
            "pictures of objects"
        )
    if options.precision != "int8":
        return checks
    of_ap = make_int8(meta, options, predictor, measure, say)
    renew_golden(options.output)
    checks += of_ap
    write_parity(options.output, "the float32 file, but for AP", pictures, checks)
    if not all(x.passed for x in of_ap):
        if not options.force:
            reject(options.output, of_ap)
        say("kept by --force")
    return checks


NEEDS: dict[str, Sequence[tuple[str, str]]] = {
    "onnx": (("onnx", "onnx"), ("onnxruntime", "onnx")),
    "openvino": (("onnx", "onnx"), ("openvino", "openvino")),
    "torch-export": (),
    "torchscript": (),
}


def _shape(
    options: ExportOptions, module: ExportableDetector, cfg: CfgNode, say: Callable[[str], None]
) -> InputShape:
    """What the file takes; a fixed size is made a multiple of the divisor."""
    channels = int(module.mean.numel())
    if options.size is None:
        divisor = module.divisor
        shorter = min(cfg.INPUT.MIN_SIZE_TEST or 256, 512)
        example = max(divisor, shorter // divisor * divisor)
        return InputShape(channels, options.batch, example=(example, example + divisor))
    height, width = (-(-x // module.divisor) * module.divisor for x in options.size)
    if (height, width) != options.size:
        say(
            f"--size {options.size[0]}x{options.size[1]} is made {height}x{width}, multiples of "
            f"the {module.divisor} px of the backbone"
        )
    shorter, longer = cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
    if min(height, width) < shorter or max(height, width) < longer:
        say(
            f"pictures are made smaller than in the evaluation ({shorter} to {longer} px), so that "
            f"they fit into {height} x {width} px: expect another AP"
        )
    return InputShape(channels, options.batch, height, width)


def _summary(checks: Sequence[Check]) -> str:
    """The largest difference of each kind."""
    largest: dict[str, Check] = {}
    for check in checks:
        if check.what not in largest or check.value > largest[check.what].value:
            largest[check.what] = check
    shown = [f"{x.what} {x.value:.2g} (limit {x.limit:g})" for x in largest.values() if x.limit]
    return f"verified by {len(checks)} comparisons with PyTorch: {', '.join(shown)}"
