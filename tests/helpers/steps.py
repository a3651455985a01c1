"""Batches, a tiny detector and a loop for the tests of training steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import SimpleTrainer
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn

from tests.helpers.tiny import CLASSES, tiny_cfg

Batch = list[dict[str, Any]]


def make_batch(seed: int, images: int = 4, size: int = 64) -> Batch:
    """Noise with one to three boxes; the first image has none."""
    rng = torch.Generator().manual_seed(seed)
    batch = []
    for index in range(images):
        corner = torch.rand(index % 4, 2, generator=rng) * 30
        boxes = torch.cat([corner, corner + 12 + 20 * torch.rand(corner.shape, generator=rng)], 1)
        instances = Instances((size, size))
        instances.gt_boxes = Boxes(boxes)
        instances.gt_classes = torch.randint(len(CLASSES), (len(boxes),), generator=rng)
        image = torch.randint(256, (3, size, size), generator=rng).float()
        name = f"{seed}_{index}.png"
        batch.append({"image": image, "instances": instances, "file_name": name})
    return batch


def make_cfg(folder: Path, norm: str = "GN") -> CfgNode:
    cfg = tiny_cfg(folder)
    cfg.MODEL.RESNETS.NORM = norm
    # With a wide bend: the sign of an error near 0, L1's gradient, is rounding.
    cfg.MODEL.RETINANET.SMOOTH_L1_LOSS_BETA = 1.0
    return cfg


def make_model(folder: Path, norm: str = "GN") -> nn.Module:
    torch.manual_seed(0)
    return build_model(make_cfg(folder, norm))


def sgd(model: nn.Module, lr: float = 0.01) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)


def train(step: SimpleTrainer, steps: int) -> EventStorage:
    with EventStorage() as storage:
        for step.iter in range(steps):
            storage.iter = step.iter
            step.run_step()
    return storage
