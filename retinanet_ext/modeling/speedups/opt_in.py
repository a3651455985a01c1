"""Who is computed by a fast path: classes that say so, as long as nobody listens to their parts."""

from __future__ import annotations

from torch import nn

from .hooked import is_hooked
from .plain_conv import makes_same_maps


def opts_in(part: object, method: str) -> bool:
    """Whether the part's own class has the fast path ``method`` in its body.

    An inherited one does not count: a subclass may compute something else in the plain way. It opts
    in again with ``method = Parent.method``.
    """
    return method in vars(type(part))


def wanted_parts(head: nn.Module, cls_loss: object, fused: bool, sparse: bool) -> set[str]:
    """What a training step may ask of ``head.partial_outputs``; nothing where it may not be called.

    Args:
        head, cls_loss: as the detector has them.
        fused: whether the loss may make the logits in pieces.
        sparse: whether the deltas may be those of the positives only.
    """
    if not opts_in(head, "partial_outputs") or is_hooked(*head.modules()):
        return set()
    wanted = {"positive_deltas"} if sparse else set()
    listened = isinstance(cls_loss, nn.Module) and is_hooked(cls_loss)
    fused = fused and opts_in(cls_loss, "from_features") and not listened
    if fused and makes_same_maps(getattr(head, "cls_score", None)):
        wanted.add("cls_features")
    return wanted
