"""SSD: default boxes as torchvision's, matching that loses no object, mining, the whole trained."""

from __future__ import annotations

import pytest
import torch
from ancestors.ssd import BipartiteAssigner, SSDBackbone, SSDBoxGenerator, SSDHead, default_scales
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from detectron2.structures import Boxes, ImageList, Instances
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList as TorchvisionImages

from retinanet_ext.errors import InputError
from retinanet_ext.losses import hardest_at_ratio
from retinanet_ext.modeling import IoUAssigner
from tests.helpers.ancestors import configured, finds_what_it_learned, objects, trained_losses

pytestmark = pytest.mark.usefixtures("ancestors")

SCALES = [0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05]
RATIOS = [[2], [2, 3], [2, 3], [2, 3], [2], [2]]
STEPS = [8, 16, 32, 64, 100, 300]
GRIDS = (38, 19, 10, 5, 3, 1)


def features(sides=GRIDS) -> list[torch.Tensor]:
    return [torch.zeros(1, 1, side, side) for side in sides]


def ssd300() -> list[Boxes]:
    generator = SSDBoxGenerator(scales=SCALES, ratios=RATIOS, steps=STEPS)
    assert generator.num_anchors == [4, 6, 6, 6, 4, 4]
    return generator(features())


def test_ssd300_has_8732_boxes():
    assert [len(x) for x in ssd300()] == [5776, 2166, 600, 150, 36, 4]


def test_boxes_are_torchvisions():
    theirs = DefaultBoxGenerator(RATIOS, scales=SCALES, steps=STEPS)
    images = TorchvisionImages(torch.zeros(1, 3, 300, 300), [(300, 300)])
    expected = theirs(images, features())[0]
    torch.testing.assert_close(Boxes.cat(ssd300()).tensor, expected, rtol=0, atol=1e-3)


def test_the_first_and_the_last_boxes_are_those_known():
    boxes = Boxes.cat(ssd300()).tensor
    expected = [
        [-6.5, -6.5, 14.5, 14.5],
        [-11.3704, -11.3704, 19.3704, 19.3704],
        [-10.8492, -3.4246, 18.8492, 11.4246],
        [-3.4246, -10.8492, 11.4246, 18.8492],
        [19.5, 19.5, 280.5, 280.5],
        [6.6342, 6.6342, 293.3658, 293.3658],
        [0, 57.7226, 300, 242.2774],
        [57.7226, 0, 242.2774, 300],
    ]
    found = torch.cat([boxes[:4], boxes[-4:]])
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-3)


