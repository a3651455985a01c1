"""One iteration of training, with micro-batches and mixed precision."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from typing import Any

import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn

from ...errors import InputError
from ...modeling import LossNormalizer
from .bad_batches import SkipBadBatches
from .micro_batches import Batch, BufferSnapshot, MicroBatchStorage, split_batch
from .wrap_ddp import no_sync

__all__ = ["TrainStep"]


class TrainStep(SimpleTrainer):
    """Detectron2's :class:`SimpleTrainer`, also with parts of a batch and mixed precision.

    With neither it computes the same weights, bit for bit. A loss or a gradient that is not finite,
    in any process, never reaches the weights: the step is skipped in all processes, or raises.

    Attributes:
        last_step_skipped: whether the last step left the weights as they were.
        bad_batches: what becomes of losses and gradients that are not finite.
        amp_skipped_steps: steps that the scaler of float16 skipped, as it does to find its scale.
        weights_intact: False only while the optimizer changes the weights. After an error with
            True, :meth:`roll_back` gives the state after ``finished_iter``.
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
        bad_batches: SkipBadBatches | None = None,
    ):
        """
        Args:
            model: takes a batch, returns losses; may be in DistributedDataParallel.
            data_loader: of batches, each this process's part of one optimizer step.
            optimizer: of the model's parameters.
            accum_steps: equal parts that a batch goes through the network in. With a
                :class:`LossNormalizer`, gradients and losses are those of the whole batch; with
                other models, means over the parts. Batch norms see the parts.
            precision: of autocast; None: none. float16 needs CUDA, and scales the loss.
            unscale: whether the optimizer's step clips gradients, so must not see them scaled; a
                fused one does otherwise.
            bad_batches: what becomes of losses that are not finite; None raises at the first one.

        Raises:
            ValueError: float16 outside of CUDA, or ``accum_steps`` below 1.
        """
        super().__init__(model, data_loader, optimizer)
        device = self._device_type = next(model.parameters()).device.type
        if accum_steps < 1:
            raise InputError(f"accum_steps must be at least 1, got {accum_steps}")
        if precision == torch.float16 and device != "cuda":
            raise InputError(f"float16 needs CUDA, but the model is on '{device}'; use bfloat16")
        self.accum_steps = accum_steps
        self.precision = precision
        self.unscale = unscale
        self.bad_batches = bad_batches or SkipBadBatches()
        self.grad_scaler: torch.amp.GradScaler | None = None
        self.amp_skipped_steps = 0
        self.last_step_skipped = False
        self.weights_intact = True
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
            NonFiniteLoss: a loss or gradient is not finite, and no more may be skipped.
        """
        batch, data_time = self._next_batch()
        self._buffers.save()
        losses = self.forward_backward(batch)
        self.after_backward()
        # The scaler of float16 looks at gradients by itself.
        gradients = [] if self.grad_scaler else self._gradients()
        numbers, finite = self.bad_batches.examine(losses, gradients)
        if finite:
            self._write(losses, numbers, data_time)
            self._update()
        else:
            self._skip_or_raise(batch, numbers, data_time)
        self._buffers.drop()
        self.finished_iter = self.iter

    @property
    def skipped_batches(self) -> int:
        """Steps of the run that were skipped since something was not finite."""
        return self.bad_batches.skipped

    def _next_batch(self) -> tuple[Batch, float]:
        """The next batch of the loader, and the seconds that this process waited for it."""
        if not self.model.training:
            raise RuntimeError("the model is in evaluation mode; call model.train() after using it")
        start = time.perf_counter()
        batch = next(self._data_loader_iter)
        return batch, time.perf_counter() - start

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
                with no_sync(self.model) if index < len(parts) - 1 else contextlib.nullcontext():
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
        return torch.autocast(self._device_type, dtype=self.precision)

    def _backward(self, loss: Any) -> None:
        (loss if self.grad_scaler is None else self.grad_scaler.scale(loss)).backward()

    def _gradients(self) -> list[Tensor]:
        groups = self.optimizer.param_groups
        return [p.grad for group in groups for p in group["params"] if p.grad is not None]

    def _write(
        self, losses: dict[str, Tensor], numbers: dict[str, float], data_time: float
    ) -> None:
        shown = {name: torch.tensor(numbers[name], dtype=torch.float64) for name in losses}
        self.write_metrics(shown, data_time, self.iter)
        if self.skipped_batches:
            self._put_count("skipped_batches", self.skipped_batches)

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

    def _skip_or_raise(self, batch: Batch, numbers: dict[str, float], data_time: float) -> None:
        self._buffers.restore()
        try:
            self.bad_batches.skip(self, batch, numbers)
        finally:
            self.roll_back()
        self.last_step_skipped = True
        get_event_storage().put_scalar("data_time", data_time)
        self._put_count("skipped_batches", self.skipped_batches)

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
        self.bad_batches.skipped = state_dict.get("skipped_batches", 0)
        self.amp_skipped_steps = state_dict.get("amp_skipped_steps", 0)
        self.finished_iter = self.iter
        if self.grad_scaler is not None and state_dict.get("grad_scaler"):
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
