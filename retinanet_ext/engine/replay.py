"""Repeat a step from its snapshot, and find where numbers stop being finite."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.structures import Boxes, ImageList
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from ..config import get_cfg
from ..errors import InputError, MissingFileError
from ..structures import HeadOutputs
from ..weights.reading import read_torch
from .failures.snapshot import unpack_batch
from .step.reproducibility import step_seed
from .step.train_step import TrainStep
from .trainer import RetinaNetTrainer

__all__ = ["Replay", "load_snapshot", "replay"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Replay:
    """What a repeated step showed; names are "" or () where all is finite.

    Attributes:
        losses: by name.
        weights: parameters and buffers that are not finite before the step.
        module: the first module with an output that is not finite.
        inputs_finite: whether its inputs were.
        gradient: the first parameter with a gradient that is not finite.
        precision: what the network computed in.
    """

    losses: dict[str, float]
    weights: tuple[str, ...]
    module: str
    inputs_finite: bool
    gradient: str
    precision: str

    @property
    def finite(self) -> bool:
        """Whether everything was."""
        losses = all(torch.tensor(x).isfinite() for x in self.losses.values())
        return losses and not self.weights and not self.module and not self.gradient


def load_snapshot(path: str) -> dict[str, Any]:
    """Read a ``snapshot.pth`` of a training step.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is another file.
    """
    if not os.path.isfile(path):
        raise MissingFileError(
            f"'{path}' does not exist; snapshots are in OUTPUT_DIR/trouble/*/snapshot.pth"
        )
    snapshot = read_torch(path)
    if not {"config", "model", "batch", "iteration"} <= set(snapshot):
        raise InputError(
            f"'{path}' is no snapshot of a training step; those are in "
            "OUTPUT_DIR/trouble/*/snapshot.pth"
        )
    return snapshot


def replay(snapshot: dict[str, Any], device: str = "") -> Replay:
    """Forward and backward pass of a snapshot's step; the weights do not change.

    On the CPU, a step of float16 is repeated in float32. Of a job of several processes, this
    process's share is repeated: its losses differ by what the others' positives count.

    Args:
        snapshot: of :func:`load_snapshot`.
        device: "" is the config's, or the CPU where that is absent.
    """
    cfg = _config(snapshot, device)
    model = RetinaNetTrainer.build_model(cfg)
    model.load_state_dict(snapshot["model"])
    weights = tuple(k for k, v in model.state_dict().items() if not bool(v.isfinite().all()))
    precision = getattr(torch, snapshot["precision"]) if snapshot["precision"] else None
    if precision == torch.float16 and torch.device(cfg.MODEL.DEVICE).type != "cuda":
        precision = None
    batch = unpack_batch(snapshot["batch"])
    optimizer = torch.optim.SGD([x for x in model.parameters() if x.requires_grad], lr=0.0)
    step = TrainStep(
        model, [batch], optimizer, accum_steps=snapshot["accum_steps"], precision=precision
    )
    if step.grad_scaler is not None and snapshot["scale"]:
        step.use_scaler(torch.amp.GradScaler("cuda", init_scale=snapshot["scale"]))
    watch = _Watch(model)
    seed_all_rng(step_seed(snapshot["run_seed"], snapshot["rank"], snapshot["iteration"]))
    with EventStorage(snapshot["iteration"]):
        losses = step.forward_backward(batch)
    gradient = next(
        (
            name
            for name, parameter in model.named_parameters()
            if parameter.grad is not None and not bool(parameter.grad.isfinite().all())
        ),
        "",
    )
    return Replay(
        {name: float(loss.detach()) for name, loss in losses.items()},
        weights,
        watch.module,
        watch.inputs_finite,
        gradient,
        str(precision or torch.float32).removeprefix("torch."),
    )


def _config(snapshot: dict[str, Any], device: str) -> CfgNode:
    cfg = get_cfg()
    cfg.set_new_allowed(True)  # a project may have keys of its own
    cfg.merge_from_other_cfg(CfgNode.load_cfg(snapshot["config"]))
    cfg.MODEL.DEVICE = device or cfg.MODEL.DEVICE
    if torch.device(cfg.MODEL.DEVICE).type == "cuda" and not torch.cuda.is_available():
        logger.info("MODEL.DEVICE is %s but torch finds none: on the CPU", cfg.MODEL.DEVICE)
        cfg.MODEL.DEVICE = "cpu"
    cfg.VIS_PERIOD = 0
    cfg.MODEL.SPEEDUPS.COMPILE = False  # compiled, modules are not seen one by one
    return cfg


class _Watch:
    """Remembers the first module, in the order of computing, with an output that is not finite."""

    def __init__(self, model: nn.Module):
        self.module = ""
        self.inputs_finite = True
        self._names = {module: name or "the model" for name, module in model.named_modules()}
        for module in model.modules():
            module.register_forward_hook(self._look)

    def _look(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if not self.module and not _finite(output):
            self.module, self.inputs_finite = self._names[module], _finite(inputs)


def _finite(value: Any) -> bool:
    return all(bool(x.isfinite().all()) for x in _tensors(value))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (Boxes, ImageList)):
        yield value.tensor
    elif isinstance(value, HeadOutputs):
        yield from _tensors(vars(value))
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
