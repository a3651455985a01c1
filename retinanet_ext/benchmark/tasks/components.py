"""Tasks on head outputs, without a backbone: losses, anchor labelling and decoding.

Letters: N images, A anchors per location, K classes, R anchors over all levels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.modeling.meta_arch.dense_detector import permute_to_N_HWA_K
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import EventStorage
from torch import Tensor

from ...structures import DenseTargets, HeadOutputs
from ..agreement import compare_detections, compare_gradients, compare_labels, compare_losses
from ..inputs import level_features, make_batch, synthetic_outputs
from ..peers import DETECTRON2, OURS, build_side
from ..runner import Benchmark
from ..settings import Settings

__all__ = ["HeadCase", "decode_works", "head_losses", "labelling_work", "loss_work"]
__all__ += ["run_decode", "run_labelling", "run_loss"]

MANY_GT = 1000


@dataclass(frozen=True)
class HeadCase:
    """One side's model and what stands around its head's outputs.

    Attributes:
        model: Detectron2's or ours, with random weights.
        side: DETECTRON2 or OURS.
        features: L uninitialised maps (N, 1, Hi, Wi); only shapes are used.
        anchors: L Boxes (Hi*Wi*A, 4).
        targets: of N images.
    """

    model: Any
    side: str
    features: list[Tensor]
    anchors: list[Boxes]
    targets: DenseTargets

    @classmethod
    def build(cls, settings: Settings, side: str, num_images: int) -> HeadCase:
        """The side's model and its labels of ``num_images`` synthetic images."""
        model = build_side(settings, side)
        features = level_features(model, settings.size, num_images)
        anchors = model.anchor_generator(features)
        gt = ground_truth(settings, num_images)
        if side == DETECTRON2:
            labels, boxes = model.label_anchors(anchors, gt)
            targets = DenseTargets(torch.stack(labels), torch.stack(boxes), model.num_classes)
        else:
            targets = model.assigner(anchors, gt)
        return cls(model, side, features, anchors, targets)

    def outputs(self, settings: Settings) -> tuple[list[Tensor], list[Tensor]]:
        """Synthetic logits and deltas of each level, in the head's own memory formats."""
        thresh = settings.cfg.MODEL.RETINANET.SCORE_THRESH_TEST
        logits, deltas = synthetic_outputs(
            self.features, self.targets.labels, self.targets.num_classes, thresh
        )
        head = self.model.head
        return self._laid_out(logits, head.cls_score), self._laid_out(deltas, head.bbox_pred)

    @torch.no_grad()
    def _laid_out(self, outputs: list[Tensor], conv: Any) -> list[Tensor]:
        """``outputs`` with the strides that ``conv`` would give them."""
        laid_out = []
        for x in outputs:
            real = conv(x.new_zeros(len(x), conv.in_channels, *x.shape[-2:]))
            laid_out.append(real.copy_(x))
        return laid_out


def ground_truth(settings: Settings, num_images: int) -> list[Instances]:
    """Of the images of :func:`make_batch`, on the settings' device."""
    return [x["instances"].to(settings.device) for x in make_batch(settings, num_images)]


def head_losses(case: HeadCase, logits: list[Tensor], deltas: list[Tensor]) -> dict[str, Tensor]:
    """Both losses, as the model's ``forward_training`` gets them from the head's outputs."""
    model, targets = case.model, case.targets
    with EventStorage():
        if case.side == OURS:
            return model.losses(case.anchors, HeadOutputs(logits, deltas), targets)
        return model.losses(
            case.anchors,
            [permute_to_N_HWA_K(x, targets.num_classes) for x in logits],
            list(targets.labels),
            [permute_to_N_HWA_K(x, 4) for x in deltas],
            list(targets.boxes),
        )


