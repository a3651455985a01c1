"""Tiles and views: one box of each object, wherever the seams are; else the plain path."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from torch import nn
from torchvision.ops import box_iou

from retinanet_ext.inference.build import build_detector, describe_detector
from retinanet_ext.inference.detector import PlainDetector
from retinanet_ext.inference.pooled.detector import PooledDetector
from retinanet_ext.inference.pooled.found import Found
from retinanet_ext.inference.pooled.merge import Merger
from retinanet_ext.inference.pooled.tiles import Tile
from retinanet_ext.inference.pooled.views import views_of
from tests.helpers.parity import assert_same_boxes, spread_predictions
from tests.helpers.tiny import tiny_cfg

SIDE = 96  # of a tile
WHOLE = {"INPUT.MIN_SIZE_TEST": SIDE, "INPUT.MAX_SIZE_TEST": SIDE}
TILES = {"TEST.TILES.SIZE": (SIDE, SIDE), "TEST.TILES.OVERLAP": 0.4}


def cfg_of(**keys: Any):
    """The tiny config; not validated, so that tiles may be as small as its pictures."""
    return tiny_cfg(keys={**WHOLE, **{k.replace("__", "."): v for k, v in keys.items()}})


class SquareFinder(nn.Module):
    """Finds bright rectangles on black as a detector would: with worse guesses around each.

    What it sees of an object it takes for all of it; a smaller part has a lower score.
    """

    def __init__(self, cfg, object_area: float):
        super().__init__()
        model = build_model(cfg)
        self.decoder, self.anchor_generator = model.decoder, model.anchor_generator
        self.object_area = object_area
        self.seen: list[list[tuple[int, ...]]] = []

    def candidates(self, inputs: list[dict[str, Any]]) -> list[Instances]:
        self.seen.append([tuple(x["image"].shape[1:]) for x in inputs])
        return [self._find(x["image"]) for x in inputs]

    def forward(self, inputs: list[dict[str, Any]]) -> list[dict[str, Instances]]:
        found = self.candidates(inputs)
        return [{"instances": self.decoder.suppress(x)} for x in found]

    def _find(self, image: torch.Tensor) -> Instances:
        rows, columns = (image[0] > 127).nonzero(as_tuple=True)
        guesses = torch.zeros(0, 4)
        area = 0.0
        if len(rows) > 20:
            box = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            sides = (box[2:] - box[:2]).repeat(2)
            area = float(sides[0] * sides[1])
            shifts = torch.tensor(
                [[0.0] * 4, [0.1, 0, 0.1, 0], [0, -0.1, 0, -0.1], [0.1, 0.1, -0.1, -0.1]]
            )
            guesses = box + shifts * sides
        scores = torch.tensor([0.9, 0.7, 0.6, 0.5])[: len(guesses)]
        return Instances(
            tuple(image.shape[1:]),
            pred_boxes=Boxes(guesses.float()),
            scores=scores * min(1.0, 0.5 + 0.5 * area / self.object_area),
            pred_classes=torch.ones(len(guesses), dtype=torch.int64),
        )


def scene(side: int, left: int, top: int, width: int, height: int) -> np.ndarray:
    pixels = np.zeros((side, side, 3), dtype=np.uint8)
    pixels[top : top + height, left : left + width] = 255
    return pixels


def assert_one_box(found: Instances, expected: list[float], iou: float) -> None:
    assert len(found) == 1, found
    boxes = found.pred_boxes.tensor
    assert box_iou(boxes, torch.tensor([expected]).float()) > iou, (boxes, expected)


@pytest.mark.parametrize(("kind", "full_image"), [("nms", True), ("nms", False), ("wbf", True)])
def test_an_object_has_one_box_wherever_the_seams_of_a_3_by_3_grid_are(kind, full_image):
    cfg = cfg_of(**TILES, TEST__MERGE__KIND=kind, TEST__TILES__FULL_IMAGE=full_image)
    detector = build_detector(cfg, SquareFinder(cfg, 30 * 24))
    side = 3 * SIDE - 2 * int(0.4 * SIDE)
    assert len(detector.tiling.tiles_of(side, side)) == 9
    for left in range(0, side - 30, 3):
        for top in (52, left * (side - 24) // (side - 30)):  # along a seam, and across all
            found = detector([scene(side, left, top, 30, 24)])[0]
            assert_one_box(found, [left, top, left + 30, top + 24], 0.95)


def test_an_object_larger_than_a_tile_is_one_box_of_the_whole_picture():
    cfg = cfg_of(**TILES)
    detector = build_detector(cfg, SquareFinder(cfg, 240 * 150))
    found = detector([scene(288, 20, 60, 240, 150)])[0]
    assert_one_box(found, [20, 60, 260, 210], 0.9)
    without = build_detector(cfg_of(**TILES, TEST__TILES__FULL_IMAGE=False), detector.plain.model)
    assert len(without([scene(288, 20, 60, 240, 150)])[0]) > 1


def test_merging_none_leaves_the_boxes_of_each_tile():
    cfg = cfg_of(**TILES, TEST__MERGE__KIND="none", TEST__TILES__FULL_IMAGE=False)
    detector = build_detector(cfg, SquareFinder(cfg, 100))
    assert len(detector([scene(150, 60, 60, 20, 20)])[0]) == 4  # in the overlap of four tiles


def test_shifting_by_a_stride_of_the_tiles_shifts_the_boxes():
    cfg = cfg_of(**TILES, TEST__TILES__FULL_IMAGE=False)
    detector = build_detector(cfg, SquareFinder(cfg, 900))
    step = SIDE - int(0.4 * SIDE)
    side = SIDE + 3 * step
    found = [detector([scene(side, 40 + i * step, 33, 30, 30)])[0] for i in range(2)]
    shifted = found[0].pred_boxes.tensor + torch.tensor([step, 0, step, 0])
    torch.testing.assert_close(found[1].pred_boxes.tensor, shifted)
    torch.testing.assert_close(found[1].scores, found[0].scores)


def test_tiles_are_views_of_the_picture_and_only_a_batch_of_them_is_resized():
    cfg = cfg_of(**TILES, TEST__TILES__BATCH=3)
    model = SquareFinder(cfg, 900)
    detector = build_detector(cfg, model)
    pixels = scene(400, 40, 33, 30, 30)
    looked_at = []
    view = detector.views[0]
    detector.views = [Spy(view, looked_at)]
    detector([pixels])
    assert all(tile.base is pixels for tile in looked_at)
    assert max(map(len, model.seen)) == 3 and sum(map(len, model.seen)) == len(looked_at) > 30


class Spy:
    """A view that remembers the pixels that it was given."""

    def __init__(self, view, looked_at):
        self.view, self.key, self.looked_at = view, view.key, looked_at

    def __call__(self, pixels):
        self.looked_at.append(pixels)
        return self.view(pixels)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    model = build_model(cfg_of())
    spread_predictions(model)
    return model


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.repeat(np.repeat(rng.integers(0, 256, (12, 20, 3), dtype=np.uint8), 8, 0), 8, 1)


def equal(got: Instances, expected: Instances) -> bool:
    same = [
        torch.equal(got.pred_boxes.tensor, expected.pred_boxes.tensor),
        torch.equal(got.scores, expected.scores),
        torch.equal(got.pred_classes, expected.pred_classes),
    ]
    return all(same) and got.image_size == expected.image_size and len(got) > 5


def test_a_picture_that_is_one_tile_goes_the_plain_way_bit_for_bit(model, pixels):
    cfg = cfg_of(**{"TEST.TILES.SIZE": (128, 256)})
    detector = build_detector(cfg, model)
    assert isinstance(detector, PooledDetector)
    plain = PlainDetector(cfg, model)
    assert detector.batch_key(pixels) == plain.batch_key(pixels)
    for batch in ([pixels], [pixels, pixels[::-1]]):
        assert all(map(equal, detector(batch), plain(batch)))
    assert detector.num_pictures == 3 and detector.num_cut == 0
    assert detector.never_cut.startswith("TEST.TILES.SIZE is (128, 256), and no picture was larger")
    detector([np.zeros((130, 64, 3), dtype=np.uint8)])
    assert detector.num_cut == 1 and detector.never_cut == ""


def test_the_view_of_the_evaluation_alone_is_the_plain_detector(model):
    keys = {"TEST.AUG.ENABLED": True, "TEST.AUG.FLIP": False, "TEST.AUG.MIN_SIZES": (SIDE,)}
    same = cfg_of(**keys, **{"TEST.AUG.MAX_SIZE": SIDE})
    assert isinstance(build_detector(same, model), PlainDetector)
    other = cfg_of(**keys, **{"TEST.AUG.MAX_SIZE": 2 * SIDE})
    assert isinstance(build_detector(other, model), PooledDetector)
    assert isinstance(build_detector(cfg_of(), model), PlainDetector)
    assert [describe_detector(same), describe_detector(cfg_of())] == ["", ""]


@pytest.mark.parametrize("nms_kind", ["per_class", "class_agnostic", "soft"])
def test_pooling_one_view_of_one_tile_gives_what_the_model_gives(model, pixels, nms_kind):
    model = copy.copy(model)
    model.decoder = copy.copy(model.decoder)
    model.decoder.nms_kind = nms_kind
    cfg = cfg_of(**{"TEST.TILES.SIZE": (128, 256)})
    got, expected = build_detector(cfg, model).look(pixels), PlainDetector(cfg, model)([pixels])[0]
    assert_same_boxes(got, expected)


@pytest.mark.parametrize("kind", ["nms", "soft", "wbf"])
def test_a_mirrored_picture_gives_mirrored_boxes_where_views_are_mirrored_too(model, pixels, kind):
    keys = {"TEST.AUG.ENABLED": True, "TEST.AUG.MIN_SIZES": (96, 64), "TEST.AUG.MAX_SIZE": 160}
    detector = build_detector(cfg_of(**keys, TEST__MERGE__KIND=kind), model)
    assert len(detector.views) == 4
    square = np.ascontiguousarray(pixels[:, :96])
    got, expected = (detector([x])[0] for x in (np.ascontiguousarray(square[:, ::-1]), square))
    boxes = expected.pred_boxes.tensor
    expected.pred_boxes = Boxes(
        torch.stack([96 - boxes[:, 2], boxes[:, 1], 96 - boxes[:, 0], boxes[:, 3]], dim=1)
    )
    assert_same_boxes(got, expected)


def test_a_large_picture_is_resized_by_channel_with_the_same_result(monkeypatch, pixels):
    keys = {"TEST.AUG.ENABLED": True, "TEST.AUG.MIN_SIZES": (64, 150), "TEST.AUG.MAX_SIZE": 300}
    for view in views_of(cfg_of(**keys)):
        monkeypatch.setattr("retinanet_ext.inference.pooled.views.LARGE", 2**26)
        expected = view(pixels)
        monkeypatch.setattr("retinanet_ext.inference.pooled.views.LARGE", 0)
        got = view(pixels)
        assert torch.equal(got.image, expected.image) and got.image.shape[0] == 3
        boxes = np.array([[1.0, 2.0, 30.0, 40.0]])
        np.testing.assert_array_equal(got.boxes_back(boxes), expected.boxes_back(boxes))


def test_more_views_see_a_mean_score_and_what_one_view_of_two_sees_counts_half(model, pixels):
    keys = {"TEST.AUG.ENABLED": True, "TEST.AUG.MIN_SIZES": (SIDE,), "TEST.AUG.MAX_SIZE": 200}
    found = {
        kind: build_detector(cfg_of(**keys, TEST__MERGE__KIND=kind), model)([pixels])[0]
        for kind in ("none", "wbf", "nms")
    }
    assert found["wbf"].scores.max() <= found["none"].scores.max() == found["nms"].scores.max()
    assert all((x.scores[:-1] >= x.scores[1:]).all() for x in found.values())


def test_what_the_network_computes_is_told(model):
    views = {"TEST.AUG.ENABLED": True, "TEST.AUG.MIN_SIZES": (96, 64)}
    assert describe_detector(cfg_of(**views)).startswith("4 views of each picture")
    text = describe_detector(cfg_of(**TILES, **views))
    assert text == (
        "tiles of 96 x 96 px that overlap by 38 x 38 px and the whole picture, 4 views of each; a "
        "picture of 384 x 384 px goes through the network 148 times"
    )


def found_in(view: int, boxes: list[list[float]], scores: list[float]) -> Found:
    candidates = Instances(
        (100, 100),
        pred_boxes=Boxes(torch.tensor(boxes)),
        scores=torch.tensor(scores),
        pred_classes=torch.zeros(len(boxes), dtype=torch.int64),
    )
    return Found.of(candidates, 0.5, False, Tile(0, 0, 100, 100), -1, view, 1.0)


@pytest.mark.parametrize("kind", ["nms", "soft"])
def test_boxes_of_an_object_in_several_views_are_averaged_by_score(model, kind):
    decoder = copy.copy(model.decoder)
    decoder.nms_thresh = 0.5
    first = found_in(0, [[10, 10, 50, 50], [10, 10, 50, 46], [60, 60, 90, 90]], [0.6, 0.5, 0.4])
    second = found_in(1, [[12, 10, 52, 50], [62, 60, 70, 90]], [0.3, 0.2])
    merged = Merger(decoder, kind, 0.5, 2, average=0.8)([first, second])
    top = merged.pred_boxes.tensor[merged.scores.argmax()]
    # Of the first view's worse guess nothing is seen; the other object is seen once at its place.
    torch.testing.assert_close(top, torch.tensor([10 + 2 / 3, 10, 50 + 2 / 3, 50]))
    assert [60, 60, 90, 90] in merged.pred_boxes.tensor.tolist()
    plain = Merger(decoder, kind, 0.5, 2)([first, second])
    assert plain.scores.tolist() == merged.scores.tolist()
    assert [10, 10, 50, 50] in plain.pred_boxes.tensor.tolist()
