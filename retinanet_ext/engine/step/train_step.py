"""One iteration of training: parts of a batch, mixed precision, and losses that are not finite."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from ...errors import InputError
from ...modeling import LossNormalizer
from ..failures.reports import (
    NonFiniteLoss,
    RankReport,
    describe_nonfinite,
    files_of,
    nonfinite_hint,
)
from .micro_batches import Batch, BufferSnapshot, MicroBatchStorage, split_batch

__all__ = ["TrainStep", "build_train_step"]

logger = logging.getLogger(__name__)

GRADIENTS = "gradients"
"""Beside the names of the losses in a report: the norm of all gradients."""


class TrainStep(SimpleTrainer):
    """Detectron2's :class:`SimpleTrainer`, also with parts of a batch and mixed precision.

    With neither it computes the same weights, bit for bit. A loss that is not finite, in any
    process, never reaches the weights: the step is skipped in all processes, or raises.

    Attributes:
        last_step_skipped: whether the last step left the weights as they were.
        skipped_batches: steps of the run that were skipped since something was not finite.
        amp_skipped_steps: steps that the scaler of float16 skipped, as it does to find its scale.
        weights_intact: False only while the optimizer changes the weights. After an error with
            True, :meth:`roll_back` gives the state after ``finished_iter``.
        unfinished_batch: whether a batch was taken from the loader and its step is not done.
        finished_iter: the last iteration that is done, -1 before the first.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[Batch],
        optimizer: torch.optim.Optimizer,
        *,
        accum_steps: int = 1,
        precision: torch.dtype | None = None,
        unscale: bool = False,
        max_skipped: int = 0,
        on_nonfinite: Callable[[TrainStep, Batch, dict[str, float]], str] | None = None,
        hint: str = "",
    ):
        """
        Args:
            model: takes a batch, returns losses; may be in DistributedDataParallel.
            data_loader: of batches, each this process's share of one optimizer step.
            optimizer: of the model's parameters.
            accum_steps: equal parts that a batch goes through the network in. With a
                :class:`LossNormalizer`, gradients and losses are those of the whole batch; with
                other models, means over the parts. Batch norms see the parts.
            precision: of autocast; None: none. float16 needs CUDA, and scales the loss.
            unscale: whether the optimizer's step clips gradients, so must not see them scaled; a
                fused one does otherwise.
            max_skipped: how many batches may be skipped; above 0, gradients are looked at, too.
            on_nonfinite: called where a loss is not finite, with this object, the batch and the
                numbers; returns the folder of its report, or "".
            hint: the end of the error's text.

        Raises:
            ValueError: float16 outside of CUDA, or ``accum_steps`` below 1.
        """
        super().__init__(model, data_loader, optimizer)
        self._device = next(model.parameters()).device
        if accum_steps < 1:
            raise InputError(f"accum_steps must be at least 1, got {accum_steps}")
        if precision == torch.float16 and self._device.type != "cuda":
            raise InputError(
                f"float16 needs CUDA, but the model is on '{self._device.type}'; use bfloat16"
            )
        self.accum_steps = accum_steps
        self.precision = precision
        self.unscale = unscale
        self.max_skipped = max_skipped
        self.on_nonfinite = on_nonfinite
        self.hint = hint
        self.grad_scaler: torch.amp.GradScaler | None = None
        self.skipped_batches = self.amp_skipped_steps = 0
        self.last_step_skipped = False
        self.weights_intact = True
        self.unfinished_batch = False
        self.finished_iter = -1
        normalizers = [m for m in model.modules() if isinstance(m, LossNormalizer)]
        self._normalizer = normalizers[0] if len(normalizers) == 1 else None
        self._buffers = BufferSnapshot(model)
        self._stepped = False
        if precision == torch.float16:
            self.use_scaler(torch.amp.GradScaler("cuda"))

    def use_scaler(self, scaler: torch.amp.GradScaler) -> None:
        """Scale the loss; steps whose scaled gradients overflow are skipped."""
        if self.grad_scaler is None:
            self.optimizer.register_step_post_hook(self._note_step)
        self.grad_scaler = scaler

    def run_step(self) -> None:
        """Train on the next batch of the loader.

        Raises:
            NonFiniteLoss: a loss is not finite in some process, and no more may be skipped.
        """
        if not self.model.training:
            raise RuntimeError("the model is in evaluation mode; call model.train() after using it")
        start = time.perf_counter()
        batch = next(self._data_loader_iter)
        self.unfinished_batch = True
        data_time = time.perf_counter() - start
        self._buffers.save()
        losses = self.forward_backward(batch)
        self.after_backward()
        numbers, finite = self._numbers(losses)
        if finite:
            shown = {name: torch.tensor(numbers[name], dtype=torch.float64) for name in losses}
            self.write_metrics(shown, data_time, self.iter)
            self._update()
        else:
            self._skip_or_raise(batch, numbers)
            get_event_storage().put_scalar("data_time", data_time)
        if self.skipped_batches:
            self._put_count("skipped_batches", self.skipped_batches)
        self._buffers.drop()
        self.unfinished_batch = False
        self.finished_iter = self.iter

    def forward_backward(self, batch: Batch) -> dict[str, Tensor]:
        """Put the gradients of ``batch`` into the parameters; return its losses.

        With float16, gradients are multiplied by the scaler's scale.
        """
        if self.accum_steps == 1:
            losses = self._losses(batch)
            self.optimizer.zero_grad()
            self._backward(sum(losses.values()))
            return losses
        return self._forward_backward_in_parts(split_batch(batch, self.accum_steps))

    def _forward_backward_in_parts(self, parts: list[Batch]) -> dict[str, Tensor]:
        images = sum(map(len, parts))
        normalizer = self._normalizer
        counting = normalizer.accumulate(len(parts)) if normalizer else contextlib.nullcontext()
        totals: dict[str, Tensor] = {}
        with counting as step, MicroBatchStorage():
            for index, part in enumerate(parts):
                share = 1.0 if normalizer else len(part) / images
                # Gradients are averaged over processes once, after the last part.
                with self._no_sync(index < len(parts) - 1):
                    losses = {name: loss * share for name, loss in self._losses(part).items()}
                    if index == 0:
                        self.optimizer.zero_grad()
                    self._backward(sum(losses.values()))
                for name, loss in losses.items():
                    loss = loss.detach()
                    totals[name] = totals[name] + loss if name in totals else loss
        factor = None if step is None else step.factor
        if factor is None:
            return totals
        for gradient in self._gradients():
            gradient.mul_(factor)
        return {name: loss * factor for name, loss in totals.items()}

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        with self._autocast():
            losses = self.model(batch)
        return {"total_loss": losses} if isinstance(losses, Tensor) else losses

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.precision is None:
            return contextlib.nullcontext()
        return torch.autocast(self._device.type, dtype=self.precision)

    def _no_sync(self, wanted: bool) -> contextlib.AbstractContextManager[Any]:
        if wanted and isinstance(self.model, DistributedDataParallel):
            return self.model.no_sync()
        return contextlib.nullcontext()

    def _backward(self, loss: Any) -> None:
        (loss if self.grad_scaler is None else self.grad_scaler.scale(loss)).backward()

    def _gradients(self) -> list[Tensor]:
        groups = self.optimizer.param_groups
        return [p.grad for group in groups for p in group["params"] if p.grad is not None]

    def _numbers(self, losses: dict[str, Tensor]) -> tuple[dict[str, float], bool]:
        """This process's losses by name, and whether those of all processes are finite.

        They are read here at once: the one place where a step waits for the GPU to finish.
        """
        values = {name: loss.detach().float() for name, loss in losses.items()}
        # The scaler of float16 looks at gradients by itself.
        if self.max_skipped and self.grad_scaler is None:
            norms = [gradient.detach().float().norm() for gradient in self._gradients()]
            values[GRADIENTS] = torch.stack(norms).norm()
        row = torch.stack(list(values.values()))
        if comm.get_world_size() == 1:
            numbers = row.tolist()
            return dict(zip(values, numbers, strict=True)), all(map(math.isfinite, numbers))
        bad = (~row.isfinite()).any().float()
        dist.all_reduce(bad, op=dist.ReduceOp.MAX)
        *numbers, any_bad = torch.cat([row, bad[None]]).tolist()
        return dict(zip(values, numbers, strict=True)), not any_bad

    def _update(self) -> None:
        """The optimizer's step."""
        self.last_step_skipped = False
        self.weights_intact = False
        if self.grad_scaler is None:
            self.optimizer.step()
        else:
            self._stepped = False
            if self.unscale:
                self.grad_scaler.unscale_(self.optimizer)
            self.grad_scaler.step(self.optimizer)
            self.grad_scaler.update()
            self.last_step_skipped = not self._stepped
            self.amp_skipped_steps += self.last_step_skipped
            self._put_count("amp_skipped_steps", self.amp_skipped_steps)
        self.weights_intact = True

    def _note_step(self, *_: Any) -> None:
        self._stepped = True

    def _skip_or_raise(self, batch: Batch, numbers: dict[str, float]) -> None:
        self._buffers.restore()
        folder = ""
        if not all(map(math.isfinite, numbers.values())) and self.on_nonfinite is not None:
            folder = self.on_nonfinite(self, batch, numbers)
        mine = RankReport(comm.get_rank(), numbers, files_of(batch), folder)
        text = describe_nonfinite(self.iter, comm.all_gather(mine))
        self.roll_back()
        if self.skipped_batches >= self.max_skipped:
            raise NonFiniteLoss(f"{text}. {self.hint}".strip())
        self.skipped_batches += 1
        self.last_step_skipped = True
        logger.warning(
            "%s. This step is skipped, %d of SOLVER.MAX_SKIPPED_BATCHES %d",
            text,
            self.skipped_batches,
            self.max_skipped,
        )

    def roll_back(self) -> bool:
        """Undo what the unfinished step did to the model's buffers and gradients.

        Returns:
            Whether model and optimizer are now as they were after ``finished_iter``.
        """
        if self.weights_intact:
            self._buffers.restore()
            self.optimizer.zero_grad()
        return self.weights_intact

    def _put_count(self, name: str, count: int) -> None:
        get_event_storage().put_scalar(name, count, smoothing_hint=False)

    def state_dict(self) -> dict[str, Any]:
        """Detectron2's, with the counts of skipped steps and the scaler of float16."""
        state = super().state_dict()
        state["skipped_batches"] = self.skipped_batches
        if self.grad_scaler is not None:
            state["amp_skipped_steps"] = self.amp_skipped_steps
            state["grad_scaler"] = self.grad_scaler.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load it; what a checkpoint of Detectron2's trainers does not have stays as it is."""
        super().load_state_dict(state_dict)
        self.skipped_batches = state_dict.get("skipped_batches", 0)
        self.amp_skipped_steps = state_dict.get("amp_skipped_steps", 0)
        self.finished_iter = self.iter
        if self.grad_scaler is not None and state_dict.get("grad_scaler"):
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])


def build_train_step(
    cfg: CfgNode,
    model: nn.Module,
    data_loader: Iterable[Batch],
    optimizer: torch.optim.Optimizer,
    on_nonfinite: Callable[[TrainStep, Batch, dict[str, float]], str] | None = None,
) -> TrainStep:
    """The step that SOLVER.ACCUM_STEPS, AMP, CLIP_GRADIENTS and MAX_SKIPPED_BATCHES ask for."""
    solver = cfg.SOLVER
    return TrainStep(
        model,
        data_loader,
        optimizer,
        accum_steps=solver.ACCUM_STEPS,
        precision=getattr(torch, solver.AMP.PRECISION) if solver.AMP.ENABLED else None,
        unscale=solver.CLIP_GRADIENTS.ENABLED,
        max_skipped=solver.MAX_SKIPPED_BATCHES,
        on_nonfinite=on_nonfinite,
        hint=nonfinite_hint(cfg),
    )
