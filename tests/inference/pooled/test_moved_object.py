"""A trained detector, and an object that is moved over the seams of tiles in small steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from torchvision.ops import box_iou

from retinanet_ext import get_cfg
from retinanet_ext.inference.build import build_detector
from tests.helpers.regnet import REGNET

TILE, OVERLAP = 96, 40
SIDE = 3 * TILE - 2 * OVERLAP  # three tiles in a row
STEP = 3
ITERATIONS, BATCH = 450, 8
SHORTEST, LONGEST = 22, 34  # sides of objects; the overlap holds them

KEYS: dict[str, Any] = {
    "MODEL.META_ARCHITECTURE": "RetinaNetExt",
    "MODEL.DEVICE": "cpu",
    "MODEL.BACKBONE.NAME": "build_fpn_backbone_p6p7",
    "MODEL.BACKBONE.FREEZE_AT": 0,
    **REGNET,
    "MODEL.FPN.OUT_CHANNELS": 32,
    "MODEL.FPN.NORM": "BN",
    "MODEL.ANCHOR_GENERATOR.NAME": "RetinaNetAnchorGenerator",
    "MODEL.ANCHOR_GENERATOR.OCTAVE_BASE_SIZES": [20.0, 40.0],
    "MODEL.ANCHOR_GENERATOR.SCALES_PER_OCTAVE": 2,
    "MODEL.RETINANET.IN_FEATURES": ["p3", "p4"],
    "MODEL.RETINANET.NUM_CLASSES": 1,
    "MODEL.RETINANET.NUM_CONVS": 2,
    "MODEL.RETINANET.NORM": "BN",
    "MODEL.RETINANET.SCORE_THRESH_TEST": 0.5,
    "INPUT.MIN_SIZE_TEST": 0,  # pictures and tiles in their own pixels
}
TILES = {"TEST.TILES.SIZE": (TILE, TILE), "TEST.TILES.OVERLAP_PIXELS": OVERLAP}


def cfg_of(**keys: Any) -> CfgNode:
    """Not validated, so that tiles may be so small."""
    cfg = get_cfg()
    for key, value in {**KEYS, **keys}.items():
        cfg.merge_from_list([key, value])
    return cfg


def backdrop(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(H, W, 3) gray noise around a colour."""
    return random.uniform(60, 150, 3) + random.normal(0, 12, (height, width, 3))


def draw(pixels: np.ndarray, box: tuple[int, int, int, int], random: np.random.Generator) -> None:
    """A bright ellipse with a darker core in a box; parts outside of the picture are cut off."""
    left, top, right, bottom = box
    y, x = np.mgrid[: pixels.shape[0], : pixels.shape[1]] + 0.5
    radius = np.hypot(
        (2 * x - left - right) / (right - left), (2 * y - top - bottom) / (bottom - top)
    )
    colour = random.uniform(170, 250, 3)
    pixels[radius <= 1] = colour
    pixels[radius <= 0.5] = 0.7 * colour


def scene(random: np.random.Generator) -> dict[str, Any]:
    """An input of the network, with objects that its border may cut."""
    pixels = backdrop(random, TILE, TILE)
    boxes: list[list[float]] = []
    for _ in range(random.integers(0, 4)):
        width, height = random.integers(SHORTEST, LONGEST + 1, 2)
        left, top = random.integers(-12, TILE - 8, 2)
        box = [left, top, left + width, top + height]
        inside = [max(0, left), max(0, top), min(TILE, box[2]), min(TILE, box[3])]
        large = (inside[2] - inside[0]) * (inside[3] - inside[1]) > 0.3 * width * height
        apart = not boxes or float(box_iou(torch.tensor([box]), torch.tensor(boxes)).max()) == 0
        if large and apart:
            draw(pixels, tuple(box), random)
            boxes.append(inside)
    return {
        "image": as_input(pixels),
        "height": TILE,
        "width": TILE,
        "instances": Instances(
            (TILE, TILE),
            gt_boxes=Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)),
            gt_classes=torch.zeros(len(boxes), dtype=torch.int64),
        ),
    }


def as_input(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(as_bytes(pixels).transpose(2, 0, 1).copy())


def as_bytes(pixels: np.ndarray) -> np.ndarray:
    return pixels.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def trained() -> Any:
    """A small network that has learned, within seconds, what the objects look like.

    In float64, so that it is the same on every machine: rounding to float32, which differs between
    processors, would grow within the steps to another network.
    """
    torch.manual_seed(0)
    model: Any = build_model(cfg_of()).double()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=ITERATIONS)
    random = np.random.default_rng(0)
    model.train()
    for _ in range(ITERATIONS):
        losses = model([scene(random) for _ in range(BATCH)])
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        schedule.step()
    return model.float().eval()


def positions() -> Iterator[tuple[int, int, int, int]]:
    """Boxes in steps, over the seams of the columns or of the rows, and over both at once."""
    for i, start in enumerate(range(0, SIDE - LONGEST, STEP)):
        width, height = [(34, 26), (24, 32), (28, 28)][i % 3]
        along = (start, 60) if i % 2 else (60, start)
        for left, top in (along, (start, start)):
            yield left, top, left + width, top + height


@pytest.mark.slow
@pytest.mark.parametrize("full_image", [True, False])
def test_an_object_moved_over_all_seams_has_one_box_as_good_as_the_plain_one(trained, full_image):
    plain = build_detector(cfg_of(), trained)
    tiled: Any = build_detector(cfg_of(**TILES, **{"TEST.TILES.FULL_IMAGE": full_image}), trained)
    assert len(tiled.tiling.tiles_of(SIDE, SIDE)) == 9
    random = np.random.default_rng(1)
    count = 0
    for box in positions():
        pixels = backdrop(random, SIDE, SIDE)
        draw(pixels, box, random)
        truth = torch.tensor([box], dtype=torch.float32)
        ious = []
        for detector in (plain, tiled):
            (found,) = detector([as_bytes(pixels)])
            assert len(found) == 1, (box, found.pred_boxes)
            ious.append(float(box_iou(found.pred_boxes.tensor, truth)))
        assert ious[1] >= ious[0] - 0.05 > 0.7, (box, ious)
        count += 1
    assert count > 100
