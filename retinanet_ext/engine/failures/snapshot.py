"""What is kept of a step whose loss is not finite: a report, and a snapshot that repeats it."""

from __future__ import annotations

import json
import logging
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

__all__ = ["NonFiniteReporter", "pack_batch", "unpack_batch"]

logger = logging.getLogger(__name__)

MAX_MODULES = 10
"""Modules whose gradients a report tells of, the largest first."""

MAX_FOLDERS = 3
"""Reports of each process that are kept, the last ones: each holds the weights."""

MAX_TENSORS = 20
"""Parameters and buffers that are not finite and are named in a report; the rest is counted."""


class NonFiniteReporter:
    """Writes ``OUTPUT_DIR/trouble/nonfinite_iter{N}_rank{r}/``; called by a training step.

    - ``report.txt`` and ``report.json``: iteration, losses, images and their boxes, learning rate,
      the largest gradient norms, parameters and buffers that are not finite, the scale of float16.
    - ``snapshot.pth``: config, weights and batch; ``retinanet-ext replay-step`` repeats the step.
    """

    def __init__(self, cfg: CfgNode, run_seed: int = 0):
        """
        Args:
            cfg: the run's config.
            run_seed: of the run, see :func:`.step.reproducibility.step_seed`.
        """
        self.cfg = cfg
        self.run_seed = run_seed

    def __call__(self, step: Any, batch: list[dict[str, Any]], numbers: dict[str, float]) -> str:
        """Write; a failure is only logged, since the step has an error of its own.

        Args:
            step: the :class:`.step.TrainStep`, with the gradients of the step.
            batch: its images.
            numbers: its losses by name.

        Returns:
            The folder, or "" if it could not be written.
        """
        rank = comm.get_rank()
        parent = Path(self.cfg.OUTPUT_DIR) / "trouble"
        folder = parent / f"nonfinite_iter{step.iter}_rank{rank}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            report = {"iteration": step.iter, "rank": rank, **describe_step(step, batch, numbers)}
            (folder / "report.json").write_text(json.dumps(_plain(report), indent=1) + "\n")
            (folder / "report.txt").write_text(format_report(report))
            torch.save(self._snapshot(step, batch, numbers), folder / "snapshot.pth")
            _remove_old(parent, rank)
        except Exception:
            logger.exception("cannot write the report of a loss that is not finite to %s", folder)
            return ""
        return str(folder)

    def _snapshot(
        self, step: Any, batch: list[dict[str, Any]], numbers: dict[str, float]
    ) -> dict[str, Any]:
        scaler = step.grad_scaler
        return {
            "config": self.cfg.dump(),
            "iteration": step.iter,
            "rank": comm.get_rank(),
            "world_size": comm.get_world_size(),
            "run_seed": self.run_seed,
            "accum_steps": step.accum_steps,
            "precision": str(step.precision).removeprefix("torch.") if step.precision else "",
            "scale": None if scaler is None else scaler.get_scale(),
            "losses": dict(numbers),
            "model": {k: v.detach().cpu() for k, v in unwrap(step.model).state_dict().items()},
            "batch": pack_batch(batch),
        }


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside of DistributedDataParallel."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def describe_step(
    step: Any, batch: Sequence[dict[str, Any]], numbers: Mapping[str, float]
) -> dict[str, Any]:
    """What a report tells of a step, in Python's own types."""
    model, scaler = unwrap(step.model), step.grad_scaler
    scale = None if scaler is None else scaler.get_scale()
    names = [k for k, v in model.state_dict().items() if not bool(v.isfinite().all())]
    return {
        "losses": dict(numbers),
        "learning_rates": sorted({group["lr"] for group in step.optimizer.param_groups}),
        "precision": str(step.precision or torch.float32).removeprefix("torch."),
        "amp_scale": scale,
        "images": [_describe_image(sample) for sample in batch],
        "gradient_norms": dict(gradient_norms(model, scale or 1.0)[:MAX_MODULES]),
        "not_finite": names[:MAX_TENSORS],
        "num_not_finite": len(names),
    }


