"""What is to be exported, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import InputError
from ..inference.allocator import fits_into_memory

__all__ = ["ExportOptions", "check_options"]


@dataclass(frozen=True)
class ExportOptions:
    """What is to be exported, and where to.

    Attributes:
        output: the folder.
        format: one of :data:`~retinanet_ext.inference.exported.sidecar.SUFFIXES`.
        head: one of :data:`~retinanet_ext.export.graph.detector.HEADS`.
        batch: images of an input; None: any number.
        size: height and width of the input; None: any.
        opset: of ONNX.
        exporter: one of :data:`~retinanet_ext.export.files.write.EXPORTERS`.
        pictures: files to verify with, at least 3; fewer are completed by made-up ones.
        overwrite: whether ``output`` may hold an earlier export.
        precision: "float32", or "int8" for a network of 8 bits.
        calibrate: files of pictures that show what values the layers take; for int8.
        calibrate_named: where they are from, for messages.
        force: keep a file of 8 bits whatever its AP.
    """

    output: str
    format: str = "onnx"
    head: str = "nms"
    batch: int | None = None
    size: tuple[int, int] | None = None
    opset: int = 18
    exporter: str = "dynamo"
    pictures: Sequence[str] = ()
    overwrite: bool = False
    precision: str = "float32"
    calibrate: Sequence[str] = ()
    calibrate_named: str = ""
    force: bool = False


def check_options(options: ExportOptions) -> None:
    """Raise InputError for options that do not go together."""
    if options.batch is not None and options.batch < 1:
        raise InputError(f"--batch is {options.batch}; give a number from 1, or dynamic")
    if options.size is not None and min(options.size) < 1:
        raise InputError(f"--size is {options.size}; give HEIGHTxWIDTH in pixels, or dynamic")
    if options.size is not None and not fits_into_memory(*options.size):
        raise InputError(
            f"--size is {options.size[0]}x{options.size[1]}, a picture that this machine's memory "
            "cannot hold; give a smaller one, or dynamic"
        )
    if options.opset < 18:
        raise InputError(
            f"--opset is {options.opset}; PyTorch writes 18 and later (onnx.version_converter "
            "makes an older one of it)"
        )
