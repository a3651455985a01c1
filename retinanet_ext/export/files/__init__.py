"""An :class:`~retinanet_ext.export.module.ExportableRetinaNet` as a file, by format."""

from __future__ import annotations

from .shape import InputShape
from .write import write_file

__all__ = ["InputShape", "write_file"]
