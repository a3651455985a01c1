"""An exported file with the interface of Detectron2's models."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances
from torch import nn

from ...config.load import flatten
from ...cores import on_one_thread
from ...errors import InputError
from ...modeling.anchors import RetinaNetAnchorGenerator
from ...modeling.postprocess.decode import DenseDecoder
from ...structures import HeadOutputs
from .engines import open_engine
from .sidecar import Sidecar, cfg_of_export
from .standalone.preprocess import batch

__all__ = ["ExportedModel", "build_exported"]

Inputs = list[dict[str, Any]]
T = TypeVar("T")

SMALL = 2**18
"""Numbers that come out of the engine; what follows up to so many takes 1.5 ms on one core."""


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
        autocast = cfg.MODEL.SPEEDUPS.AUTOCAST
        precision = "" if autocast == "auto" else autocast  # auto is the Predictor's to decide
        self.sidecar, self.engine = sidecar, open_engine(sidecar, cfg.MODEL.DEVICE, precision)
        self.device = torch.device("cpu")
        self.decoder = DenseDecoder.from_cfg(cfg)
        self.score_thresh = float(cfg.MODEL.RETINANET.SCORE_THRESH_TEST)
        # What users of a detector read of its parts.
        self.backbone: Any = SimpleNamespace(size_divisibility=sidecar.meta["input"]["divisor"])
        self.anchor_generator = _anchor_generator(sidecar)

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
        if len(parts) == 1:  # without a copy
            return parts[0]
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
        outputs = self.run(batched_inputs)
        return _beside_the_engine(
            outputs,
            lambda: [self.decoder.suppress(x) for x in self._chosen(outputs, batched_inputs)],
        )

    @torch.no_grad()
    def candidates(self, batched_inputs: Inputs) -> list[Instances]:
        """As :meth:`~retinanet_ext.modeling.RetinaNetExt.candidates`."""
        outputs = self.run(batched_inputs)
        return _beside_the_engine(outputs, lambda: self._chosen(outputs, batched_inputs))

    def _chosen(self, outputs: dict[str, np.ndarray], inputs: Inputs) -> list[Instances]:
        if self.sidecar.head == "raw":
            return self._decoded(outputs, inputs)
        found = []
        for i, one in enumerate(inputs):
            kept = torch.from_numpy(outputs["scores"][i] > self.score_thresh).nonzero().flatten()
            found.append(_instances(outputs, i, one, kept))
        return found

    def _decoded(self, outputs: dict[str, np.ndarray], inputs: Inputs) -> list[Instances]:
        levels = range(len(self.sidecar.meta["anchors"]["levels"]))
        maps = {
            kind: [torch.from_numpy(outputs[f"{kind}_{i}"]).float() for i in levels]
            for kind in ("logits", "deltas", "quality")
            if f"{kind}_0" in outputs
        }
        anchors = self.anchor_generator(maps["logits"])
        named = {"quality": maps["quality"]} if "quality" in maps else {}
        sizes = [tuple(x["image"].shape[-2:]) for x in inputs]
        return self.decoder.candidates(
            anchors, HeadOutputs(maps["logits"], maps["deltas"], named=named), sizes
        )


def _beside_the_engine(outputs: dict[str, np.ndarray], work: Callable[[], T]) -> T:
    """The result of ``work``, so that the engine has all cores as soon as it is asked again."""
    small = sum(x.size for x in outputs.values()) <= SMALL
    return on_one_thread(work) if small else work()


def _anchor_generator(sidecar: Sidecar) -> Any:
    """It keeps the anchors of the last sizes; without cells where the file is of no anchors."""
    if "anchors" not in sidecar.meta:
        return SimpleNamespace(cell_anchors=[])
    meta = sidecar.meta["anchors"]
    return RetinaNetAnchorGenerator(
        octave_base_sizes=(),
        scales_per_octave=1,
        aspect_ratios=[[1.0]],
        strides=[level["stride"] for level in meta["levels"]],
        offset=meta["offset"],
        cell_anchors=[level["cells"] for level in meta["levels"]],
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


DECODE = "MODEL.RETINANET."
OF_NMS = tuple(
    f"{DECODE}{key}" for key in ("NMS_THRESH_TEST", "NMS_KIND", "SOFT_NMS_METHOD", "SOFT_NMS_SIGMA")
)
OF_CANDIDATES = (f"{DECODE}TOPK_CANDIDATES_TEST",)
FREE: dict[str, tuple[str, ...]] = {"nms": (), "decoded": OF_NMS, "raw": (*OF_NMS, *OF_CANDIDATES)}
"""Head of the file -> keys that are read after it, so that they may have other values."""


def _check_values(cfg: CfgNode, sidecar: Sidecar) -> None:
    """Raise InputError where the config asks for what the file cannot do."""
    made = f"'{sidecar.path}' was exported with --head {sidecar.head}"
    if sidecar.head == "nms" and (cfg.TEST.TILES.SIZE or cfg.TEST.AUG.ENABLED):
        raise InputError(
            f"tiles and views put boxes together before NMS, and {made}; export with --head "
            "decoded or raw"
        )
    now, own = dict(flatten(cfg)), dict(flatten(cfg_of_export(sidecar.path)))
    thresh, most = f"{DECODE}SCORE_THRESH_TEST", "TEST.DETECTIONS_PER_IMAGE"
    wrong: dict[str, str] = {}
    if sidecar.head != "raw" and now[thresh] < own[thresh]:
        wrong[thresh] = f"at least {own[thresh]:g}"
    if sidecar.head == "nms" and now[most] > own[most]:
        wrong[most] = f"at most {own[most]}"
    # What runs the file has its own word on the precision.
    free = {"MODEL.WEIGHTS", "MODEL.DEVICE", "MODEL.SPEEDUPS.AUTOCAST", thresh}
    free.update(FREE[sidecar.head])
    for key, value in own.items():
        of_file = key.startswith("MODEL.") or key == "INPUT.FORMAT"
        if of_file and key not in free and _plain(now.get(key)) != _plain(value):
            wrong[key] = f"{value}"
    for key, can_be in wrong.items():
        raise InputError(
            f"{key} is {now.get(key)}, but can only be {can_be} here, since {made}; leave it, or "
            "export again with another value or --head"
        )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
