"""Optimised anchors: better, never worse, the same for the same seed."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator

from retinanet_ext.anchor_tools import METHODS, AnchorShape, coverage, resized_boxes, search_anchors
from retinanet_ext.anchor_tools.coverage import size_classes
from retinanet_ext.anchor_tools.fit import (
    CLEAR_IOU,
    IOU_TOLERANCE,
    POSITIVES_TOLERANCE,
    RECALL_TOLERANCE,
    Fit,
    expected_positives,
)
from retinanet_ext.boxes import best_anchor_iou
from retinanet_ext.modeling.anchors import octave_sizes
from tests.helpers.anchor_scenes import PAPER, STRIDES, levels, scene, table_of, tall_scene

pytest.importorskip("scipy", reason="the search is SciPy's")


def test_levels_are_those_of_detectron2s_generator():
    shape = AnchorShape(20.3, 2, (0.4, 1.1, 3.0))
    generator = DefaultAnchorGenerator(
        sizes=octave_sizes([20.3, 40.6, 81.2], 2), aspect_ratios=[[0.4, 1.1, 3.0]], strides=[8] * 3
    )
    for level, cells in zip(shape.levels(STRIDES, 0.25), generator.cell_anchors, strict=True):
        order = np.lexsort(level.cells.T), np.lexsort(cells.numpy().T)
        np.testing.assert_allclose(level.cells[order[0]], cells.numpy()[order[1]], rtol=1e-5)
        assert level.offset == 0.25


@pytest.mark.parametrize("method", METHODS)
def test_tall_thin_objects_get_anchors(method):
    boxes = tall_scene()
    search = search_anchors(boxes, levels(), method=method, generations=6)
    assert search.before == coverage(boxes, levels())
    assert search.shape is not None and (search.shape.scales, len(search.shape.ratios)) == (3, 3)
    assert search.after == coverage(boxes, levels(search.shape))
    assert search.before.recall_at_50 < 0.2 and search.after.recall_at_50 > 0.9
    assert search.after.mean_best_iou > search.before.mean_best_iou + 0.2
    assert min(search.shape.ratios) > 2


@pytest.mark.parametrize("method", METHODS)
def test_same_seed_same_anchors(method):
    boxes = tall_scene()
    first, again = (
        search_anchors(boxes, levels(), method=method, seed=5, generations=3) for _ in range(2)
    )
    assert first == again
    if method == "evolution":
        other = search_anchors(boxes, levels(), method=method, seed=6, generations=3)
        assert other.shape != first.shape


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("method", METHODS)
def test_never_worse(method, seed):
    boxes = scene(3, (0.5, 2.0), seed)  # what the paper's anchors are made for
    search = search_anchors(boxes, levels(), method=method, seed=seed, generations=1)
    assert search.after.recall_at_50 >= search.before.recall_at_50
    assert search.after.mean_best_iou >= search.before.mean_best_iou
    assert (search.after == search.before) == (search.shape is None)


def sized_scene(sides: list[tuple[float, float, int]], seed: int, aspect: float = 1.2):
    """Objects of sides within each (low, high), as many as the third number, one per image."""
    rng = np.random.default_rng(seed)
    side = np.concatenate([rng.uniform(low, high, number) for low, high, number in sides])
    root = np.sqrt(np.exp(rng.uniform(-1, 1, len(side)) * np.log(aspect)))
    size = np.stack([side / root, side * root], axis=1)
    corner = rng.uniform(0, 1, size.shape) * ([320, 240] - size)
    return resized_boxes(table_of(np.concatenate([corner, corner + size], 1)[:, None]), (240,), 999)


MANY_SMALL = [(9, 15, 200), (40, 90, 20), (110, 180, 3)]


@pytest.mark.parametrize("sides", [MANY_SMALL, [(12, 26, 120), (32, 90, 90), (97, 120, 6)]])
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("method", METHODS)
def test_no_size_pays_for_another(method, seed, sides):
    boxes = sized_scene(sides, seed)
    search = search_anchors(boxes, levels(), method=method, seed=seed, generations=5)
    found = levels(search.shape) if search.shape else levels()
    size_of = size_classes(boxes.boxes)
    old, new = (best_anchor_iou(boxes.boxes, boxes.sizes_of_boxes, x) for x in (levels(), found))
    for of in (size_of == i for i in range(3)):
        assert (new[of] >= 0.5).mean() >= (old[of] >= 0.5).mean() - RECALL_TOLERANCE
        assert new[of].mean() >= old[of].mean() - IOU_TOLERANCE
        positives = [expected_positives(boxes.boxes[of], x).mean() for x in (levels(), found)]
        assert positives[1] >= positives[0] * (1 - POSITIVES_TOLERANCE) - 1e-9


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("method", METHODS)
def test_small_objects_only_get_smaller_anchors(method, seed):
    boxes = sized_scene(MANY_SMALL[:1], seed)
    search = search_anchors(boxes, levels(), method=method, seed=seed, generations=5)
    assert search.shape is not None and search.shape.base < PAPER.base / 2
    assert search.after.mean_best_iou > search.before.mean_best_iou + CLEAR_IOU


@pytest.mark.parametrize("method", METHODS)
def test_what_pays_for_all_together_but_not_for_each_size_is_kept(method):
    boxes = sized_scene([(20, 28, 100), (40, 90, 60)], 0)
    smaller = levels(AnchorShape(19.0, 3, PAPER.ratios))
    better = coverage(boxes, smaller).mean_best_iou > coverage(boxes, levels()).mean_best_iou
    fits = [Fit.of(boxes.boxes, boxes.sizes_of_boxes, x, 0.5) for x in (levels(), smaller)]
    assert better and fits[1].loses(fits[0])
    search = search_anchors(boxes, levels(), method=method, generations=5)
    assert search.shape is None or search.shape.base > 19


def test_only_the_base_changes_where_that_does_as_well():
    # Ratios as the paper's, sizes all half of the paper's smallest.
    small = sized_scene([(10, 30, 200)], 0, aspect=2.0)
    search = search_anchors(small, levels(), method="kmeans")
    assert search.shape is not None and search.shape.ratios == PAPER.ratios
    assert search.shape.base == round(search.shape.base)


def test_what_is_perfect_is_kept():
    # Each object is an anchor: no other set can have a mean best IoU of 1.
    centre = (np.arange(3) * 64 + 100)[:, None]
    cells = np.concatenate([centre + levels()[0].cells[i] for i in (0, 3, 6, 1, 4, 7)])
    boxes = resized_boxes(table_of([cells], 320, 320), (320,), 1000)
    search = search_anchors(boxes, levels(), generations=2)
    assert search.before.mean_best_iou == pytest.approx(1)
    assert search.shape is None and search.after == search.before


def test_numbers_of_scales_and_ratios_can_be_chosen():
    boxes = scene(2)
    more = search_anchors(boxes, levels(), num_ratios=4, generations=1)
    assert more.shape is not None and len(more.shape.ratios) == 4
    fewer = search_anchors(boxes, levels(), scales=1, num_ratios=2, generations=1)
    assert fewer.shape is not None
    assert (fewer.shape.scales, len(fewer.shape.ratios)) == (1, 2)
    with pytest.raises(ValueError, match="number of ratios must be at least 1, got 0"):
        search_anchors(boxes, levels(), num_ratios=0)
    with pytest.raises(ValueError, match="method is 'guess'; use one of evolution, kmeans"):
        search_anchors(boxes, levels(), method="guess")


def test_objects_of_one_shape_still_give_ratios_that_differ():
    boxes = resized_boxes(table_of([[(20, 20, 30, 100), (90, 50, 100, 130)]]), (240,), 1000)
    search = search_anchors(boxes, levels(), method="kmeans")
    assert search.shape is not None and len(set(search.shape.ratios)) == 3
    assert min(abs(ratio - 8) for ratio in search.shape.ratios) < 0.01


def test_rough_numbers_keep_what_is_unchanged():
    odd = AnchorShape(23.7, 3, (0.512, 1.0, 1.95))
    found = AnchorShape(17.31, 3, (0.4567, 1.0, 2.345))
    rough = found.coarsely_rounded(kept=odd)
    assert (rough.base, rough.ratios) == (17.0, (0.46, 1.0, 2.3))
    assert odd.coarsely_rounded(kept=odd) == odd
    assert AnchorShape(7.34, 3, (1.0,)).coarsely_rounded(kept=odd).base == 7.3


def test_ratios_are_rising_and_rounded():
    assert AnchorShape(31.96, 3, (2.00049, 0.33333)).rounded() == AnchorShape(32.0, 3, (0.333, 2.0))
    assert PAPER.rounded() == PAPER


def test_without_scipy_one_sentence_says_how_to_get_it(monkeypatch):
    for name in ("scipy", "scipy.optimize", "scipy.cluster", "scipy.cluster.vq"):
        monkeypatch.setitem(sys.modules, name, None)
    for method in METHODS:
        with pytest.raises(ImportError, match=r"needs SciPy, .* pip install scipy"):
            search_anchors(tall_scene(), levels(), method=method)
