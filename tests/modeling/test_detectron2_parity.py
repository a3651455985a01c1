"""RetinaNetExt is a drop-in for Detectron2's RetinaNet: weights, losses, gradients, detections."""

from __future__ import annotations

import functools
from pathlib import Path

import detectron2
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from retinanet_ext import get_cfg, load_config_file

ZOO = Path(detectron2.__file__).parent / "model_zoo" / "configs"
NORMALIZER = "loss_normalizer.mean"


def zoo_yamls() -> list[Path]:
    return sorted(ZOO.glob("*/retinanet_*.yaml"))


def small_cfg(yaml_file: Path | None = None, **retinanet):
    """A config of Detectron2's own, cheap enough for a CPU, for either architecture."""
    cfg = get_cfg()
    load_config_file(cfg, yaml_file or ZOO / "Base-RetinaNet.yaml", allow_unsafe=True)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.WEIGHTS = ""
    if yaml_file is None:
        cfg.MODEL.RESNETS.DEPTH = 18
        cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
        cfg.MODEL.FPN.OUT_CHANNELS = 32
        cfg.MODEL.RETINANET.NUM_CLASSES = 7
    for key, value in retinanet.items():
        cfg.MODEL.RETINANET[key] = value
    return cfg


def build_pair(cfg):
    """Detectron2's model and ours with the same weights, spread so that there are detections."""
    torch.manual_seed(0)
    theirs = build_model(cfg)
    spread_predictions(theirs)
    cfg.MODEL.META_ARCHITECTURE = "RetinaNetExt"
    ours = build_model(cfg)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def spread_predictions(model) -> None:
    """Bring a random model's logits to about -3 +- 1.5 and its deltas to +- 0.3."""
    for name, module in model.named_modules():
        if isinstance(module, FrozenBatchNorm2d) and name.endswith(("conv2.norm", "conv3.norm")):
            module.weight.fill_(0.3)  # or a deep residual network's activations explode
    for layer in (*model.head.cls_subnet, *model.head.bbox_subnet):
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
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


def make_batch(num_classes: int) -> list[dict]:
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


def losses_and_gradients(model, batch, steps: int = 1):
    model.train()
    with EventStorage():
        for _ in range(steps):
            model.zero_grad()
            losses = model(batch)
            sum(losses.values()).backward()
    gradients = {k: p.grad for k, p in model.named_parameters() if p.grad is not None}
    return losses, gradients


def assert_same_losses(theirs, ours, batch, steps: int = 1) -> None:
    expected, _ = losses_and_gradients(theirs, batch, steps)
    losses, _ = losses_and_gradients(ours, batch, steps)
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        assert value > 0
        torch.testing.assert_close(losses[name].float(), value.float(), rtol=1e-5, atol=0)


def assert_same_training(theirs, ours, batch) -> None:
    expected, expected_gradients = losses_and_gradients(theirs, batch)
    losses, gradients = losses_and_gradients(ours, batch)
    for name, value in expected.items():
        # Anchors, and so targets, are float32 in both.
        torch.testing.assert_close(losses[name].double(), value.double(), rtol=1e-6, atol=0)
    assert gradients.keys() == expected_gradients.keys()
    for name, value in expected_gradients.items():
        tolerance = 1e-5 * value.abs().max() + 1e-12
        assert (gradients[name] - value).abs().max() <= tolerance, name


def assert_same_detections(theirs, ours, batch) -> None:
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


@functools.cache
def check_equal_models(settings: str) -> None:
    """:func:`assert_equal_models`, once for several files with the same settings (yaml)."""
    cfg = get_cfg()
    cfg.merge_from_other_cfg(CfgNode.load_cfg(settings))
    assert_equal_models(cfg)


def assert_equal_models(cfg) -> None:
    theirs, ours = build_pair(cfg)
    batch = make_batch(cfg.MODEL.RETINANET.NUM_CLASSES)
    assert_same_detections(theirs, ours, batch)
    assert_same_losses(theirs, ours, batch)
    # In float64: in float32 a deep network's gradients differ by 1e-4 as soon as anything is
    # rounded in another order, Detectron2's own memory formats for example.
    assert_same_training(theirs.double(), ours.double(), batch)


