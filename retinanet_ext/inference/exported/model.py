"""An exported file with the interface of Detectron2's models."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances
from torch import nn

from ...errors import InputError
from ...modeling.anchors import level_anchors
from ...modeling.postprocess.decode import DenseDecoder
from ...structures import HeadOutputs
from .engines import open_engine
from .sidecar import Sidecar
from .standalone.preprocess import batch

__all__ = ["ExportedModel", "build_exported"]

Inputs = list[dict[str, Any]]


def build_exported(cfg: CfgNode) -> ExportedModel:
    """The model of an exported file, ``MODEL.WEIGHTS``.

    Args:
        cfg: of :func:`~retinanet_ext.inference.exported.cfg_of_export`, perhaps with other values.

    Raises:
        InputError: a value that the file holds cannot be another one.
    """
    sidecar = Sidecar.read(cfg.MODEL.WEIGHTS)
    _check_values(cfg, sidecar)
    kind = ExportedDetections if sidecar.head == "nms" else ExportedCandidates
    return kind(cfg, sidecar)


class ExportedModel(nn.Module):
    """Takes and gives what Detectron2's detectors do, in evaluation mode.

    Attributes:
        sidecar: of the file.
        engine: what runs it.
        device: of the tensors that come out.
    """

    def __init__(self, cfg: CfgNode, sidecar: Sidecar):
        super().__init__()
        self.sidecar, self.engine = sidecar, open_engine(sidecar, cfg.MODEL.DEVICE)
        self.device = torch.device("cpu")
        self.decoder = DenseDecoder.from_cfg(cfg)
        self.score_thresh = float(cfg.MODEL.RETINANET.SCORE_THRESH_TEST)
        # What users of a detector read of its parts.
        self.backbone: Any = SimpleNamespace(size_divisibility=sidecar.meta["input"]["divisor"])
        self.anchor_generator: Any = SimpleNamespace(
            cell_anchors=[torch.tensor(x["cells"]) for x in sidecar.meta["anchors"]["levels"]]
        )

    def forward(self, batched_inputs: Inputs) -> list[dict[str, Instances]]:
        """Detections in pixels of the pictures; see Detectron2's ``DenseDetector``."""
        found = self.detections(batched_inputs)
        sizes = [
            (x.get("height", one.image_size[0]), x.get("width", one.image_size[1]))
            for x, one in zip(batched_inputs, found, strict=True)
        ]
        return [
            {"instances": detector_postprocess(one, *size)}
            for one, size in zip(found, sizes, strict=True)
        ]

    def detections(self, batched_inputs: Inputs) -> list[Instances]:
        """Detections of N images in pixels of the network's input."""
        raise NotImplementedError

    def run(self, batched_inputs: Inputs) -> dict[str, np.ndarray]:
        """The file's outputs for N images."""
        pictures = [np.asarray(x["image"].cpu()).transpose(1, 2, 0) for x in batched_inputs]
        size = self.sidecar.meta["input"]["batch"] or len(pictures)
        parts = []
        for start in range(0, len(pictures), size):
            part = pictures[start : start + size]
            try:  # a file of a fixed batch gets the last picture several times
                images = batch([*part, *part[-1:] * (size - len(part))], self.sidecar.meta)
            except ValueError as error:
                raise InputError(str(error)) from None
            parts.append({k: v[: len(part)] for k, v in self.engine(images).items()})
        return {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}


class ExportedDetections(ExportedModel):
    """Of a file that ends with NMS."""

    def detections(self, batched_inputs: Inputs) -> list[Instances]:
        """See :meth:`ExportedModel.detections`."""
        outputs, found = self.run(batched_inputs), []
        for i, inputs in enumerate(batched_inputs):
            count = int(outputs["count"][i])
            scores = torch.from_numpy(outputs["scores"][i, :count])
            kept = (scores > self.score_thresh).nonzero().flatten()[: self.decoder.max_detections]
            found.append(_instances(outputs, i, inputs, kept))
        return found


