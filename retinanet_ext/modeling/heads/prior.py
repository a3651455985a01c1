"""The first weights of a head, and the prior: how rare it takes objects to be (Sec. 3.3)."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from ...errors import InputError


def prior_logit(prior_prob: float) -> float:
    """The logit whose sigmoid is ``prior_prob``.

    Raises:
        InputError: it is outside of (0, 1).
    """
    if not 0 < prior_prob < 1:
        raise InputError(f"MODEL.RETINANET.PRIOR_PROB must be in (0, 1), got {prior_prob}")
    return -math.log((1 - prior_prob) / prior_prob)


def init_with_prior(head: Any, prior_prob: float) -> None:
    """Small weights for all convolutions of a :class:`.DenseHead`, and the prior in the last one.

    Args:
        head: a module with ``cls_score``, ``classifier`` and ``num_classes``.
        prior_prob: pi, see :class:`.DenseHead`.
    """
    for module in head.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.01)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    bias = head.cls_score.bias
    assert bias is not None, "the prior lives in the bias of the last layer"
    if head.classifier == "softmax":
        odds = (1 - prior_prob) / prior_prob
        bias.detach().view(-1, head.num_classes + 1)[:, -1] = math.log(head.num_classes * odds)
    else:
        nn.init.constant_(bias, prior_logit(prior_prob))
