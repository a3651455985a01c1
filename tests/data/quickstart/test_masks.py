"""The polygons of the quickstart datasets: what they cover, and how older folders get them."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from retinanet_ext.data.quickstart import dataset, raster
from retinanet_ext.data.quickstart.dataset import ensure_quickstart, render_scene
from retinanet_ext.data.quickstart.scenes import draw_scene
from retinanet_ext.data.quickstart.shapes import (
    CLASS_NAMES,
    Shape,
    make_outline,
    paint_shape,
    place_outline,
)


def rasterize(polygon: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H, W) bool, by pycocotools, as evaluation does it."""
    (rle,) = coco_mask.frPyObjects([polygon.ravel().tolist()], height, width)
    return coco_mask.decode(rle).astype(bool)


def grow(pixels: np.ndarray) -> np.ndarray:
    """``pixels`` and their eight neighbours."""
    padded = np.pad(pixels, 1)
    height, width = pixels.shape
    shifted = [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return np.any(shifted, axis=0)


@pytest.mark.parametrize("centre", [(64.3, 58.7), (3.2, 60.1), (125.0, 2.0)], ids=str)
@pytest.mark.parametrize("kind", range(len(CLASS_NAMES)), ids=CLASS_NAMES)
def test_the_polygon_covers_the_painted_pixels(kind: int, centre: tuple[float, float]):
    rng = np.random.default_rng(kind)
    shape = place_outline(make_outline(rng, kind), kind, 61.3, np.array(centre))
    covered, _ = paint_shape(rng, np.full((3, 120, 128), 90, np.float32), shape, light=1.0)
    polygon = shape.polygon_within(120, 128)
    mask = rasterize(polygon, 120, 128)
    # They differ in pixels of the edge only.
    assert not (mask & ~grow(covered)).any()
    assert not (~mask & ~grow(~covered)).any()
    assert (mask ^ covered).sum() < 0.06 * covered.sum()
    box = [*polygon.min(axis=0), *polygon.max(axis=0)]
    np.testing.assert_allclose(box, shape.box_within(120, 128), atol=1e-9)


def test_the_hole_of_a_ring_is_no_part_of_it():
    kind = CLASS_NAMES.index("ring")
    shape = place_outline(
        make_outline(np.random.default_rng(0), kind), kind, 60, np.array([40, 40])
    )
    mask = rasterize(shape.polygon_within(80, 80), 80, 80)
    assert not mask[36:44, 36:44].any() and mask.sum() > 500


@pytest.mark.parametrize("name", ["quickstart", "quickstart_hard"])
def test_each_mask_has_the_box_of_its_annotation(name: str):
    count = 0
    for index in range(12):
        scene = render_scene("train", index, name=name)
        assert len(scene.polygons) == len(scene.boxes)
        for box, polygon in zip(scene.boxes, scene.polygons, strict=True):
            rows, columns = np.nonzero(rasterize(polygon, *scene.image.shape[:2]))
            painted = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_allclose(painted, box, atol=1.01)
            count += 1
    assert count > 10


def test_a_polygon_is_as_whole_as_the_box_where_another_shape_covers_it(
    monkeypatch: pytest.MonkeyPatch,
):
    corners = np.array([[0.0, 0.0], [40.0, 0.0], [40.0, 40.0], [0.0, 40.0]])
    waiting = iter(
        [Shape(1, 40.0, (corners + 20,)), Shape(1, 40.0, (corners + np.array([44, 20]),))]
    )
    monkeypatch.setattr(
        "retinanet_ext.data.quickstart.scenes._choose_shape", lambda *_: next(waiting)
    )
    scene = draw_scene(np.random.default_rng(0), 128, 128, 2)
    assert [rasterize(x, 128, 128).sum() for x in scene.polygons] == [1600, 1600]


# The files.


def annotation_file(folder: Path, split: str = "train") -> Path:
    return folder / "annotations" / f"instances_{split}.json"


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A folder as it was written before there were masks."""
    folder = ensure_quickstart(tmp_path, num_train=2, num_val=1)
    for split in dataset.SPLITS:
        content = json.loads(annotation_file(folder, split).read_text())
        for annotation in content["annotations"]:
            del annotation["segmentation"]
        annotation_file(folder, split).write_text(json.dumps(content))
    return folder


def test_the_written_polygons_are_masks_of_coco(tmp_path: Path):
    coco = COCO(str(annotation_file(ensure_quickstart(tmp_path, num_train=2, num_val=1))))
    assert coco.anns
    for annotation in coco.anns.values():
        x, y, width, height = coco_mask.toBbox(coco.annToRLE(annotation))
        np.testing.assert_allclose([x, y, width, height], annotation["bbox"], atol=1.2)


def test_an_older_folder_gets_masks_and_keeps_its_images(
    older: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    images = {path: path.stat().st_mtime_ns for path in older.glob("*/*.png")}
    with caplog.at_level(logging.INFO, logger="retinanet_ext"):
        assert ensure_quickstart(older.parent, num_train=2, num_val=1) == older
    assert {path: path.stat().st_mtime_ns for path in older.glob("*/*.png")} == images
    (record,) = caplog.records
    assert record.getMessage().startswith(f"Adding masks to the quickstart dataset in {older}")
    fresh = ensure_quickstart(tmp_path / "fresh", num_train=2, num_val=1)
    for split in dataset.SPLITS:
        assert annotation_file(older, split).read_bytes() == (
            annotation_file(fresh, split).read_bytes()
        )


def fails(*_: object) -> None:
    raise OSError(30, "Read-only file system")


@pytest.mark.parametrize("missing", ["a folder that can be written", "OpenCV"])
def test_an_older_folder_that_cannot_be_changed_is_used_as_it_is(
    missing: str, older: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    if missing == "OpenCV":
        monkeypatch.setattr(raster, "cv2", None)
        monkeypatch.setattr(raster, "_reason", "No module named 'cv2'", raising=False)
    else:
        monkeypatch.setattr(dataset, "write_text", fails)
    before = annotation_file(older).read_bytes()
    assert ensure_quickstart(older.parent, num_train=2, num_val=1) == older
    assert annotation_file(older).read_bytes() == before
    assert "has no masks, and they cannot be added" in caplog.text
