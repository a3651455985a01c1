"""What the channels of an anchor's classes mean: K independent sigmoids, or one softmax of K + 1.

Letters: N images, L levels, A anchors per location (levels may differ in it), K classes, Hi x Wi
locations of level i.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError
from ..losses.precision import at_least_float32

CLASSIFIERS = ("sigmoid", "softmax")
"""Values of MODEL.RETINANET.CLASSIFIER."""


def num_class_outputs(num_classes: int, classifier: str) -> int:
    """Channels of an anchor's classes: K, and with "softmax" one more, the background's, last.

    Raises:
        InputError: there is no such classifier.
    """
    if classifier not in CLASSIFIERS:
        raise InputError(
            f"MODEL.RETINANET.CLASSIFIER is '{classifier}'; set it to one of "
            f"{', '.join(CLASSIFIERS)}"
        )
    return num_classes + (classifier == "softmax")


def class_logits(logits: list[Tensor], num_classes: int, classifier: str) -> list[Tensor]:
    """Logits (N, A*K, Hi, Wi) whose sigmoids are the probabilities of the K classes.

    Those of "sigmoid" are what they are. Of "softmax", log(p / (1 - p)) of each class's p, so that
    everything that looks at scores works for both.

    Args:
        logits: L tensors (N, A*K, Hi, Wi), with "softmax" (N, A*(K+1), Hi, Wi).
        num_classes: K.
        classifier: one of :data:`CLASSIFIERS`.
    """
    if classifier == "sigmoid":
        return logits
    found = []
    for level in logits:
        outputs = at_least_float32(level).unflatten(1, (-1, num_classes + 1))
        log_p = outputs.log_softmax(dim=2)[:, :, :-1]
        found.append((log_p - (-torch.expm1(log_p)).log()).flatten(1, 2))
    return found
