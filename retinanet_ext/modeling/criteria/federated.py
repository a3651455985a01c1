"""The focal loss over a few of very many classes at each step.

With a thousand classes nearly all sigmoids of a step are easy negatives of classes that no image of
the batch holds. CenterNet2 (Zhou et al., arXiv 2103.07461, Sec. 4.3, "federated loss") takes the
classes that are there and some others, at random.

Letters: N images, A anchors per location, K classes, S of them at a step, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage, has_event_storage
from torch import Tensor, nn

from ...errors import InputError
from ...registry import CLS_LOSS_REGISTRY, node_of
from ...structures import IGNORE_LABEL, DenseTargets
from .classification import FocalLoss


@CLS_LOSS_REGISTRY.register()
class FederatedFocal(FocalLoss):
    """Focal loss over the classes of the batch and further ones, up to a number of classes.

    The others are drawn without repetition, class k with a probability that goes with its number
    of images to a power. Only their rows of the last convolution are computed, so that its cost
    does not grow with K; the rows of the others get a gradient of exactly 0.

    The draw follows from iteration and process, so that a resumed training draws the same.
    """

    config_keys = (*FocalLoss.config_keys, "FEDERATED_CLASSES", "FEDERATED_POWER", "CLASS_COUNTS")
    needs_class_counts = True
    counts_images = True

    @configurable
    def __init__(
        self,
        *,
        counts: Sequence[float] | None,
        num_sampled: int = 50,
        power: float = 0.5,
        alpha: float = 0.25,
        gamma: float = 2.0,
        kernel: str = "auto",
    ):
        """
        Args:
            counts: K numbers of images. None where they were not counted, as where the model is
                only evaluated: then there is no loss.
            num_sampled: S; more where a batch has more classes.
            power: of the numbers of images, 0 is any class as likely as any other.
            alpha, gamma, kernel: as of :class:`FocalLoss`.
        """
        super().__init__(alpha=alpha, gamma=gamma, kernel=kernel)
        if num_sampled < 1:
            raise InputError(
                f"MODEL.RETINANET.FEDERATED_CLASSES is {num_sampled}; set it to the number of "
                "classes that take part in a step, 50 in CenterNet2"
            )
        if counts is not None and (min(counts, default=0) < 0 or not any(counts)):
            raise InputError(
                "MODEL.RETINANET.CLASS_COUNTS must hold a number of images for each class, at "
                f"least 0 and not all 0, got {list(counts)}"
            )
        self.num_sampled = num_sampled
        # A class without images is drawn as one of a single image: it may be among the negatives.
        weights = None if counts is None else torch.tensor(counts).double().clamp(min=1) ** power
        # No buffer: a setting, not a weight, that stays out of checkpoints and on the host.
        self.weights: Tensor | None = weights

    @classmethod
    def from_config(cls, cfg: CfgNode, node: CfgNode | None = None) -> dict[str, Any]:
        node = node_of(cfg, node)
        counts = list(node.CLASS_COUNTS)
        if counts and len(counts) != node.NUM_CLASSES:
            raise InputError(
                f"MODEL.RETINANET.CLASS_COUNTS has {len(counts)} values, but FederatedFocal needs "
                f"one for each of MODEL.RETINANET.NUM_CLASSES = {node.NUM_CLASSES}"
            )
        return {
            **super().from_config(cfg, node),
            "counts": counts or None,
            "num_sampled": node.FEDERATED_CLASSES,
            "power": node.FEDERATED_POWER,
        }

    def forward(self, logits: list[Tensor], targets: DenseTargets) -> Tensor:
        """Sum over the anchors that are not ignored and the S classes.

        Args:
            logits: the head's (N, A*K, Hi, Wi).
            targets: of the N images.
        """
        chosen = self.sample(targets)
        few = [
            x.unflatten(1, (-1, targets.num_classes))[:, :, chosen.to(x.device)].flatten(1, 2)
            for x in logits
        ]
        return super().forward(few, among(targets, chosen))

    def from_features(
        self, features: list[Tensor], conv: nn.Conv2d, targets: DenseTargets
    ) -> Tensor:
        """The same sum for ``logits = [conv(x) for x in features]``, of S classes only."""
        chosen = self.sample(targets)
        few: Any = _Rows(conv, chosen.to(conv.weight.device), targets.num_classes)
        return super().from_features(features, few, among(targets, chosen))

    def sample(self, targets: DenseTargets) -> Tensor:
        """The S classes of this step, rising, int64 on the host.

        Raises:
            InputError: the images of the classes were not counted.
        """
        weights = self.weights
        if weights is None:
            raise InputError(
                "MODEL.RETINANET.CLASS_COUNTS is empty, so the loss FederatedFocal cannot draw "
                "classes; retinanet_ext.engine.setup fills it with the images of each class"
            )
        present = torch.zeros(targets.num_classes, dtype=torch.bool)
        present[targets.labels[targets.pos_mask].cpu()] = True
        if targets.extra is not None:
            present[targets.extra[:, 2].cpu()] = True
        absent = weights.masked_fill(present, 0)
        number = min(self.num_sampled - int(present.sum()), int((absent > 0).sum()))
        if number > 0:
            iteration = get_event_storage().iter if has_event_storage() else 0
            generator = torch.Generator().manual_seed(iteration * 2**16 + comm.get_rank())
            present[absent.multinomial(number, generator=generator)] = True
        return present.nonzero().flatten()


class _Rows:
    """The part of a convolution that makes the logits of some classes."""

    def __init__(self, conv: nn.Conv2d, chosen: Tensor, num_classes: int):
        weight, bias = conv.weight, conv.bias
        self.weight = weight.unflatten(0, (-1, num_classes))[:, chosen].flatten(0, 1)
        self.bias = None
        if bias is not None:
            self.bias = bias.view(-1, num_classes)[:, chosen].flatten()


def among(targets: DenseTargets, chosen: Tensor) -> DenseTargets:
    """The targets with the chosen classes only, (S,) rising, which hold all classes of objects."""
    number = len(chosen)
    new = torch.full((targets.num_classes + 1,), IGNORE_LABEL, dtype=torch.int64)
    new[chosen] = torch.arange(number)
    new[-1] = number  # background
    new = new.to(targets.labels.device)
    ignored = targets.labels < 0
    labels = new[targets.labels.clamp(min=0)].masked_fill(ignored, IGNORE_LABEL)
    extra = targets.extra
    if extra is not None:
        extra = torch.cat([extra[:, :2], new[extra[:, 2:]]], dim=1)
    return replace(targets, labels=labels, num_classes=number, extra=extra)
