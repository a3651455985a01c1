"""Runs exported to files, by the quick way, and pictures to run these on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retinanet_ext.config.load import merge_opts
from retinanet_ext.export import ExportOptions, export
from retinanet_ext.inference.run_folder import cfg_of_run

from .run_folder import write_run


def require_onnx() -> None:
    """Skip where the extra ``onnx`` is not installed."""
    for name in ("onnx", "onnxruntime"):
        pytest.importorskip(name, reason=f"needs {name}, of the extra onnx")


def export_run(run: Path, output: Path, opts: tuple[Any, ...] = (), **options: Any) -> Path:
    """Export a run; return ``output``."""
    cfg = cfg_of_run(str(run))
    merge_opts(cfg, opts)
    options = {"exporter": "torchscript", **options}
    export(cfg, ExportOptions(str(output), **options), say=lambda text: None)
    return output


def write_pictures(folder: Path) -> list[str]:
    """A JPEG, a PNG and a gray picture, of three sizes and forms; their paths."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(3)
    paths = []
    for name, (height, width), mode in (
        ("photo.jpg", (150, 203), "RGB"),
        ("tall.png", (171, 90), "RGB"),
        ("gray.png", (99, 99), "L"),
    ):
        coarse = random.integers(0, 256, (9, 9, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        paths.append(str(folder / name))
        picture.convert(mode).save(paths[-1])
    return paths


class Exports:
    """Exports of one tiny run, each made when it is first asked for; not to be changed."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.run = write_run(folder / "run")
        self.pictures = write_pictures(folder / "pictures")
        self._made: dict[str, Path] = {}

    def __call__(self, head: str = "nms", format: str = "onnx") -> Path:
        """Folder of the export; skips where what writes or runs it is missing."""
        if format in ("onnx", "openvino"):
            require_onnx()
        if format == "openvino":
            pytest.importorskip("openvino", reason="needs openvino, of the extra of that name")
        name = f"{format}-{head}"
        if name not in self._made:
            self._made[name] = export_run(
                self.run, self.folder / name, head=head, format=format, pictures=self.pictures
            )
        return self._made[name]

    def copy(self, folder: Path, head: str = "nms") -> Path:
        """A copy that may be changed."""
        return Path(shutil.copytree(self(head), folder / head))
