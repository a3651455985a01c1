"""The folder of an export: the file, ``model.json``, and what runs them without this package."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode

from .. import __version__
from ..errors import ExistsError, FileError
from ..files import dump_json, write_text
from ..inference.exported import standalone
from ..inference.exported.sidecar import FORMAT, NAME, SUFFIXES, VERSION, file_digest
from .files import InputShape
from .graph.detector import ExportableDetector

__all__ = [
    "GOLDEN",
    "PARITY",
    "make_folder",
    "make_meta",
    "weights_size",
    "withdraw",
    "write_meta",
    "write_standalone",
]

PARITY, GOLDEN = "parity.json", "golden.npz"
STANDALONE = ("preprocess.py", "decode.py", "run_onnxruntime.py")
FILES = (
    *(
        f"model{suffix}{end}"
        for suffix in (*SUFFIXES.values(), ".bin")
        for end in ("", ".rejected")
    ),
    *STANDALONE,
    NAME,
    PARITY,
    GOLDEN,
)
"""All that an export may write."""


def make_folder(path: str, overwrite: bool) -> None:
    """Make the folder, or remove what an earlier export has written there.

    Raises:
        ExistsError: it holds something, and ``overwrite`` is not given, or what would be written
            over is of no export.
        FileError: it cannot be made.
    """
    if os.path.exists(path) and not os.path.isdir(path):
        raise ExistsError(f"--output is '{path}', a file; name a folder")
    there = sorted(os.listdir(path)) if os.path.isdir(path) else []
    if there and not overwrite:
        raise ExistsError(
            f"--output is '{path}', which holds {there[0]}; name another folder, or pass "
            "--overwrite"
        )
    written_over = [name for name in there if name in FILES]
    if written_over and not any(name.startswith("model.") for name in written_over):
        raise ExistsError(
            f"--output is '{path}', whose {written_over[0]} is of no export, for there is no "
            f"{NAME}; name another folder"
        )
    for name in written_over:
        os.remove(os.path.join(path, name))
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise FileError(f"--output is '{path}', which cannot be made: {error.strerror}") from error


def withdraw(path: str) -> None:
    """Give an exported file a name that nothing loads, unless it has it already."""
    if os.path.exists(path):
        os.replace(path, f"{path}.rejected")


def make_meta(
    module: ExportableDetector,
    model: Any,
    cfg: CfgNode,
    class_names: list[str],
    shape: InputShape,
    of_model: dict[str, Any],
) -> dict[str, Any]:
    """The content of ``model.json``, but for the checksum of the file.

    Args:
        module: that is put into the file.
        model: the detector that it was made of.
        cfg: of the detector.
        class_names: (K,).
        shape: of the input.
        of_model: what is known of the file: format, head, precision and the like.
    """
    longest = max(shape.height or 0, shape.width or 0)
    shorter, longer = cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
    if shape.height is not None and shape.width is not None:
        shorter, longer = min(shorter, shape.height, shape.width), min(longer, longest)
    return {
        "format": FORMAT,
        "version": VERSION,
        "model": of_model,
        "classes": list(class_names),
        "input": {
            "name": "images",
            "layout": "NCHW",
            "dtype": "float32",
            "range": [0, 255],
            "channels": cfg.INPUT.FORMAT,
            "batch": shape.batch,
            "height": shape.height,
            "width": shape.width,
            "mean": [float(x) for x in cfg.MODEL.PIXEL_MEAN],
            "std": [float(x) for x in cfg.MODEL.PIXEL_STD],
            "normalized_by": "the file",
            "divisor": module.divisor,
            "padded_by": "the file, to multiples of the divisor, at the right and below",
        },
        "resize": {
            "shorter": shorter,
            "longer": longer,
            "rule": "the shorter side becomes 'shorter', or less, so that the longer one is at "
            "most 'longer'; 0.5 is rounded up",
            "filter": "Pillow's BILINEAR on uint8, which averages when it makes smaller",
            "orientation": "as the EXIF data say",
            "sixteen_bit": cfg.INPUT.get("SIXTEEN_BIT", ""),
        },
        "outputs": {name: _MEANING[name.split("_")[0]] for name in module.output_names},
        **module.sections(model, cfg),
        # Paths tell strangers about the machine that they were on.
        "datasets": [x for x in cfg.DATASETS.TEST if os.sep not in x],
        "made_by": {"retinanet_ext": __version__, "torch": torch.__version__},
    }


def write_meta(folder: str, meta: dict[str, Any]) -> None:
    """Write ``model.json``, with the checksum of the file, which is there already."""
    path = os.path.join(folder, meta["model"]["file"])
    whole = {**meta, "model": {**meta["model"], "sha256": file_digest(path)}}
    write_text(os.path.join(folder, NAME), dump_json(whole, indent=1) + "\n")


def weights_size(path: str) -> int:
    """Bytes of an exported file; of OpenVINO's two, of the one with the weights."""
    return os.path.getsize(path.removesuffix(".xml") + ".bin" if path.endswith(".xml") else path)


def write_standalone(folder: str, format: str) -> None:
    """Write what prepares pictures and decodes outputs, and for ONNX what runs the file."""
    source = Path(standalone.__file__).parent
    for name in STANDALONE:
        if format == "onnx" or not name.startswith("run_"):
            shutil.copyfile(source / name, os.path.join(folder, name))


_MEANING = {
    "logits": "(N, A*K, H, W) of a level: A anchors per location, K classes; sigmoid gives scores",
    "deltas": "(N, A*4, H, W) of a level, or (N, A*K*4, H, W) with decode.boxes_per_class",
    "quality": "(N, A, H, W) of a level; a score is the root of its sigmoid times the class's",
    "boxes": "(N, M, 4) x1, y1, x2, y2 in pixels of the input",
    "scores": "(N, M) in [0, 1]; 0 is no detection",
    "classes": "(N, M) indices into classes",
    "count": "(N,) detections of each image; the rows after them are 0, of class -1",
}
