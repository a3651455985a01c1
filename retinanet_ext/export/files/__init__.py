"""An :class:`~retinanet_ext.export.graph.detector.ExportableDetector` as a file, by format."""

from __future__ import annotations

from .shape import InputShape
from .write import sign_onnx, to_openvino, write_file

__all__ = ["InputShape", "sign_onnx", "to_openvino", "write_file"]
