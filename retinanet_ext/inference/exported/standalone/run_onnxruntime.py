"""Detect objects with the exported file in this folder: NumPy, Pillow and onnxruntime, no PyTorch.

python run_onnxruntime.py photo.jpg more/*.png    # a line of json for each picture
python run_onnxruntime.py --check                 # does golden.npz come out as it was stored?
"""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

import decode  # type: ignore[import-not-found]  # beside this file
import numpy as np
import onnxruntime
import preprocess  # type: ignore[import-not-found]

FOLDER = os.path.dirname(os.path.abspath(__file__))


def open_session(meta: dict[str, Any]) -> Any:
    """An ONNX Runtime session on the CPU."""
    path = os.path.join(FOLDER, meta["model"]["file"])
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def detect(session: Any, meta: dict[str, Any], path: str) -> dict[str, Any]:
    """Detections of one picture, boxes in its pixels."""
    pixels = preprocess.read(path, meta)
    small = preprocess.resize(pixels, meta)
    images = preprocess.batch([small] * (meta["input"]["batch"] or 1), meta)
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(names, {meta["input"]["name"]: images}), strict=True))
    found = decode.detections(outputs, 0, meta)
    boxes, scores, classes = decode.in_picture(found, small.shape[:2], pixels.shape[:2])
    return {
        "file": path,
        "width": pixels.shape[1],
        "height": pixels.shape[0],
        "detections": [
            {"class": meta["classes"][k], "class_id": int(k), "score": float(s), "box": b.tolist()}
            for b, s, k in zip(boxes, scores, classes, strict=True)
        ],
    }


def check(session: Any, meta: dict[str, Any]) -> int:
    """Compare with the stored outputs; 1 where they differ by more than rounding."""
    golden = np.load(os.path.join(FOLDER, "golden.npz"))
    names = [output.name for output in session.get_outputs()]
    outputs = session.run(names, {meta["input"]["name"]: golden["images"]})
    shares = {}
    for name, output in zip(names, outputs, strict=True):
        limit = 1e-2 if name == "boxes" else 1e-4
        if meta["model"]["precision"] != "float32":  # CPUs round products of 8 bits differently
            limit = 0.5
        shares[name] = float((np.abs(output - golden[name]) <= limit).mean())
    print(json.dumps({"share of equal values": shares}))
    # Not all of them: detections of equal scores may change places.
    return int(min(shares.values()) < 0.99)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", nargs="*")
    parser.add_argument("--check", action="store_true", help="compare with golden.npz")
    args = parser.parse_args()
    meta = preprocess.load_meta(FOLDER)
    session = open_session(meta)
    for path in args.pictures:
        print(json.dumps(detect(session, meta, path)))
    return check(session, meta) if args.check else 0


if __name__ == "__main__":
    raise SystemExit(main())
