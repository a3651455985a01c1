"""EMA: an exponential moving average of a model's weights, which often detects better than they."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.layers import FrozenBatchNorm2d
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ...compat import lerp_each
from ...errors import InputError
from ..checkpoint.checkpointer import SafeCheckpointer

__all__ = ["EMAHook", "ModelEMA", "build_ema"]

logger = logging.getLogger(__name__)

FINAL_EMA = "model_final_ema"


class ModelEMA:
    """Exponential moving average of the parameters and floating-point buffers of a model.

    At each update, ``average = d * average + (1 - d) * weight``, in float32. ``d`` is ``decay``; or
    with ``warmup`` at most (1 + n) / (10 + n) after n updates, so that the first weights do not
    stay for long.

    What cannot change, or is no floating-point number, takes no part and is the model's own: frozen
    parameters, the buffers of FrozenBatchNorm2d, counters, and buffers that no checkpoint holds.
    What is unfrozen later therefore needs a new average.
    """

    def __init__(self, model: nn.Module, decay: float = 0.999, warmup: bool = True):
        """
        Args:
            model: may be wrapped for several processes.
            decay: fraction of the average that stays at each update, in [0, 1).
            warmup: see above.

        Raises:
            ValueError: ``decay`` is out of range.
        """
        if not 0 <= decay < 1:
            raise InputError(f"decay must be in [0, 1), got {decay}")
        self.model = model.module if isinstance(model, DistributedDataParallel) else model
        self.decay = decay
        self.warmup = warmup
        self._places = dict(_averaged(self.model))
        self.averages: dict[str, Tensor] = {}
        self.num_updates = 0
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """Start again from the weights that the model has now."""
        self.num_updates = 0
        self.averages = {
            name: weight.detach().to(torch.float32, copy=True)
            for name, weight in zip(self._places, self._weights(), strict=True)
        }

    def next_decay(self) -> float:
        """The ``d`` of the next update."""
        n = self.num_updates
        return min(self.decay, (1 + n) / (10 + n)) if self.warmup else self.decay

    @torch.no_grad()
    def update(self) -> None:
        """Move the averages towards the weights that the model has now."""
        weights = [x if x.dtype == torch.float32 else x.float() for x in self._weights()]
        lerp_each(list(self.averages.values()), weights, 1.0 - self.next_decay())
        self.num_updates += 1

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averages in place of the model's weights; put these back after the block."""
        weights = self._weights()
        with torch.no_grad():
            kept = [x.detach().clone() for x in weights]
            _copy(weights, list(self.averages.values()))
        try:
            yield
        finally:
            with torch.no_grad():
                _copy(weights, kept)

    def state_dict(self) -> dict[str, Any]:
        """The averages by name, as they are, and the number of updates."""
        return {"num_updates": self.num_updates, "averages": dict(self.averages)}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from another average of the same model, whose weights are loaded already.

        Averages that were not kept then, of what was frozen, start from the model's weights now.

        Raises:
            ValueError: an average has another shape.
        """
        self.reset()
        saved = state_dict["averages"]
        for name, average in self.averages.items():
            if name not in saved:
                continue
            if saved[name].shape != average.shape:
                raise InputError(
                    f"the saved EMA of {name} has the shape {tuple(saved[name].shape)}, the model "
                    f"{tuple(average.shape)}; resume with the config that it was trained with"
                )
            average.copy_(saved[name])
        fresh = [name for name in self.averages if name not in saved]
        if fresh:
            logger.warning(
                "EMA of %d tensors starts again from the weights: %s, ...", len(fresh), fresh[0]
            )
        self.num_updates = int(state_dict["num_updates"])

    def _weights(self) -> list[Tensor]:
        # Looked up each time: a module may replace its buffers.
        return [getattr(module, name) for module, name in self._places.values()]


def build_ema(cfg: CfgNode, model: nn.Module) -> ModelEMA | None:
    """The average of the weights that ``SOLVER.EMA`` asks for; None if it is not enabled."""
    ema = cfg.SOLVER.EMA
    return ModelEMA(model, ema.DECAY, ema.WARMUP) if ema.ENABLED else None


def _averaged(model: nn.Module) -> Iterator[tuple[str, tuple[nn.Module, str]]]:
    """By full name, the module and attribute of each tensor that is averaged."""
    saved = model.state_dict().keys()
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    buffers = [name for name, buffer in model.named_buffers() if buffer.is_floating_point()]
    for name in [*trained, *(x for x in buffers if x in saved)]:
        owner, _, attribute = name.rpartition(".")
        module = model.get_submodule(owner)
        if not isinstance(module, FrozenBatchNorm2d):
            yield name, (module, attribute)


def _copy(targets: list[Tensor], sources: list[Tensor]) -> None:
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)


class EMAHook(HookBase):
    """Update an average after each step of the optimizer, and save it by itself at the end.

    ``model_final_ema.pth`` holds the averages under "model", so that it is a file of weights as any
    other. A run that is resumed takes its averages from the checkpoint: the trainer adds ``ema`` to
    what its checkpointer saves.
    """

    def __init__(self, ema: ModelEMA, checkpointer: SafeCheckpointer):
        """
        Args:
            ema: of the model that is trained.
            checkpointer: of the run; says where files go, and the names of the classes.
        """
        self._ema = ema
        self._checkpointer = checkpointer

    def before_train(self) -> None:
        """Start from the weights that were loaded, unless the averages were."""
        if self._ema.num_updates == 0:
            self._ema.reset()

    def after_step(self) -> None:
        """Update, unless this step left the weights as they were."""
        if not getattr(self.trainer._trainer, "last_step_skipped", False):
            self._ema.update()

    def after_train(self) -> None:
        """Save the averages of a training that came to its end."""
        if self.trainer.iter < self.trainer.max_iter or not comm.is_main_process():
            return
        of_run = self._checkpointer
        weights_only = SafeCheckpointer(
            self._ema.model, of_run.save_dir, thing_classes=of_run.thing_classes
        )
        try:
            with self._ema.applied():
                weights_only.save(FINAL_EMA, tag=False)
        except OSError as error:
            logger.error(
                "%s.pth was not saved: %s; the averages are in the last checkpoint as 'ema', and "
                "--resume saves them again",
                FINAL_EMA,
                error,
            )
