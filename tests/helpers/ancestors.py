"""Small configs, objects and trainings of projects/Ancestors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances

from retinanet_ext import get_cfg, load_config_file, validate_cfg

CONFIGS = Path(__file__).resolve().parents[2] / "projects" / "Ancestors" / "configs"


def configured(name: str, *opts: Any) -> CfgNode:
    """A config of the project, checked; on the CPU."""
    cfg = get_cfg()
    load_config_file(cfg, CONFIGS / f"{name}.yaml")
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", *opts])
    assert validate_cfg(cfg) == []
    return cfg


def objects(boxes: Any, classes: Sequence[int], size: tuple[int, int]) -> Instances:
    """Ground truth of an image of (height, width)."""
    instances = Instances(size)
    instances.gt_boxes = Boxes(torch.as_tensor(boxes, dtype=torch.float32))
    instances.gt_classes = torch.tensor(list(classes))
    return instances


def scenes(size: tuple[int, int], num_images: int = 2) -> list[dict[str, Any]]:
    """Pictures of two bright rectangles each, one class for each."""
    found = []
    for i in range(num_images):
        image = torch.full((3, *size), 60.0)
        boxes = [[20 + 10 * i, 30, 80 + 10 * i, 90], [130, 100 + 8 * i, 210, 160 + 8 * i]]
        for channel, (x1, y1, x2, y2) in enumerate(boxes):
            image[channel, y1:y2, x1:x2] = 240.0
        found.append({"image": image, "instances": objects(boxes, [0, 3], size)})
    return found


def trained_losses(
    name: str, size: tuple[int, int], iterations: int
) -> tuple[Any, dict[str, float], dict[str, float]]:
    """The model of a config, and its losses before and after a few steps on two scenes."""
    torch.manual_seed(0)
    model, batch = build_model(configured(name)).train(), scenes(size)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    history = []
    for _ in range(iterations):
        losses = model(batch)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        history.append({key: float(value.detach()) for key, value in losses.items()})
    assert all(value == value for row in history for value in row.values()), history
    return model, history[0], history[-1]