def run_loss(bench: Benchmark) -> None:
    """Focal and box loss from the head's outputs to their gradients."""
    works = {side: loss_work(bench.settings, side) for side in (OURS, DETECTRON2)}
    (losses, gradients), (their_losses, their_gradients) = works[OURS](), works[DETECTRON2]()
    bench.agree(
        "loss",
        compare_losses("loss", their_losses, losses),
        compare_gradients("loss", their_gradients, gradients),
    )
    size = 4 * sum(x.numel() for name, x in gradients.items() if name.startswith("logits"))
    del gradients, their_gradients
    what = "loss, forward + backward"
    note = "focal and box loss, from the head's outputs to their gradients"
    bench.time("loss", what, works, note=note)
    del works
    bench.memory("loss", what, bench.settings, logits_bytes=size)


def loss_work(
    settings: Settings, side: str
) -> Callable[[], tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """From the head's outputs to the losses and the outputs' gradients, both by name."""
    case = HeadCase.build(settings, side, settings.batch)
    case.model.train()
    logits, deltas = case.outputs(settings)
    leaves = {f"logits of level {i}": x.requires_grad_() for i, x in enumerate(logits)}
    leaves |= {f"deltas of level {i}": x.requires_grad_() for i, x in enumerate(deltas)}

    def work() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        losses = head_losses(case, logits, deltas)
        gradients = torch.autograd.grad(
            torch.stack(list(losses.values())).sum(), [*leaves.values()]
        )
        return losses, dict(zip(leaves, gradients, strict=True))

    return work


def run_labelling(bench: Benchmark) -> None:
    """Labels of the anchors of a batch: time with usual images, memory with crowded ones."""
    settings = bench.settings
    works: dict[str, Callable[[], Any]] = {}
    for num_gt in (MANY_GT, settings.num_gt):
        works = {
            side: labelling_work(settings.with_gt(num_gt), side) for side in (OURS, DETECTRON2)
        }
        bench.agree("labelling", compare_labels("labelling", works[DETECTRON2](), works[OURS]()))
    bench.time("labelling", f"anchor labelling, {settings.num_gt} gt per image", works)
    what = f"anchor labelling, {MANY_GT:,} gt per image"
    bench.memory("labelling", what, settings.with_gt(MANY_GT))


def labelling_work(settings: Settings, side: str) -> Callable[[], Any]:
    """Label the anchors of ``settings.batch`` images; returns what the side's model returns."""
    model = build_side(settings, side)
    gt = ground_truth(settings, settings.batch)
    anchors = model.anchor_generator(level_features(model, settings.size, settings.batch))
    label = model.label_anchors if side == DETECTRON2 else model.assigner
    return lambda: label(anchors, gt)


def run_decode(bench: Benchmark) -> None:
    """From the head's outputs of one image to its detections."""
    settings, thresh = bench.settings, bench.settings.cfg.MODEL.RETINANET.SCORE_THRESH_TEST
    works = decode_works(settings, 1)
    theirs, ours = works[DETECTRON2](), works[OURS]()
    bench.agree("decode", compare_detections("decode", theirs, ours, thresh))
    note = f"{passing_scores(settings):,} scores above {thresh:g}, {len(theirs[0])} detections"
    bench.time("decode", "decode, one image", works, note=note)


def decode_works(settings: Settings, num_images: int) -> dict[str, Callable[[], list[Instances]]]:
    """From the head's outputs of ``num_images`` images to their detections, by side."""
    images = ImageList(torch.empty(0), [settings.size] * num_images)

    def work_of(side: str) -> Callable[[], list[Instances]]:
        case = HeadCase.build(settings, side, num_images)
        logits, deltas = case.outputs(settings)

        def work() -> list[Instances]:
            # Detectron2 turns the logits of a level of one location into scores in place.
            fresh = [x.clone() if x.shape[-2:].numel() == 1 else x for x in logits]
            with torch.no_grad():
                return case.model.forward_inference(images, case.features, [fresh, deltas])

        return work

    return {side: work_of(side) for side in (OURS, DETECTRON2)}


def passing_scores(settings: Settings) -> int:
    """How many scores of one image of :func:`decode_works` are above the threshold."""
    logits, _ = HeadCase.build(settings, OURS, 1).outputs(settings)
    thresh = settings.cfg.MODEL.RETINANET.SCORE_THRESH_TEST
    return int(sum((x.sigmoid() > thresh).sum() for x in logits))
