"""The last classification convolution and its loss, for as many classes as LVIS has.

With K classes the logits are K times as large as the labels; what is saved by never holding them
all shows here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from ...modeling.criteria.classification import FocalLoss
from ...modeling.criteria.federated import FederatedFocal
from ...modeling.speedups.opt_in import opts_in
from ..agreement import compare_gradients, compare_losses
from ..inputs import level_features
from ..peers import DETECTRON2, OURS
from ..precision import full_precision
from ..runner import Benchmark
from ..settings import Settings
from .components import HeadCase, head_losses

__all__ = ["many_classes_work", "run_many_classes"]

FUSED = f"{OURS}, fused"
FEDERATED = f"{OURS}, FederatedFocal"

LossAndGradients = tuple[dict[str, Tensor], dict[str, Tensor]]


def run_many_classes(bench: Benchmark) -> None:
    """One image with the settings' ``many_classes``."""
    task = "many-classes"
    num_classes = bench.settings.many_classes
    settings = dataclasses.replace(bench.settings.with_classes(num_classes), batch=1)
    case = HeadCase.build(settings, OURS, 1)
    logits_bytes = 4 * case.targets.labels.numel() * num_classes
    cls_loss = case.model.cls_loss
    ours = [OURS, FUSED] if opts_in(cls_loss, "from_features") else [OURS]
    if FUSED in ours and type(cls_loss) is FocalLoss:
        ours.append(FEDERATED)
    del case, cls_loss
    works = {side: many_classes_work(settings, side) for side in (*ours, DETECTRON2)}
    with full_precision():
        their_loss, their_gradients = works[DETECTRON2]()
        for side in ours:
            # Over a few classes it is another number, over all of them the same.
            checked = works[side] if side != FEDERATED else _federated_work(settings, num_classes)
            loss, gradients = checked()
            bench.agree(
                task,
                compare_losses(task, their_loss, loss),
                compare_gradients(task, their_gradients, gradients),
            )
    del their_gradients, gradients
    what = f"last conv + loss, K = {num_classes}"
    note = "one image; conv, focal loss, and gradients of features, weight and bias"
    bench.time(task, what, works, note=note)
    del works
    bench.memory(task, what, settings, ours, logits_bytes)


def many_classes_work(settings: Settings, side: str) -> Callable[[], LossAndGradients]:
    """From features to the classification loss and its gradients, both by name.

    Args:
        settings: with K classes.
        side: DETECTRON2, OURS (convolution, then loss), FUSED, or FEDERATED: over as many classes
            as the config's FEDERATED_CLASSES.
    """
    if side == FEDERATED:
        return _federated_work(settings, settings.cfg.MODEL.RETINANET.FEDERATED_CLASSES)
    case = HeadCase.build(settings, DETECTRON2 if side == DETECTRON2 else OURS, 1)
    return _work(case, settings, fused=side == FUSED)


def _federated_work(settings: Settings, num_sampled: int) -> Callable[[], LossAndGradients]:
    """As FUSED, by FederatedFocal over so many classes, any as likely as any other."""
    case = HeadCase.build(settings, OURS, 1)
    whole = case.model.cls_loss
    case.model.cls_loss = FederatedFocal(
        counts=[1] * case.targets.num_classes,
        num_sampled=num_sampled,
        alpha=whole.alpha,
        gamma=whole.gamma,
        kernel=whole.kernel,
    )
    return _work(case, settings, fused=True)


def _work(case: HeadCase, settings: Settings, fused: bool) -> Callable[[], LossAndGradients]:
    case.model.train()
    generator = torch.Generator().manual_seed(3)
    conv = case.model.head.cls_score
    with torch.no_grad():
        conv.weight.copy_(torch.randn(conv.weight.shape, generator=generator) * 0.02)
    features = [
        torch.randn(x.shape, generator=generator).relu().to(x.device).requires_grad_()
        for x in level_features(case.model, settings.size, 1, conv.in_channels)
    ]
    leaves = {f"features of level {i}": x for i, x in enumerate(features)}
    leaves |= {"weight": conv.weight, "bias": conv.bias}
    classify = (_fused_loss if fused else _plain_loss)(case, features)

    def work() -> LossAndGradients:
        loss = classify()
        gradients = torch.autograd.grad(loss, list(leaves.values()))
        return {"loss_cls": loss}, dict(zip(leaves, gradients, strict=True))

    return work


def _plain_loss(case: HeadCase, features: list[Tensor]) -> Callable[[], Tensor]:
    num_anchors, conv = case.model.anchor_generator.num_anchors[0], case.model.head.cls_score
    # Both sides make a box loss of these; its gradients are not asked for.
    deltas = [x.new_zeros(1, num_anchors * 4, *x.shape[-2:]) for x in features]
    return lambda: head_losses(case, [conv(x) for x in features], deltas)["loss_cls"]


def _fused_loss(case: HeadCase, features: list[Tensor]) -> Callable[[], Tensor]:
    model, targets = case.model, case.targets
    normalizer = model.loss_normalizer

    def loss() -> Tensor:
        total = model.cls_loss.from_features(features, model.head.cls_score, targets)
        return total / normalizer(int(targets.pos_mask.sum()))

    return loss