class ExportedCandidates(ExportedModel):
    """Of a file without NMS, or of one that ends with the head's outputs."""

    def detections(self, batched_inputs: Inputs) -> list[Instances]:
        """See :meth:`ExportedModel.detections`."""
        return [self.decoder.suppress(x) for x in self.candidates(batched_inputs)]

    @torch.no_grad()
    def candidates(self, batched_inputs: Inputs) -> list[Instances]:
        """As :meth:`~retinanet_ext.modeling.RetinaNetExt.candidates`."""
        outputs = self.run(batched_inputs)
        if self.sidecar.head == "raw":
            return self._decoded(outputs, batched_inputs)
        found = []
        for i, inputs in enumerate(batched_inputs):
            kept = torch.from_numpy(outputs["scores"][i] > self.score_thresh).nonzero().flatten()
            found.append(_instances(outputs, i, inputs, kept))
        return found

    def _decoded(self, outputs: dict[str, np.ndarray], inputs: Inputs) -> list[Instances]:
        meta = self.sidecar.meta["anchors"]
        levels = range(len(meta["levels"]))
        maps = {
            kind: [torch.from_numpy(outputs[f"{kind}_{i}"]).float() for i in levels]
            for kind in ("logits", "deltas", "quality")
            if f"{kind}_0" in outputs
        }
        anchors = [
            Boxes(level_anchors(x, level["stride"], cells, meta["offset"]))
            for x, level, cells in zip(
                maps["logits"], meta["levels"], self.anchor_generator.cell_anchors, strict=True
            )
        ]
        named = {"quality": maps["quality"]} if "quality" in maps else {}
        sizes = [tuple(x["image"].shape[-2:]) for x in inputs]
        return self.decoder.candidates(
            anchors, HeadOutputs(maps["logits"], maps["deltas"], named=named), sizes
        )


def _instances(
    outputs: dict[str, np.ndarray], index: int, inputs: dict[str, Any], kept: torch.Tensor
) -> Instances:
    """Some rows of one image's boxes, scores and classes."""
    boxes, scores, classes = (
        torch.from_numpy(outputs[name][index])[kept] for name in ("boxes", "scores", "classes")
    )
    return Instances(
        tuple(inputs["image"].shape[-2:]),
        pred_boxes=Boxes(boxes),
        scores=scores,
        pred_classes=classes,
    )


def _check_values(cfg: CfgNode, sidecar: Sidecar) -> None:
    """Raise InputError where the config asks for what the file cannot do."""
    decode, node = sidecar.meta["decode"], cfg.MODEL.RETINANET
    made = f"'{sidecar.path}' was exported with --head {sidecar.head}"
    if sidecar.head == "nms" and (cfg.TEST.TILES.SIZE or cfg.TEST.AUG.ENABLED):
        raise InputError(
            f"tiles and views put boxes together before NMS, and {made}; export with --head "
            "decoded or raw"
        )
    fixed = {}
    if sidecar.head != "raw":
        fixed["MODEL.RETINANET.SCORE_THRESH_TEST"] = (
            decode["score_thresh"] > node.SCORE_THRESH_TEST,
            f"at least {decode['score_thresh']:g}",
        )
        fixed["MODEL.RETINANET.TOPK_CANDIDATES_TEST"] = (
            decode["topk_per_level"] != node.TOPK_CANDIDATES_TEST,
            str(decode["topk_per_level"]),
        )
    if sidecar.head == "nms":
        fixed["MODEL.RETINANET.NMS_THRESH_TEST"] = (
            decode["nms_thresh"] != node.NMS_THRESH_TEST,
            f"{decode['nms_thresh']:g}",
        )
        fixed["MODEL.RETINANET.NMS_KIND"] = (decode["nms"] != node.NMS_KIND, decode["nms"])
        fixed["TEST.DETECTIONS_PER_IMAGE"] = (
            decode["max_detections"] < cfg.TEST.DETECTIONS_PER_IMAGE,
            f"at most {decode['max_detections']}",
        )
    for key, (differs, can_be) in fixed.items():
        if differs:
            raise InputError(
                f"{key} can only be {can_be} here, since {made}; leave it, or export again with "
                f"--opts {key} ... or another --head"
            )
