"""Boxes that may hold an object, in a file of Detectron2's format, and Fast R-CNN on them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from detectron2.data import DatasetCatalog, detection_utils
from detectron2.modeling import ProposalNetwork, detector_postprocess
from detectron2.structures import BoxMode, Instances

from retinanet_ext import files
from retinanet_ext.errors import InputError
from retinanet_ext.inference import Predictor

__all__ = ["Propose", "detect_among", "proposals_of", "write_proposals"]

Propose = Callable[[np.ndarray], Instances]
"""Of a picture (H, W, 3) uint8 in INPUT.FORMAT, N Instances with ``proposal_boxes`` in its pixels
and ``objectness_logits``."""


def proposals_of(predictor: Predictor) -> Propose:
    """Those of a trained ``ProposalNetwork``, or of the first stage of a two-stage model."""
    model, prepare = predictor.model, predictor.detector.prepare  # type: ignore[attr-defined]
    if getattr(model, "proposal_generator", None) is None:
        raise InputError(
            f"{predictor.cfg.MODEL.META_ARCHITECTURE} has no proposal generator; train "
            "projects/Ancestors/configs/quickstart_rpn.yaml or another two-stage model"
        )

    @torch.no_grad()
    def propose(pixels: np.ndarray) -> Instances:
        given = prepare(pixels)
        if isinstance(model, ProposalNetwork):
            return model([given])[0]["proposals"].to("cpu")
        images = model.preprocess_image([given])
        found = model.proposal_generator(images, model.backbone(images.tensor), None)[0][0]
        return detector_postprocess(found, *pixels.shape[:2]).to("cpu")

    return propose


def write_proposals(propose: Propose, dataset: str, path: Path, image_format: str = "BGR") -> None:
    """Write the file that ``DATASETS.PROPOSAL_FILES_TRAIN`` and ``_TEST`` name.

    Args:
        propose: see :data:`Propose`.
        dataset: a registered dataset.
        path: of the file, written whole or not at all.
        image_format: of the pixels that ``propose`` takes.
    """
    content: dict[str, list] = {"ids": [], "boxes": [], "objectness_logits": []}
    for entry in DatasetCatalog.get(dataset):
        found = propose(detection_utils.read_image(entry["file_name"], image_format))
        content["ids"].append(entry["image_id"])
        content["boxes"].append(found.proposal_boxes.tensor.numpy().astype(np.float32))
        content["objectness_logits"].append(found.objectness_logits.numpy().astype(np.float32))
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.written_whole(str(path)) as new, open(new, "wb") as file:
        pickle.dump({**content, "bbox_mode": BoxMode.XYXY_ABS}, file)


def detect_among(predictor: Predictor, propose: Propose) -> Callable[[np.ndarray], Instances]:
    """Fast R-CNN on proposals, of pictures (H, W, 3) uint8 in INPUT.FORMAT."""
    most = predictor.cfg.DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST
    prepare = predictor.detector.prepare  # type: ignore[attr-defined]

    @torch.no_grad()
    def detect(pixels: np.ndarray) -> Instances:
        given, found = prepare(pixels), propose(pixels)
        best = found[found.objectness_logits.argsort(descending=True)[:most]]
        height, width = given["image"].shape[1:]
        boxes = best.proposal_boxes.clone()
        boxes.scale(width / given["width"], height / given["height"])
        given["proposals"] = Instances(
            (height, width), proposal_boxes=boxes, objectness_logits=best.objectness_logits
        )
        return predictor.model([given])[0]["instances"].to("cpu")

    return detect
