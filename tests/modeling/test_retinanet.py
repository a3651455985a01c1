"""The detector around its parts: errors, drawing, choosing parts by name."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn

from retinanet_ext.modeling.visualize import visualize_periodically
from retinanet_ext.registry import BOX_LOSS_REGISTRY, CLS_LOSS_REGISTRY
from tests.helpers.tiny import tiny_cfg


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(tiny_cfg())


def example(classes=(0, 2), boxes=((5.0, 5, 40, 50), (20.0, 20, 60, 60)), **extra) -> dict:
    gt = Instances((64, 96))
    gt.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    gt.gt_classes = torch.tensor(classes, dtype=torch.int64)
    image = torch.randint(0, 256, (3, 64, 96), generator=torch.Generator().manual_seed(0))
    return {"image": image.to(torch.uint8), "instances": gt, "file_name": "a/b.jpg", **extra}


@pytest.mark.parametrize("wrong", [3, 7, -1])
def test_class_out_of_range_names_file_class_and_key(model, wrong: int):
    model.train()
    with pytest.raises(ValueError, match=rf"a/b\.jpg.*class {wrong}.*NUM_CLASSES is 3"):
        model([example(), example(classes=(0, wrong))])


def test_class_out_of_range_names_the_dataset_where_known(model):
    with pytest.raises(ValueError, match=r"a/b\.jpg of dataset 'mine'"):
        model.train()([example(classes=(0, 5), dataset_name="mine")])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_boxes_and_pixels_that_are_not_finite_are_refused(model, bad: float):
    model.train()
    with pytest.raises(ValueError, match=r"a/b\.jpg has the box .* not finite"):
        model([example(boxes=((5.0, 5, 40, 50), (20.0, bad, 60, 60)))])
    inputs = example()
    inputs["image"] = inputs["image"].float()
    inputs["image"][0, 0, 0] = bad
    with pytest.raises(ValueError, match=r"a/b\.jpg has NaN or infinite pixels"):
        model([inputs])


def test_pixels_that_are_not_finite_give_no_detection(model):
    inputs = {"image": torch.full((3, 64, 96), float("nan"))}
    assert len(model.eval()([inputs])[0]["instances"]) == 0


@pytest.mark.parametrize(
    "boxes",
    [
        ((5.0, 5, 6, 6), (90.0, 60, 91, 61)),
        ((-50.0, -50, -20, -20), (200.0, 200, 260, 230)),
        ((5.0, 5, 5, 30), (7.0, 7, 7, 7)),
        ((30.0, 30, 10, 10), (40.0, 10, 20, 60)),
    ],
    ids=["one pixel", "outside", "without area", "inside out"],
)
@pytest.mark.parametrize("box_loss", ["smooth_l1", "L1", "IoU", "giou", "diou", "ciou"])
def test_odd_boxes_give_finite_losses_and_gradients(boxes, box_loss: str):
    cfg = tiny_cfg()
    cfg.MODEL.RETINANET.BBOX_REG_LOSS_TYPE = box_loss
    torch.manual_seed(0)
    model = build_model(cfg).train()
    losses = model([example(boxes=boxes)])
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


def test_training_without_ground_truth_says_so(model):
    with pytest.raises(ValueError, match=r"a/b\.jpg has no 'instances'"):
        model.train()([{"image": torch.zeros(3, 64, 96), "file_name": "a/b.jpg"}])


def test_works_without_an_event_storage(model):
    assert set(model.train()([example()])) == {"loss_cls", "loss_box_reg"}


def test_logs_positive_anchors_per_image(model):
    with EventStorage() as storage:
        model.train()([example(), example(classes=(), boxes=())])
        assert storage.latest()["num_pos_anchors"][0] > 0


def test_vis_period_draws_ground_truth_above_detections():
    cfg = tiny_cfg()
    cfg.VIS_PERIOD = 2
    model = build_model(cfg).train()
    drawn = []
    with EventStorage(0) as storage:
        storage.put_image = lambda name, image: drawn.append((storage.iter, name, image))
        for _ in range(4):
            model([example()])
            storage.step()
    assert [iteration for iteration, _, _ in drawn] == [0, 2]
    _, name, image = drawn[0]
    assert "GT" in name
    assert image.shape == (3, 2 * 64, 96)
    top = image[:, :64].transpose(1, 2, 0)
    source = example()["image"].permute(1, 2, 0).numpy()[:, :, ::-1]
    assert (top != source).any(), "no box was drawn on the ground-truth picture"
    assert model.training


def test_drawing_changes_nothing_in_the_model():
    cfg = tiny_cfg()
    cfg.MODEL.RETINANET.NORM = "BN"
    torch.manual_seed(0)
    model = build_model(cfg).train()
    model.backbone.eval()  # as in fine-tuning with frozen statistics
    before = {k: v.clone() for k, v in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    with EventStorage():
        visualize_periodically(model, [example()], period=1)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes


def test_unknown_feature_lists_what_the_backbone_gives():
    cfg = tiny_cfg()
    cfg.MODEL.RETINANET.IN_FEATURES = ["p2", "p3"]
    with pytest.raises(ValueError, match=r"'p2'.*p3, p4, p5, p6, p7"):
        build_model(cfg)


@pytest.mark.parametrize(
    ("key", "known"),
    [
        ("HEAD", "RetinaNetHead"),
        ("ASSIGNER", "IoUAssigner"),
        ("CLS_LOSS", "FocalLoss"),
        ("BBOX_REG_LOSS_TYPE", "SmoothL1"),
    ],
)
def test_unknown_component_lists_the_known_ones(key: str, known: str):
    cfg = tiny_cfg()
    cfg.MODEL.RETINANET[key] = known[:-1] + "x"
    with pytest.raises(KeyError, match=rf"MODEL\.RETINANET\.{key}.*Known: .*{known}"):
        build_model(cfg)


def test_own_losses_are_chosen_by_name():
    class ConstantCls(nn.Module):
        def __init__(self, cfg):
            super().__init__()

        def forward(self, logits, targets):
            return sum(x.sum() for x in logits) * 0 + 11.0

    class ConstantBox(nn.Module):
        def __init__(self, cfg):
            super().__init__()

        def forward(self, deltas, anchors, gt_boxes):
            assert deltas.shape == anchors.shape == gt_boxes.shape
            return deltas.sum() * 0 + 22.0

    CLS_LOSS_REGISTRY.register(ConstantCls)
    BOX_LOSS_REGISTRY.register(ConstantBox)
    cfg = tiny_cfg()
    cfg.MODEL.RETINANET.CLS_LOSS = "ConstantCls"
    cfg.MODEL.RETINANET.BBOX_REG_LOSS_TYPE = "ConstantBox"
    losses = build_model(cfg).train()([example()])
    ratio = losses["loss_box_reg"] / losses["loss_cls"]
    assert ratio.item() == pytest.approx(2.0)


def losses_and_gradients(**retinanet):
    cfg = tiny_cfg()
    for key, value in retinanet.items():
        cfg.MODEL.RETINANET[key] = value
    torch.manual_seed(0)
    model = build_model(cfg).double()
    losses = model([example(), example(classes=(), boxes=())])
    sum(losses.values()).backward()
    return model, losses, {k: p.grad for k, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("norm", ["", "BN"])
def test_loss_in_pieces_equals_loss_of_logits(norm: str):
    fused, losses, gradients = losses_and_gradients(FUSED_CLS_LOSS_MIN_CLASSES=3, NORM=norm)
    plain, expected, expected_gradients = losses_and_gradients(NORM=norm)
    assert fused.fuse_cls_loss and not plain.fuse_cls_loss
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, rtol=1e-12, atol=0)
    assert gradients.keys() == expected_gradients.keys()
    for name, value in expected_gradients.items():
        torch.testing.assert_close(gradients[name], value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("settings", "fuses"),
    [
        ({"FUSED_CLS_LOSS_MIN_CLASSES": 0}, True),
        ({"FUSED_CLS_LOSS_MIN_CLASSES": 4}, False),
        ({"FUSED_CLS_LOSS_MIN_CLASSES": -1}, False),
        ({"FUSED_CLS_LOSS_MIN_CLASSES": 0, "LOSS_KERNEL": "reference"}, False),
    ],
)
def test_number_of_classes_decides_on_the_loss_in_pieces(settings: dict, fuses: bool):
    cfg = tiny_cfg()
    for key, value in settings.items():
        cfg.MODEL.RETINANET[key] = value
    assert build_model(cfg).fuse_cls_loss == fuses


def test_loss_that_needs_logits_gets_them(caplog):
    cfg = tiny_cfg()
    cfg.MODEL.RETINANET.FUSED_CLS_LOSS_MIN_CLASSES = 0

    class NeedsLogits(nn.Module):
        def __init__(self, cfg):
            super().__init__()

        def forward(self, logits, targets):
            return sum(level.square().sum() for level in logits)

    CLS_LOSS_REGISTRY.register(NeedsLogits)
    cfg.MODEL.RETINANET.CLS_LOSS = "NeedsLogits"
    with caplog.at_level("INFO", logger="retinanet_ext"):
        model = build_model(cfg)
    assert not model.fuse_cls_loss and "FUSED_CLS_LOSS_MIN_CLASSES has no effect" in caplog.text
    assert model([example()])["loss_cls"] > 0
