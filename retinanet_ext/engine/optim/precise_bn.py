"""Detectron2's PreciseBN, which a resumed run continues with the images that come next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import hooks
from fvcore.nn.precise_bn import get_bn_modules
from torch import nn

from ...data.loading.stream import TrainStream
from ...errors import InputError

__all__ = ["PreciseBN", "build_precise_bn"]


class PreciseBN(hooks.PreciseBN):
    """Detectron2's hook; its position in the data is part of the checkpoint."""

    def __init__(self, period: int, model: nn.Module, data_loader: Any, num_iter: int):
        """See Detectron2."""
        super().__init__(period, model, data_loader, num_iter)
        self._stream = data_loader if isinstance(data_loader, TrainStream) else None

    def state_dict(self) -> dict[str, Any]:
        """The position in the data."""
        return {} if self._stream is None else {"data": self._stream.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See :meth:`state_dict`."""
        if self._stream is not None and "data" in state_dict:
            self._stream.load_state_dict(state_dict["data"])


def build_precise_bn(
    cfg: CfgNode, model: nn.Module, build_train_loader: Callable[[CfgNode], Any]
) -> PreciseBN | None:
    """The hook that ``TEST.PRECISE_BN`` asks for; None where it is not asked for.

    Raises:
        InputError: it is, of a model without a batch norm that takes statistics.
    """
    if not cfg.TEST.PRECISE_BN.ENABLED:
        return None
    if not get_bn_modules(model):
        raise InputError(
            "TEST.PRECISE_BN.ENABLED is True, but the model has no batch norm whose statistics are "
            "taken in training (frozen ones keep theirs); set it to False, or a NORM of the model "
            "to BN"
        )
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATALOADER.NUM_WORKERS = 0  # it needs few images at a time
    loader = build_train_loader(cfg)
    return PreciseBN(cfg.TEST.EVAL_PERIOD, model, loader, cfg.TEST.PRECISE_BN.NUM_ITER)
