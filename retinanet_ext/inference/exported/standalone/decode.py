"""From the outputs of an exported detector to detections, with NumPy.

Files of the head ``nms`` give detections; those of ``raw`` and ``decoded`` need this. Letters: K
classes, A anchors per location, T candidates of an image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

Detections = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Boxes (M, 4) XYXY, scores (M,) and classes (M,), best first."""


def detections(
    outputs: Mapping[str, np.ndarray], index: int, meta: Mapping[str, Any]
) -> Detections:
    """Detections of one image of the batch, in pixels of the file's input.

    Args:
        outputs: of the file, by name.
        index: of the image.
        meta: the content of ``model.json``.
    """
    head = meta["model"]["head"]
    if head == "nms":
        count = int(outputs["count"][index])
        boxes, scores, classes = (outputs[name][index] for name in ("boxes", "scores", "classes"))
        return boxes[:count], scores[:count], classes[:count]
    if head == "decoded":
        boxes, scores, classes = (outputs[name][index] for name in ("boxes", "scores", "classes"))
        found = scores > 0
        return suppress(boxes[found], scores[found], classes[found], meta)
    return suppress(*candidates(outputs, index, meta), meta)


def in_picture(found: Detections, input_size: tuple[int, int], size: tuple[int, int]) -> Detections:
    """The same in pixels of the picture, within it, without those of no area.

    Args:
        found: in pixels of the file's input.
        input_size: height and width that the picture was resized to, without any padding.
        size: height and width of the picture.
    """
    boxes, scores, classes = found
    scale = [size[1] / input_size[1], size[0] / input_size[0]] * 2
    boxes = boxes * np.asarray(scale, dtype=np.float32)
    boxes = np.clip(boxes, 0, np.asarray([size[1], size[0]] * 2, dtype=np.float32))
    kept = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return boxes[kept], scores[kept], classes[kept]


def candidates(
    outputs: Mapping[str, np.ndarray], index: int, meta: Mapping[str, Any]
) -> Detections:
    """What the detections are chosen from: the best pairs of anchor and class of each level."""
    decode, found = meta["decode"], []
    num_classes = len(meta["classes"])
    for i, level in enumerate(meta["anchors"]["levels"]):
        logits = outputs[f"logits_{i}"][index].astype(np.float32)  # (A*K, H, W)
        deltas = outputs[f"deltas_{i}"][index].astype(np.float32)
        cells = np.asarray(level["cells"], dtype=np.float32)
        height, width = logits.shape[1:]
        # In the order (H, W, A, K), so that equal scores are resolved as in PyTorch.
        scores = sigmoid(logits.reshape(len(cells), num_classes, -1).transpose(2, 0, 1))
        judged = None
        if f"quality_{i}" in outputs:
            judged = sigmoid(outputs[f"quality_{i}"][index].reshape(len(cells), -1))
        whole = judged is not None and decode.get("candidates_by") == "score"
        if judged is not None and whole:
            scores = np.sqrt(scores * judged.T[:, :, None])
        scores = scores.reshape(-1)
        entries = np.flatnonzero(scores > np.float32(decode["score_thresh"]))
        entries = entries[np.argsort(-scores[entries], kind="stable")[: decode["topk_per_level"]]]
        scores, classes = scores[entries], entries % num_classes
        location, anchor = entries // num_classes // len(cells), entries // num_classes % len(cells)
        shift = np.stack([location % width, location // width] * 2, 1) + meta["anchors"]["offset"]
        anchors = (shift * level["stride"]).astype(np.float32) + cells[anchor]
        regressor = anchor * num_classes + classes if decode["boxes_per_class"] else anchor
        of_entries = deltas.reshape(-1, 4, height * width)[regressor, :, location]
        boxes = apply_deltas(of_entries, anchors, decode)
        if judged is not None and not whole:
            scores = np.sqrt(scores * judged[anchor, location])
        finite = np.isfinite(boxes).all(axis=1) & np.isfinite(scores)
        found.append((boxes[finite], scores[finite], classes[finite]))
    boxes, scores, classes = (np.concatenate(part) for part in zip(*found, strict=True))
    return boxes, scores, classes


def apply_deltas(deltas: np.ndarray, anchors: np.ndarray, decode: Mapping[str, Any]) -> np.ndarray:
    """Boxes (T, 4) XYXY of anchors (T, 4) moved and scaled by deltas (T, 4).

    With decode.box_coder ltrb the four are distances from the anchor's centre to the edges.
    """
    if decode.get("box_coder") == "ltrb":
        sides = np.tile(anchors[:, 2:] - anchors[:, :2], 2)
        centres = np.tile(0.5 * (anchors[:, :2] + anchors[:, 2:]), 2)
        signs = np.asarray([-1, -1, 1, 1], dtype=np.float32)
        return centres + signs * np.maximum(deltas, 0) * sides
    deltas = deltas / np.asarray(decode["delta_weights"], dtype=np.float32)
    sides = anchors[:, 2:] - anchors[:, :2]
    centres = anchors[:, :2] + 0.5 * sides + deltas[:, :2] * sides
    sides = sides * np.exp(np.minimum(deltas[:, 2:], np.float32(decode["scale_clamp"])))
    return np.concatenate([centres - 0.5 * sides, centres + 0.5 * sides], axis=1)


def suppress(
    boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, meta: Mapping[str, Any]
) -> Detections:
    """NMS and the limit on detections.

    Args:
        boxes, scores, classes: (T, 4), (T,), (T,).
        meta: reads ``decode``.

    Raises:
        ValueError: soft NMS, which is not written here.
    """
    decode = meta["decode"]
    if decode["nms"] == "soft":
        raise ValueError("decode.nms of model.json is soft: use the candidates, or Predictor")
    order = np.argsort(-scores, kind="stable")
    boxes, scores, classes = boxes[order], scores[order], classes[order]
    groups = classes if decode["nms"] == "per_class" else np.zeros_like(classes)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    alive = np.ones(len(boxes), dtype=bool)
    kept: list[int] = []
    for i in range(len(boxes)):
        if not alive[i] or len(kept) == decode["max_detections"]:
            continue
        kept.append(i)
        rest = i + 1 + np.flatnonzero(alive[i + 1 :] & (groups[i + 1 :] == groups[i]))
        low, high = (
            np.maximum(boxes[rest, :2], boxes[i, :2]),
            np.minimum(boxes[rest, 2:], boxes[i, 2:]),
        )
        shared = np.prod(np.clip(high - low, 0, None), axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            alive[rest[shared / (areas[rest] + areas[i] - shared) > decode["nms_thresh"]]] = False
    return boxes[kept], scores[kept], classes[kept]


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), without overflow."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small)).astype(np.float32)