def gradient_norms(model: nn.Module, scale: float = 1.0) -> list[tuple[str, float]]:
    """L2 norms of the gradients of each module's own parameters.

    Args:
        model: after a backward pass.
        scale: what the gradients are multiplied by.

    Returns:
        Pairs of a module's name and the norm, what is not finite first, then the largest.
    """
    squares: dict[str, float] = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            module = name.rpartition(".")[0]
            norm = parameter.grad.detach().double().norm().item() / scale
            squares[module] = squares.get(module, 0.0) + norm * norm
    norms = [(module, math.sqrt(square)) for module, square in squares.items()]
    return sorted(norms, key=lambda x: -x[1] if math.isfinite(x[1]) else -math.inf)


def format_report(report: Mapping[str, Any]) -> str:
    """The report as lines of text."""
    lines = [f"iteration {report['iteration']}, process {report['rank']}"]
    lines += [f"{name}: {value}" for name, value in report["losses"].items()]
    lines.append(f"learning rates: {', '.join(f'{x:g}' for x in report['learning_rates'])}")
    scale = "" if report["amp_scale"] is None else f", scale {report['amp_scale']:g}"
    lines += [f"precision: {report['precision']}{scale}", "", "images:"]
    for image in report["images"]:
        parts = [image["file"], f"{image['width']}x{image['height']}"]
        if "pixels" in image:
            parts.append("pixels from {:g} to {:g}".format(*image["pixels"]))
        if "boxes" in image:
            parts.append(f"{image['boxes']} boxes")
        if image.get("sides"):
            parts.append("with sides from {:.1f} to {:.1f} pixels".format(*image["sides"]))
        lines.append("  " + ", ".join(parts))
    lines += ["", "gradient norms, the largest:"]
    lines += [f"  {norm:.4g}  {name}" for name, norm in report["gradient_norms"].items()]
    names = report["not_finite"]
    lines += ["", f"weights and buffers that are not finite: {report['num_not_finite']}"]
    lines += [f"  {name}" for name in names]
    return "\n".join(lines) + "\n"


def pack_batch(batch: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A batch in tensors and Python's own types, which load with ``weights_only=True``.

    Boxes and tensors of ``instances`` are kept, and numbers and text; other things, such as masks,
    are left out.
    """
    return [{k: v for k, x in sample.items() if (v := _pack(x)) is not None} for sample in batch]


def unpack_batch(packed: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The batch that :func:`pack_batch` was given."""
    return [{key: _unpack(value) for key, value in sample.items()} for sample in packed]


def _pack(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()  # not the whole of what it is a view of
    if isinstance(value, Boxes):
        return {"boxes": value.tensor.detach().cpu().clone()}
    if isinstance(value, Instances):
        fields = {k: v for k, x in value.get_fields().items() if (v := _pack(x)) is not None}
        return {"instances": fields, "image_size": [int(x) for x in value.image_size]}
    return value if isinstance(value, (bool, int, float, str)) else None


def _unpack(value: Any) -> Any:
    if isinstance(value, dict) and "boxes" in value:
        return Boxes(value["boxes"])
    if isinstance(value, dict):
        height, width = value["image_size"]
        fields = {name: _unpack(x) for name, x in value["instances"].items()}
        return Instances((height, width), **fields)
    return value


def _describe_image(sample: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"file": str(sample.get("file_name", sample.get("image_id", "?")))}
    found["width"], found["height"] = sample.get("width"), sample.get("height")
    image, instances = sample.get("image"), sample.get("instances")
    if isinstance(image, Tensor):
        found["height"], found["width"] = image.shape[-2:]
        found["pixels"] = [float(image.min()), float(image.max())]
    if isinstance(instances, Instances) and instances.has("gt_boxes"):
        boxes = instances.gt_boxes.tensor
        found["boxes"] = len(boxes)
        if len(boxes):
            sides = boxes[:, 2:] - boxes[:, :2]
            found["sides"] = [float(sides.min()), float(sides.max())]
    return found


def _plain(value: Any) -> Any:
    """For JSON: of what is not finite the name, nan or inf, which is what this report is about."""
    if isinstance(value, Mapping):
        return {key: _plain(x) for key, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(x) for x in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _remove_old(parent: Path, rank: int) -> None:
    pattern = re.compile(rf"nonfinite_iter(\d+)_rank{rank}")
    found = [(int(m[1]), x) for x in parent.iterdir() if (m := pattern.fullmatch(x.name))]
    for _, folder in sorted(found)[:-MAX_FOLDERS]:
        shutil.rmtree(folder, ignore_errors=True)
