"""The best anchor of each box against all pairs, and chunks of a matrix."""

from __future__ import annotations

import numpy as np
import pytest

from retinanet_ext.boxes import AnchorLevel, best_anchor_iou, in_chunks


@pytest.mark.parametrize("rows", [0, 1, 6, 7])
@pytest.mark.parametrize("columns", [0, 1, 3, 100])
def test_chunks_cover_each_row_once_and_are_as_large_as_allowed(rows: int, columns: int):
    chunks = in_chunks(rows, columns, most=7)
    covered = [row for chunk in chunks for row in range(chunk.start, chunk.stop)]
    assert covered == list(range(rows))
    step = {0: 7, 1: 7, 3: 2, 100: 1}[columns]
    assert [x.stop - x.start for x in chunks[:-1]] == [step] * (len(chunks) - 1)


def test_chunks_are_limited_by_default(monkeypatch):
    assert in_chunks(10, 2**20) == [slice(i, i + 1) for i in range(10)]
    assert len(in_chunks(10, 10)) == 1
    monkeypatch.setattr("retinanet_ext.boxes.PAIRS_AT_ONCE", 50)
    assert in_chunks(10, 10) == [slice(0, 5), slice(5, 10)]


def all_pairs(boxes, size, levels):
    """Independent: every anchor at every location, one by one."""
    best = []
    for box in boxes:
        ious = [0.0]
        for level in levels:
            for row in range(int(np.ceil(size[1] / level.stride))):
                for column in range(int(np.ceil(size[0] / level.stride))):
                    for cell in level.cells:
                        x = (column + level.offset) * level.stride
                        y = (row + level.offset) * level.stride
                        a = np.add(cell, [x, y, x, y])
                        w = min(a[2], box[2]) - max(a[0], box[0])
                        h = min(a[3], box[3]) - max(a[1], box[1])
                        inside = max(w, 0) * max(h, 0)
                        area = (a[2] - a[0]) * (a[3] - a[1])
                        own = (box[2] - box[0]) * (box[3] - box[1])
                        ious.append(inside / (area + own - inside))
        best.append(max(ious))
    return best


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_best_iou_is_that_of_all_pairs(offset):
    rng = np.random.default_rng(0)
    first = rng.uniform(-5, 60, (25, 2))
    boxes = np.concatenate([first, first + rng.uniform(2, 50, (25, 2))], axis=1)
    cells = np.array([[-8, -8, 8, 8], [-16, -5, 16, 5], [-2, -9, 7, 3]], dtype=float)
    levels = [AnchorLevel(8, cells, offset), AnchorLevel(16, 2 * cells, offset)]
    sizes = np.tile([70.0, 64.0], (25, 1))
    found = best_anchor_iou(boxes, sizes, levels)
    np.testing.assert_allclose(found, all_pairs(boxes, (70, 64), levels), rtol=0, atol=1e-12)
    assert found.max() > 0.5


def test_chunks_do_not_change_the_result(monkeypatch):
    boxes = np.array([[i, i, i + 10.0, i + 12.0] for i in range(10)])
    sizes = np.full((10, 2), 64.0)
    levels = [AnchorLevel(8, np.array([[-8.0, -8, 8, 8]]))]
    whole = best_anchor_iou(boxes, sizes, levels)
    monkeypatch.setattr("retinanet_ext.boxes.BOXES_AT_ONCE", 3)
    assert (best_anchor_iou(boxes, sizes, levels) == whole).all()