def test_ssd512_has_24564_boxes():
    ratios = [[2], *[[2, 3]] * 4, *[[2]] * 2]
    steps = [8, 16, 32, 64, 128, 256, 512]
    generator = SSDBoxGenerator(size=(512, 512), ratios=ratios, steps=steps)
    assert sum(map(len, generator(features([512 // x for x in steps])))) == 24564


def test_default_scales_are_torchvisions():
    assert default_scales(6) == pytest.approx([0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.0])
    assert default_scales(6) == pytest.approx(DefaultBoxGenerator([[2]] * 6).scales)


def test_numbers_of_levels_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match=r"SSD\.SCALES"):
        SSDBoxGenerator(scales=SCALES[:-1], ratios=RATIOS, steps=STEPS)
    with pytest.raises(InputError, match=r"SSD\.RATIOS"):
        SSDBoxGenerator(scales=SCALES, ratios=RATIOS[:-1], steps=STEPS)


PRIORS = [[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [0, 0, 4, 4]]
OBJECTS = [[0, 0, 10, 10], [1, 0, 11, 10], [22, 22, 40, 40], [0, 0, 3, 3]]


def matches(assigner, priors=PRIORS, boxes=OBJECTS) -> list[int]:
    """Of each prior its object, -1 where it is background or ignored."""
    priors = [Boxes(torch.tensor(priors, dtype=torch.float32))]
    targets = assigner(priors, [objects(boxes, [0] * len(boxes), (50, 50))])
    return targets.matched_idxs[0].tolist()


def test_every_object_keeps_a_prior():
    # torchvision's matcher, [1, -1, 2, 3], loses object 0, whose prior a later one takes.
    assert matches(BipartiteAssigner(num_classes=1)) == [0, 1, 2, 3]
    by_iou = IoUAssigner(num_classes=1, iou_thresholds=[0.5], iou_labels=[0, 1])
    assert matches(by_iou) == [0, -1, 2, 3]


@pytest.mark.parametrize("seed", range(5))
def test_random_objects_keep_a_prior_each(seed):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(12, 2, generator=generator) * 250
    boxes = torch.cat([corners, corners + 5 + torch.rand(12, 2, generator=generator) * 45], dim=1)
    # Two of them in the same place.
    boxes[1] = boxes[0] + 0.5
    targets = BipartiteAssigner(num_classes=1)(ssd300(), [objects(boxes, [0] * 12, (300, 300))])
    assert set(targets.matched_idxs[0].tolist()) == {-1, *range(12)}
    assert not (targets.labels == -1).any()


def test_priors_above_the_threshold_share_an_object_that_has_one():
    priors = [[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 4]]
    assert matches(BipartiteAssigner(num_classes=1), priors, [[0, 0, 10, 10]]) == [0, 0, -1]


def test_an_object_that_overlaps_no_prior_takes_none():
    assert matches(BipartiteAssigner(num_classes=1), PRIORS, [[45, 0, 48, 3]]) == [-1] * 4


LOSSES = [0.1, 2, 0.3, 0.9, 0.8, 0.7, 0.05, 0.6]
LABELS = [0, 2, 1, 2, 2, -1, 2, 2]


@pytest.mark.parametrize(
    ("ratio", "mask"), [(3.0, [1, 1, 1, 1, 1, 0, 1, 1]), (1.0, [1, 1, 1, 1, 0, 0, 0, 0])]
)
def test_mining_takes_so_many_negatives_for_each_positive(ratio, mask):
    found = hardest_at_ratio(
        torch.tensor(LOSSES), torch.tensor(LABELS), 2, neg_pos_ratio=ratio, min_negatives=0
    )
    assert found.int().tolist() == mask


def test_the_backbone_has_ssds_sizes():
    class Stages(torch.nn.Module):
        def forward(self, x):
            return {
                f"res{i}": torch.zeros(len(x), 8, -(-x.shape[2] // s), -(-x.shape[3] // s))
                for i, s in ((3, 8), (4, 16))
            }

        def output_shape(self):
            return {f"res{i}": ShapeSpec(channels=8, stride=s) for i, s in ((3, 8), (4, 16))}

    backbone = SSDBackbone(Stages(), [8, 8, 8, 8], [2, 2, 1, 1])
    assert tuple(x.shape[-1] for x in backbone(torch.zeros(1, 3, 300, 300)).values()) == GRIDS
    assert [x.stride for x in backbone.output_shape().values()] == [8, 16, 32, 64, 64, 64]
    with pytest.raises(InputError, match="EXTRA_STRIDES"):
        SSDBackbone(Stages(), [8], [3])


def test_levels_of_the_head_share_nothing():
    shapes = [ShapeSpec(channels=4), ShapeSpec(channels=6)]
    head = SSDHead(input_shape=shapes, num_classes=3, num_anchors=[4, 6], classifier="softmax")
    logits, deltas = head([torch.zeros(2, 4, 3, 3), torch.zeros(2, 6, 2, 2)])
    assert [tuple(x.shape) for x in logits] == [(2, 16, 3, 3), (2, 24, 2, 2)]
    assert [tuple(x.shape) for x in deltas] == [(2, 16, 3, 3), (2, 24, 2, 2)]


@pytest.mark.parametrize("name", ["quickstart_ssd", "quickstart_ssd_no_mining"])
def test_it_learns_two_scenes(name):
    model, first, last = trained_losses(name, size=(300, 300), iterations=6)
    assert last["loss_cls"] < first["loss_cls"]
    assert last["loss_box_reg"] < first["loss_box_reg"]
    anchors = model.anchor_generator([torch.zeros(1, 1, x, x) for x in GRIDS])
    assert sum(map(len, anchors)) == 8732


def test_mining_leaves_three_background_boxes_for_each_positive():
    model = build_model(configured("quickstart_ssd")).train()
    image = {
        "image": torch.zeros(3, 300, 300),
        "instances": objects([[30, 30, 90, 90]], [2], (300, 300)),
    }
    images = ImageList.from_tensors([torch.zeros(3, 300, 300)])
    maps = model.backbone(images.tensor)
    maps = [maps[name] for name in model.head_in_features]
    anchors, outputs = model.anchor_generator(maps), model.head(maps)
    targets = model.label_anchors(anchors, [image])
    chosen = model.cls_loss.select(outputs.logits, targets)
    positives = int(targets.pos_mask.sum())
    assert positives > 0
    assert int((chosen == model.num_classes).sum()) == 3 * positives
    assert int((chosen == -1).sum()) == 8732 - 4 * positives


def test_a_picture_of_any_shape_is_evaluated_at_300(tmp_path):
    import numpy as np

    from retinanet_ext.inference.detector import PlainDetector

    cfg = configured("quickstart_ssd")
    detector = PlainDetector(cfg, build_model(cfg).eval())
    pixels = np.zeros((60, 240, 3), np.uint8)
    assert tuple(detector.prepare(pixels)["image"].shape) == (3, 300, 300)
    found = detector([pixels])[0]
    assert isinstance(found, Instances) and found.image_size == (60, 240)
    assert found.pred_boxes.tensor[:, 3].max() <= 60


@pytest.mark.slow
def test_it_finds_what_it_learned():
    assert finds_what_it_learned("quickstart_ssd", size=(300, 300))
