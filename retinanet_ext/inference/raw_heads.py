"""What the head says of every anchor, for reports on why an object was not detected."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from ..errors import InputError, MissingFileError, did_you_mean
from ..modeling import RetinaNetExt
from ..modeling.classifier import class_logits
from ..modeling.coders import decode_boxes, num_box_outputs, strides_of_anchors
from ..modeling.postprocess.candidates import joint_scores
from ..modeling.postprocess.decode import DenseDecoder
from ..modeling.postprocess.gather import gather_deltas, gather_quality
from ..structures import DecodedPicture, DecoderSettings, HeadOutputs
from .detector import PlainDetector
from .pictures import Picture
from .predictor import Predictor

__all__ = ["RawHeads", "why_not_raw"]


def why_not_raw(predictor: Predictor) -> str:
    """Why its way to detections cannot be followed, in a sentence; "" if it can."""
    model, detector = predictor.model, predictor.detector
    if not isinstance(detector, PlainDetector):
        return (
            "why an object was missed cannot be told of detections out of tiles or several views; "
            "set TEST.TILES.SIZE () and TEST.AUG.ENABLED False for that"
        )
    methods = ("forward", "forward_inference", "raw_outputs")
    if not _has_plain(model, RetinaNetExt, methods):
        return (
            f"why an object was missed cannot be told of {type(model).__name__}, which makes its "
            "detections in another way than RetinaNetExt"
        )
    steps = ("__call__", "candidates", "choose", "suppress", "keep")
    if not _has_plain(model.decoder, DenseDecoder, steps):
        return (
            f"why an object was missed cannot be told of {type(model.decoder).__name__}, which "
            "makes detections in another way than DenseDecoder"
        )
    return ""


def _has_plain(thing: Any, base: type, methods: Sequence[str]) -> bool:
    """Whether it is a ``base`` that overrides none of the methods."""
    return isinstance(thing, base) and all(
        getattr(type(thing), name) is getattr(base, name) for name in methods
    )


class RawHeads:
    """Looks at the pictures of a data set as the evaluation does, and keeps what that throws away.

    One picture at a time is in memory: a few numbers per anchor and class asked for.

    Attributes:
        settings: of the detector.
    """

    def __init__(
        self, predictor: Predictor, paths: Mapping[Any, str], class_names: Sequence[str]
    ) -> None:
        """
        Args:
            predictor: the model.
            paths: image id -> file.
            class_names: of the data set, whose indices are asked for.

        Raises:
            InputError: the data set has a class that the model lacks, or :func:`why_not_raw`.
        """
        if why := why_not_raw(predictor):
            raise InputError(why)
        self._predictor, self._paths = predictor, paths
        places = {name: i for i, name in enumerate(predictor.class_names)}
        for name in class_names:
            if name not in places:
                raise InputError(
                    f"the model has no class '{name}' of the data set."
                    f"{did_you_mean(name, places)} Give the data that it was trained for"
                )
        same = list(class_names) == list(predictor.class_names)
        self._class_of = range(len(places)) if same else [places[x] for x in class_names]
        decoder: DenseDecoder = self._model.decoder
        self._label_of = np.full(decoder.num_classes, -1)
        self._label_of[list(self._class_of)] = np.arange(len(self._class_of))
        self.settings = DecoderSettings(
            matching_iou=_matching_iou(self._model.assigner),
            score_thresh=decoder.score_thresh,
            topk_candidates=decoder.topk_candidates,
            max_detections=decoder.max_detections,
            nms_thresh=decoder.nms_thresh,
            nms_kind=decoder.nms_kind,
        )
        self._endless = copy.copy(decoder)

    @property
    def _model(self) -> Any:
        return self._predictor.model

    def __call__(self, image_id: Any, labels: Sequence[int]) -> DecodedPicture:
        """What the detector computes of one picture.

        Args:
            image_id: of ``paths``.
            labels: (C,) class indices of the data set that are asked for.

        Raises:
            FileNotFoundError: no file is known for the image.
            BadImageError: it cannot be read.
        """
        if image_id not in self._paths:
            raise MissingFileError(f"no file is known for image {image_id}")
        pixels = self._predictor.read(Picture(self._paths[image_id]))
        detector: Any = self._predictor.detector
        classes = torch.tensor([self._class_of[k] for k in labels], dtype=torch.int64)
        with detector.lock, torch.no_grad():
            images, anchors, outputs = self._model.raw_outputs([detector.prepare(pixels)])
            with torch.autocast(self._model.device.type, enabled=False):
                return self._decoded(
                    Boxes.cat(anchors).tensor,
                    anchors,
                    outputs,
                    images.image_sizes[0],
                    pixels.shape[:2],
                    classes.to(self._model.device),
                )

    def _decoded(
        self,
        all_anchors: Tensor,
        anchors: list[Boxes],
        outputs: HeadOutputs,
        size: tuple[int, int],
        picture: tuple[int, ...],
        classes: Tensor,
    ) -> DecodedPicture:
        decoder = self._model.decoder
        coder = decoder.box2box_transform
        strides = strides_of_anchors(coder, anchors, self._model.anchor_generator)
        rows = torch.arange(len(all_anchors), device=all_anchors.device)
        first = torch.zeros_like(rows)  # the only image of the batch
        probs = _logits_of(outputs, classes, decoder).sigmoid()
        scores = probs
        if outputs.named.get("quality") is not None:
            quality = gather_quality(outputs.named["quality"], first, rows).sigmoid()
            scores = joint_scores(probs, quality, decoder.score_rule)
            probs = scores if decoder.candidates_by == "score" else probs
        of_class = [None] if decoder.cls_agnostic_bbox_reg else classes.tolist()
        boxes = torch.stack(
            [
                decode_boxes(
                    coder,
                    gather_deltas(
                        outputs.deltas or [],
                        first,
                        rows,
                        None if k is None else torch.full_like(rows, k),
                        decoder.num_classes,
                        num_box_outputs(coder),
                    ),
                    all_anchors,
                    strides,
                )
                for k in of_class
            ]
        )
        found, chosen = decoder.choose(anchors, outputs, strides)
        finite = (chosen.isfinite().all(dim=1) & found.scores.isfinite()).nonzero().flatten()
        candidates = Instances(
            size,
            pred_boxes=Boxes(decoder.clipped(chosen[finite], size)),
            scores=found.scores[finite],
            pred_classes=found.classes[finite],
        )
        self._endless.max_detections = max(1, len(finite))
        keep, kept_scores = self._endless.keep(candidates)
        # (C, R): where each candidate stands.
        place = torch.full((decoder.num_classes,), len(classes), device=classes.device)
        place[classes] = torch.arange(len(classes), device=classes.device)
        row, column = place[found.classes[finite]], found.anchor_indices[finite]
        is_candidate = torch.zeros(len(classes) + 1, len(rows), dtype=torch.bool)
        kept = torch.full(is_candidate.shape, -1)
        row, column, keep = row.cpu(), column.cpu(), keep.cpu()
        is_candidate[row, column] = True
        kept[row[keep], column[keep]] = torch.arange(len(keep))

        def on_picture(xyxy: Tensor, cut: bool = True) -> np.ndarray:
            return _on_picture(xyxy, size, picture, cut)

        shape = (len(classes), len(rows), 4)
        return DecodedPicture(
            anchors=on_picture(all_anchors, cut=False),
            probs=probs.cpu().numpy(),
            scores=scores.cpu().numpy(),
            boxes=np.broadcast_to(on_picture(boxes), shape),
            is_candidate=is_candidate[:-1].numpy(),
            kept=kept[:-1].numpy(),
            kept_boxes=on_picture(chosen[finite][keep.to(chosen.device)]),
            kept_labels=self._label_of[found.classes[finite].cpu()[keep].numpy()],
            kept_scores=kept_scores.cpu().numpy(),
        )


def _logits_of(outputs: HeadOutputs, classes: Tensor, decoder: DenseDecoder) -> Tensor:
    """(C, R) float32 logits of some classes, out of one image's."""
    levels, num_classes = [], decoder.num_classes
    for level in class_logits(outputs.logits or [], num_classes, decoder.classifier):
        maps = level[0].unflatten(0, (-1, num_classes))  # (A, K, Hi, Wi)
        levels.append(maps[:, classes].permute(1, 2, 3, 0).flatten(1))
    return torch.cat(levels, dim=1).float()


def _on_picture(
    xyxy: Tensor, size: tuple[int, int], picture: tuple[int, ...], cut: bool
) -> np.ndarray:
    """Boxes (..., 4) XYXY in pixels of the network's input as XYWH in those of the picture."""
    (height, width), (rows, columns) = picture, size
    scale = xyxy.new_tensor([width / columns, height / rows] * 2)
    boxes = (xyxy * scale).nan_to_num(nan=0.0)
    if cut:
        boxes = torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width, height] * 2))
    boxes = torch.cat([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], dim=-1)
    return boxes.cpu().double().numpy()


def _matching_iou(assigner: Any) -> float | None:
    """The IoU from which an anchor is positive, of an assigner that goes by it."""
    matcher: Any = getattr(assigner, "matcher", None)
    thresholds, labels = getattr(matcher, "thresholds", None), getattr(matcher, "labels", None)
    if not thresholds or not labels or len(labels) != len(thresholds) + 1:
        return None
    positive = [
        low for low, label in zip([0.0, *thresholds], labels, strict=True) if label == 1 and low > 0
    ]
    return float(min(positive)) if positive else None
