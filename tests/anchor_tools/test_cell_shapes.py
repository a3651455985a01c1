"""K-means on the IoU of shapes: planted shapes are found, nothing gets worse."""

from __future__ import annotations

import numpy as np
import pytest

from retinanet_ext import get_cfg
from retinanet_ext.anchor_tools import cell_anchor_keys, kmeans_shapes, search_shapes
from retinanet_ext.anchor_tools.cell_shapes import shape_iou
from retinanet_ext.boxes import AnchorLevel
from retinanet_ext.errors import InputError

PLANTED = np.array([[12.0, 10.0], [20.0, 44.0], [60.0, 25.0], [80.0, 90.0], [150.0, 70.0]])


def planted(noise: float = 0.02, seed: int = 0) -> np.ndarray:
    """(n, 2) sizes around the planted shapes, of different numbers each."""
    rng = np.random.default_rng(seed)
    rows = [np.repeat(x[None], 20 + 30 * i, axis=0) for i, x in enumerate(PLANTED)]
    sizes = np.concatenate(rows)
    return sizes * rng.uniform(1 - noise, 1 + noise, sizes.shape)


def at(sizes: np.ndarray) -> np.ndarray:
    """XYXY boxes of these sizes."""
    corner = np.full_like(sizes, 7.0)
    return np.concatenate([corner, corner + sizes], axis=1)


def levels(*shapes: np.ndarray) -> list[AnchorLevel]:
    return [
        AnchorLevel(8.0 * 2**i, np.concatenate([-x, x], axis=1) / 2, 0.5)
        for i, x in enumerate(shapes)
    ]


def test_planted_shapes_are_recovered():
    sizes = planted()
    found = kmeans_shapes(sizes, 5, seed=1)
    np.testing.assert_allclose(found, PLANTED, rtol=0.02)
    assert shape_iou(sizes, found).max(axis=1).mean() > 0.97


def test_shapes_come_by_area_and_are_the_same_for_the_same_seed():
    first, again = (kmeans_shapes(planted(), 4, seed=3) for _ in range(2))
    assert (np.diff(first.prod(axis=1)) > 0).all()
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("seed", range(3))
def test_anchors_never_get_worse(seed):
    boxes = at(planted(seed=seed))
    start = np.array([[10.0, 10.0], [30.0, 30.0]]), np.array([[60.0, 60.0], [100.0, 100.0]])
    search = search_shapes(boxes, levels(*start), seed=seed)
    assert search.is_better and search.after > search.before
    again = search_shapes(boxes, search.levels, seed=seed)
    assert again.after >= again.before == pytest.approx(search.after)


def test_the_best_anchors_there_are_stay():
    boxes = at(PLANTED[:4])
    present = levels(PLANTED[:2], PLANTED[2:4])
    search = search_shapes(boxes, present)
    assert not search.is_better and search.before == search.after == 1
    np.testing.assert_array_equal(search.levels[0].cells, present[0].cells)


def test_small_shapes_are_of_the_finest_level():
    search = search_shapes(at(planted()), levels(np.ones((1, 2)), np.ones((1, 2))), per_level=2)
    small, large = (x.cells[:, 2:].prod(axis=1) for x in search.levels)
    assert len(small) == len(large) == 2 and small.max() < large.min()
    assert [x.stride for x in search.levels] == [8, 16]


def test_more_shapes_than_objects_have_are_refused():
    with pytest.raises(InputError, match=r"6 shapes.*5 different"):
        kmeans_shapes(PLANTED, 6)


def test_the_keys_make_these_anchors():
    from detectron2.layers import ShapeSpec
    from detectron2.modeling import build_anchor_generator

    cfg = get_cfg()
    cfg.MODEL.ANCHOR_GENERATOR.merge_from_other_cfg(
        type(cfg)(cell_anchor_keys(levels(PLANTED[:2], PLANTED[2:4])))
    )
    cfg.MODEL.ANCHOR_GENERATOR.OFFSET = 0.5
    generator = build_anchor_generator(cfg, [ShapeSpec(stride=8), ShapeSpec(stride=16)])
    np.testing.assert_allclose(list(generator.cell_anchors)[1][0].numpy(), [-30, -12.5, 30, 12.5])
