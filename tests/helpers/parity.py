"""Pairs of Detectron2's RetinaNet and ours with the same weights, and what has to be equal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import detectron2
import torch
from detectron2.config import CfgNode
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from retinanet_ext import get_cfg, load_config_file

Batch = list[dict[str, Any]]

ZOO = Path(detectron2.__file__).parent / "model_zoo" / "configs"


def small_cfg(
    yaml_file: Path | None = None, device: torch.device | str = "cpu", **retinanet: Any
) -> CfgNode:
    """A config of Detectron2's own, cheap enough for a CPU, for either architecture.

    Args:
        yaml_file: of Detectron2's model zoo; None: a small network.
        device: where the models are built.
        retinanet: values of keys of ``MODEL.RETINANET``.
    """
    cfg = get_cfg()
    load_config_file(cfg, yaml_file or ZOO / "Base-RetinaNet.yaml", allow_unsafe=True)
    cfg.MODEL.DEVICE = str(device)
    cfg.MODEL.WEIGHTS = ""
    if yaml_file is None:
        cfg.MODEL.RESNETS.DEPTH = 18
        cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
        cfg.MODEL.FPN.OUT_CHANNELS = 32
        cfg.MODEL.RETINANET.NUM_CLASSES = 7
    for key, value in retinanet.items():
        cfg.MODEL.RETINANET[key] = value
    return cfg


def build_pair(cfg: CfgNode) -> tuple[nn.Module, nn.Module]:
    """Detectron2's model and ours with the same weights, spread so that there are detections."""
    torch.manual_seed(0)
    theirs = build_model(cfg)
    spread_predictions(theirs)
    cfg.MODEL.META_ARCHITECTURE = "RetinaNetExt"
    ours = build_model(cfg)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def spread_predictions(model: nn.Module) -> None:
    """Bring a random model's logits to about -3 +- 1.5 and its deltas to +- 0.3."""
    for name, module in model.named_modules():
        if isinstance(module, FrozenBatchNorm2d) and name.endswith(("conv2.norm", "conv3.norm")):
            module.weight.fill_(0.3)  # or a deep residual network's activations explode
    for name, layer in model.head.named_modules():
        if isinstance(layer, nn.Conv2d) and "subnet." in name:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    model.eval()
    with torch.no_grad():
        images = model.preprocess_image(make_batch(2))
        features = model.backbone(images.tensor)
        outputs = model.head([features[name] for name in model.head_in_features])
        for conv, levels, std in (
            (model.head.cls_score, outputs[0], 1.5),
            (model.head.bbox_pred, outputs[1], 0.3),
        ):
            conv.weight *= std / torch.cat([x.flatten() for x in levels]).std()
        model.head.cls_score.bias.fill_(-3.0)


def make_batch(num_classes: int) -> list[dict[str, Any]]:
    """Three images of different sizes; one without objects."""
    generator = torch.Generator().manual_seed(1)
    batch = []
    for (height, width), count in (((96, 128), 4), ((128, 96), 0), ((64, 160), 9)):
        image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
        corner = torch.rand(count, 2, generator=generator) * torch.tensor([width, height]) * 0.7
        size = torch.rand(count, 2, generator=generator) * 60 + 1
        boxes = Boxes(torch.cat([corner, corner + size], dim=1))
        boxes.clip((height, width))
        gt = Instances((height, width))
        gt.gt_boxes = boxes
        gt.gt_classes = torch.randint(0, num_classes, (count,), generator=generator)
        batch.append({"image": image, "instances": gt, "height": height * 2, "width": width * 2})
    return batch


def losses_and_gradients(
    model: nn.Module, batch: Batch, steps: int = 1
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Losses and gradients of the last of ``steps`` passes; the weights stay as they are."""
    model.train()
    with EventStorage():
        for _ in range(steps):
            model.zero_grad()
            losses = model(batch)
            sum(losses.values()).backward()
    gradients = {k: p.grad for k, p in model.named_parameters() if p.grad is not None}
    return losses, gradients


def assert_same_losses(theirs: nn.Module, ours: nn.Module, batch: Batch, steps: int = 1) -> None:
    expected, _ = losses_and_gradients(theirs, batch, steps)
    losses, _ = losses_and_gradients(ours, batch, steps)
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        assert value > 0
        torch.testing.assert_close(losses[name].float(), value.float(), rtol=1e-5, atol=0)


def assert_same_training(theirs: nn.Module, ours: nn.Module, batch: Batch) -> None:
    expected, expected_gradients = losses_and_gradients(theirs, batch)
    losses, gradients = losses_and_gradients(ours, batch)
    for name, value in expected.items():
        # Anchors, and so targets, are float32 in both.
        torch.testing.assert_close(losses[name].double(), value.double(), rtol=1e-6, atol=0)
    assert gradients.keys() == expected_gradients.keys()
    for name, value in expected_gradients.items():
        tolerance = 1e-5 * value.abs().max() + 1e-12
        assert (gradients[name] - value).abs().max() <= tolerance, name


def assert_same_detections(theirs: nn.Module, ours: nn.Module, batch: Batch) -> None:
    theirs.eval(), ours.eval()
    with torch.no_grad():
        for expected, got in zip(theirs(batch), ours(batch), strict=True):
            expected, got = expected["instances"], got["instances"]
            assert len(expected) > 5
            assert got.image_size == expected.image_size
            torch.testing.assert_close(got.pred_classes, expected.pred_classes)
            torch.testing.assert_close(got.scores, expected.scores, rtol=0, atol=1e-5)
            torch.testing.assert_close(
                got.pred_boxes.tensor, expected.pred_boxes.tensor, rtol=0, atol=1e-3
            )


def assert_same_boxes(got: Instances, expected: Instances, pixels: float = 1e-3) -> None:
    """As :func:`assert_same_detections`, in any order: equal scores swap places by rounding.

    Args:
        got, expected: detections of one image.
        pixels: between two boxes that count as the same; a hundredth of it between scores.
    """
    assert got.image_size == expected.image_size
    assert len(got) == len(expected) > 5
    boxes = [x.pred_boxes.tensor.double().cpu() for x in (got, expected)]
    scores = [x.scores.double().cpu() for x in (got, expected)]
    classes = [x.pred_classes.cpu() for x in (got, expected)]
    same = classes[0][:, None] == classes[1]
    same &= (scores[0][:, None] - scores[1]).abs() <= pixels / 100
    same &= (boxes[0][:, None] - boxes[1]).abs().amax(dim=2) <= pixels
    assert same.any(0).all() and same.any(1).all()


def detections(model: nn.Module, batch: Batch) -> list[Instances]:
    """Of each image."""
    model.eval()
    with torch.no_grad():
        return [output["instances"] for output in model(batch)]


def assert_equal_models(cfg: CfgNode) -> None:
    theirs, ours = build_pair(cfg)
    batch = make_batch(cfg.MODEL.RETINANET.NUM_CLASSES)
    assert_same_detections(theirs, ours, batch)
    assert_same_losses(theirs, ours, batch)
    # In float64: in float32 a deep network's gradients differ by 1e-4 as soon as anything is
    # rounded in another order, Detectron2's own memory formats for example.
    assert_same_training(theirs.double(), ours.double(), batch)
