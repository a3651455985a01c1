"""Small configs, objects and trainings of projects/Ancestors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances, pairwise_iou

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


def training(name: str, size: tuple[int, int]) -> tuple[Any, Callable[[], dict[str, float]]]:
    """The model of a config, and a function that trains it one step on two scenes."""
    torch.manual_seed(0)
    model, batch = build_model(configured(name)).train(), scenes(size)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)

    def step() -> dict[str, float]:
        losses = model.train()(batch)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        found = {key: float(value.detach()) for key, value in losses.items()}
        assert all(map(math.isfinite, found.values())), found
        return found

    return model, step


def trained_losses(
    name: str, size: tuple[int, int], iterations: int
) -> tuple[Any, dict[str, float], dict[str, float]]:
    """The model of a config, and its losses at the first and the last of a few steps."""
    model, step = training(name, size)
    history = [step() for _ in range(iterations)]
    return model, history[0], history[-1]


def finds_what_it_learned(name: str, size: tuple[int, int], most: int = 90) -> bool:
    """Whether within so many steps the best detections of two scenes become their objects."""
    model, step = training(name, size)
    for iteration in range(1, most + 1):
        step()
        if iteration % 15 == 0 and all(_is_found(model, scene) for scene in scenes(size)):
            return True
    return False


@torch.no_grad()
def _is_found(model: Any, scene: dict[str, Any]) -> bool:
    truth = scene["instances"]
    found = model.eval()([scene])[0]["instances"][: len(truth)]
    if len(found) < len(truth):
        return False
    same = truth.gt_classes[:, None] == found.pred_classes
    iou = pairwise_iou(truth.gt_boxes, found.pred_boxes)
    return bool(((iou > 0.6) & same).any(dim=1).all())
