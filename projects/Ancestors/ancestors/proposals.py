"""Boxes that may hold an object, in a file of Detectron2's format, and Fast R-CNN on them."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from detectron2.data import DatasetCatalog, detection_utils
from detectron2.modeling import ProposalNetwork, detector_postprocess
from detectron2.structures import BoxMode, Instances

from retinanet_ext import files, validate_cfg
from retinanet_ext.engine.launch.device import resolve_device
from retinanet_ext.errors import InputError
from retinanet_ext.inference import Predictor
from retinanet_ext.inference.detector import PlainDetector
from retinanet_ext.inference.load_model import load_model
from retinanet_ext.inference.run_folder import cfg_of_run

__all__ = ["Propose", "Proposer", "detect_among", "write_proposals"]

Propose = Callable[[np.ndarray], Instances]
"""Of a picture (H, W, 3) uint8 in INPUT.FORMAT, N Instances with ``proposal_boxes`` in its pixels
and ``objectness_logits``."""


class Proposer:
    """The proposals of a trained ``ProposalNetwork``, or of the first stage of two; a `Propose`.

    Attributes:
        cfg: of the training.
    """

    def __init__(self, folder: str | os.PathLike[str], weights: str = ""):
        """
        Args:
            folder, weights: as of ``Predictor.from_run``, which takes only what gives detections.

        Raises:
            InputError: the model has no proposal generator.
        """
        self.cfg = cfg_of_run(os.fspath(folder), weights)
        validate_cfg(self.cfg)
        resolve_device(self.cfg)
        self._model = load_model(self.cfg)[0]
        self._prepare = PlainDetector(self.cfg, self._model).prepare
        if getattr(self._model, "proposal_generator", None) is None:
            raise InputError(
                f"{self.cfg.MODEL.META_ARCHITECTURE} has no proposal generator; train "
                "projects/Ancestors/configs/quickstart_rpn.yaml or another two-stage model"
            )

    @torch.no_grad()
    def __call__(self, pixels: np.ndarray) -> Instances:
        given, model = self._prepare(pixels), self._model
        if isinstance(model, ProposalNetwork):
            return model([given])[0]["proposals"].to("cpu")
        images = model.preprocess_image([given])
        found = model.proposal_generator(images, model.backbone(images.tensor), None)[0][0]
        return detector_postprocess(found, *pixels.shape[:2]).to("cpu")


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