@pytest.mark.parametrize("path", zoo_yamls(), ids=lambda path: path.stem)
def test_every_zoo_yaml_gives_the_same_numbers(path: Path):
    cfg = small_cfg(path)
    # Four of the files differ only in what no model sees.
    for node in (cfg.SOLVER, cfg.DATASETS, cfg.DATALOADER, cfg.TEST):
        for key in node.keys() - {"DETECTIONS_PER_IMAGE"}:
            del node[key]
    check_equal_models(cfg.dump())


def test_zoo_has_yamls_to_compare_with():
    assert len(zoo_yamls()) >= 3


@pytest.mark.parametrize("norm", ["", "GN", "BN"])
def test_head_norms_give_the_same_numbers(norm: str):
    theirs, ours = build_pair(small_cfg(NORM=norm))
    batch = make_batch(7)
    assert_same_detections(theirs, ours, batch)
    # In float64, since the gradient of a bias before a norm is 0: in float32 mere rounding noise.
    assert_same_training(theirs.double(), ours.double(), batch)


@pytest.mark.parametrize("kind", ["smooth_l1", "giou", "diou", "ciou"])
def test_box_losses_give_the_same_numbers(kind: str):
    assert_equal_models(small_cfg(BBOX_REG_LOSS_TYPE=kind))


def test_smooth_l1_beta_and_focal_settings_reach_the_losses():
    assert_equal_models(
        small_cfg(SMOOTH_L1_LOSS_BETA=0.11, FOCAL_LOSS_ALPHA=0.6, FOCAL_LOSS_GAMMA=1.5)
    )


def test_running_normalizer_follows_detectron2_over_steps():
    cfg = small_cfg()
    theirs, ours = build_pair(cfg)
    assert_same_losses(theirs, ours, make_batch(7), steps=4)
    assert ours.loss_normalizer.mean.item() == pytest.approx(theirs.loss_normalizer, rel=1e-6)


def test_batch_without_any_object_gives_the_same_losses():
    theirs, ours = build_pair(small_cfg())
    batch = make_batch(7)[1:2]
    expected, _ = losses_and_gradients(theirs, batch)
    losses, gradients = losses_and_gradients(ours, batch)
    torch.testing.assert_close(losses["loss_cls"], expected["loss_cls"], rtol=1e-5, atol=0)
    assert losses["loss_box_reg"] == 0
    # Every parameter takes part, or DistributedDataParallel would wait forever.
    trainable = {k for k, p in ours.named_parameters() if p.requires_grad}
    assert gradients.keys() == trainable


def test_state_dicts_load_both_ways():
    theirs, ours = build_pair(small_cfg(NORM="BN"))
    result = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert result.missing_keys == [] and result.unexpected_keys == []
    back = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert back.missing_keys == [] and back.unexpected_keys == [NORMALIZER]


def test_checkpointer_loads_detectron2_weights_without_a_complaint(tmp_path: Path, caplog):
    theirs, ours = build_pair(small_cfg())
    DetectionCheckpointer(theirs, str(tmp_path)).save("theirs")
    with torch.no_grad():
        ours.head.cls_score.weight.zero_()
    caplog.clear()
    DetectionCheckpointer(ours).load(str(tmp_path / "theirs.pth"))
    assert [r for r in caplog.records if r.levelname in ("WARNING", "ERROR")] == []
    assert torch.equal(ours.head.cls_score.weight, theirs.head.cls_score.weight)


def test_normalizer_is_saved_and_restored():
    cfg = small_cfg()
    _, ours = build_pair(cfg)
    losses_and_gradients(ours, make_batch(7), steps=2)
    other = build_model(cfg)
    other.load_state_dict(ours.state_dict())
    assert other.loss_normalizer.mean == ours.loss_normalizer.mean != 100.0
