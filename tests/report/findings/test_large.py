"""Wrong boxes of more than half a picture are counted, by the size of the picture."""

from __future__ import annotations

from typing import Any

from retinanet_ext.evaluation.analysis import assign
from retinanet_ext.report.findings import count_large_boxes
from tests.helpers.coco_results import tables_of
from tests.helpers.made_up_detector import scene

SIZES = {1: (200, 200), 2: (200, 200)}
WHOLE = [0.0, 0.0, 200.0, 200.0]


def result(image: int, box: list[float], score: float = 0.5) -> dict[str, Any]:
    return {"image_id": image, "category_id": 1, "bbox": box, "score": score}


def test_large_sure_and_wrong_ones_count():
    results = [
        result(1, WHOLE),
        result(1, [0.0, 0.0, 200.0, 101.0]),
        result(1, [0.0, 0.0, 200.0, 100.0]),  # half
        result(2, WHOLE),
        result(2, WHOLE, 0.3),  # not surer
    ]
    found = assign(tables_of(scene([], num_images=3), results))
    assert count_large_boxes(found, SIZES) == {"count": 3, "images": 2}
    assert count_large_boxes(found, {1: (300, 200), 2: (0, 0)}) == {"count": 1, "images": 1}


def test_a_large_object_may_have_a_large_box():
    found = assign(tables_of(scene([(0, WHOLE)]), [result(1, WHOLE)]))
    assert count_large_boxes(found, SIZES) == {"count": 0, "images": 0}
    assert count_large_boxes(assign(tables_of(scene([]), [])), {}) == {"count": 0, "images": 0}
