"""The quickstart dataset: what is drawn, what is written, and what interruptions do to it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from retinanet_ext.data import parallel
from retinanet_ext.data.quickstart import dataset, raster
from retinanet_ext.data.quickstart.dataset import ensure_quickstart, render_scene
from retinanet_ext.data.quickstart.lookalikes import make_lookalike
from retinanet_ext.data.quickstart.scenes import MIN_VISIBLE, draw_scene
from retinanet_ext.data.quickstart.shapes import (
    CLASS_NAMES,
    Shape,
    make_outline,
    paint_shape,
    place_outline,
)

ROOT = Path(__file__).resolve().parents[3]
SPLITS = ("train", "val")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return ensure_quickstart(tmp_path_factory.mktemp("root"), num_train=4, num_val=3)


@pytest.fixture(scope="module")
def scenes():
    return [render_scene("train", index) for index in range(50)]


def content(folder, split):
    return json.loads((folder / "annotations" / f"instances_{split}.json").read_text())


def snapshot(folder):
    """Bytes of every file below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def square(size, centre):
    corners = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    return place_outline((corners,), CLASS_NAMES.index("square"), size, np.array(centre))


# The drawing.


def test_pixels_are_those_of_the_first_day():
    # Changed drawing code needs a new VERSION, or old folders would pass for new ones. Equal under
    # numpy 1.26 with OpenCV 4.8 and numpy 2.4 with OpenCV 5.0.
    digest = hashlib.sha256()
    for index in range(4):
        digest.update(render_scene("train", index).image.tobytes())
    assert dataset.VERSION == 1
    assert digest.hexdigest()[:16] == "99265c8a75485dc7"


def test_hard_scenes_are_those_of_the_first_day():
    digest = hashlib.sha256()
    for index in range(4):
        digest.update(render_scene("train", index, name="quickstart_hard").image.tobytes())
    assert digest.hexdigest()[:16] == "4bc373bb2c1fd2ab"


def test_hard_scenes_show_few_small_objects_among_lookalikes():
    style = dataset.STYLES["quickstart_hard"]
    scenes = [render_scene("train", index, name="quickstart_hard") for index in range(60)]
    counts = [len(scene.boxes) for scene in scenes]
    assert counts[24] == counts[49] == 0 and {1, 2, 3} <= set(counts) <= {0, 1, 2, 3}
    sizes = np.concatenate([s.boxes[:, 2:] - s.boxes[:, :2] for s in scenes]).max(axis=1)
    assert sizes.max() <= style.sizes[1] + 1e-6 and sizes.max() > 40
    # The empty scene is not empty: lookalikes wear the objects' saturated colours.
    image = scenes[24].image.astype(int)
    bare = draw_scene(np.random.default_rng(24), 256, 256, 0).image.astype(int)
    vivid, plain = ((x.max(axis=2) - x.min(axis=2) > 120).mean() for x in (image, bare))
    assert vivid > 0.005 > plain


def test_each_class_has_a_lookalike_of_its_own():
    rng = np.random.default_rng(0)
    outlines = [make_lookalike(rng, kind)[0] for kind in range(len(CLASS_NAMES))]
    for points in outlines:
        assert points.shape[1] == 2 and np.isfinite(points).all() and np.abs(points).max() <= 2
    # Told apart by their corners and by how much of the circle around it each one fills.
    fills = [_area(points) / (np.pi * (points**2).sum(axis=1).max()) for points in outlines]
    kinds = {(len(points), round(fill, 2)) for points, fill in zip(outlines, fills, strict=True)}
    assert len(kinds) == len(CLASS_NAMES) and min(fills) > 0.1


def _area(points):
    x, y = points.T
    return abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2


def test_seed_split_and_index_each_change_the_scene():
    images = [render_scene(*key).image for key in [("train", 0), ("val", 0), ("train", 1)]]
    images.append(render_scene("train", 0, seed=1).image)
    assert len({image.tobytes() for image in images}) == 4


def test_scenes_have_the_promised_sizes_and_counts(scenes):
    assert {scene.image.shape for scene in scenes} == {(256, 256, 3), (256, 320, 3)}
    assert all(scene.image.dtype == np.uint8 for scene in scenes)
    counts = [len(scene.boxes) for scene in scenes]
    assert [i for i, count in enumerate(counts) if count == 0] == [24, 49]  # 1 in 25
    assert max(counts) <= 12
    assert {int(kind) for scene in scenes for kind in scene.classes} == set(range(5))


def test_object_sizes_spread_from_12_to_200_px(scenes):
    boxes = np.concatenate([scene.boxes for scene in scenes])
    sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    assert sides.min() < 16 and sides.max() > 150
    assert 35 < np.median(sides) < 55
    assert sides.min() >= 11.99 and sides.max() <= 200.01


def test_boxes_lie_in_the_image_and_some_touch_its_border(scenes):
    touching = 0
    for scene in scenes:
        height, width = scene.image.shape[:2]
        assert (scene.boxes[:, :2] >= 0).all()
        assert (scene.boxes[:, 2:] <= [width, height]).all()
        touching += (scene.boxes == [0, 0, width, height]).any(axis=1).sum()
    assert touching > 5


@pytest.mark.parametrize("kind", range(len(CLASS_NAMES)), ids=CLASS_NAMES)
def test_box_fits_the_painted_pixels(kind):
    rng = np.random.default_rng(kind)
    outline = make_outline(rng, kind)
    shape = place_outline(outline, kind, 61.3, np.array([70.4, 58.7]))
    covered, area = paint_shape(rng, np.full((3, 128, 128), 90, np.float32), shape, light=1.0)
    rows, columns = np.nonzero(covered)
    painted = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    # Half a pixel for pixels that are covered by half, and a rounded tip may be thinner than one.
    np.testing.assert_allclose(shape.box_within(128, 128), painted, atol=1.2)
    assert area == covered.sum()
    assert max(shape.box[2:] - shape.box[:2]) == pytest.approx(61.3)


def test_box_of_a_cut_shape_ends_with_what_is_in_the_image():
    # A square on its tip, centre (2, 10), half diagonal 8: at the left border x = 0 it spans
    # y from 10 - 6 to 10 + 6, but its tips at x = 2 reach y = 2 and 18.
    tip = Shape(1, 16.0, (np.array([[2.0, 2.0], [10.0, 10.0], [2.0, 18.0], [-6.0, 10.0]]),))
    np.testing.assert_allclose(tip.box_within(100, 100), [0, 2, 10, 18])
    # Cut at y = 14 below its widest line nothing changes in x; above it, at y = 6, x ends at 6.
    np.testing.assert_allclose(tip.box_within(14, 100), [0, 2, 10, 14])
    np.testing.assert_allclose(tip.box_within(6, 100), [0, 2, 6, 6])


def test_area_counts_what_is_outside_of_the_image():
    image = np.zeros((3, 64, 64), np.float32)
    covered, area = paint_shape(np.random.default_rng(0), image, square(20, (0.0, 32.0)), 0.0)
    assert area == 400 and covered.sum() == 200


def test_later_shapes_cover_earlier_ones_and_hidden_ones_lose_their_annotation(monkeypatch):
    shapes = [square(40, (40, 40)), square(30, (100, 100)), square(38, (40, 40))]
    waiting = iter(shapes)
    monkeypatch.setattr(
        "retinanet_ext.data.quickstart.scenes._choose_shape", lambda *_: next(waiting)
    )
    scene = draw_scene(np.random.default_rng(0), 128, 128, 3)
    # The first shows 40^2 - 38^2 = 156 of 1600 px, less than half.
    assert MIN_VISIBLE == 0.5
    np.testing.assert_allclose(scene.boxes, [[85, 85, 115, 115], [21, 21, 59, 59]])


def test_a_shape_that_shows_more_than_the_limit_keeps_its_whole_box(monkeypatch):
    waiting = iter([square(40, (40, 40)), square(40, (64, 40))])  # 24 / 40 of the first is seen
    monkeypatch.setattr(
        "retinanet_ext.data.quickstart.scenes._choose_shape", lambda *_: next(waiting)
    )
    scene = draw_scene(np.random.default_rng(0), 128, 128, 2)
    np.testing.assert_allclose(scene.boxes, [[20, 20, 60, 60], [44, 20, 84, 60]])


# The files.


@pytest.mark.parametrize("split, count", [("train", 4), ("val", 3)])
def test_pycocotools_and_the_images_agree(folder, split, count):
    coco = COCO(str(folder / "annotations" / f"instances_{split}.json"))
    assert sorted(coco.imgs) == list(range(1, count + 1))
    assert [c["name"] for c in coco.loadCats([1, 2, 3, 4, 5])] == list(CLASS_NAMES)
    assert sorted(coco.anns) == list(range(1, len(coco.anns) + 1))
    for index, image in enumerate(coco.loadImgs(coco.getImgIds())):
        scene = render_scene(split, index)
        pixels = np.asarray(Image.open(folder / split / image["file_name"]))
        assert pixels.shape == (image["height"], image["width"], 3)
        np.testing.assert_array_equal(pixels, scene.image)
        annotations = coco.imgToAnns[image["id"]]
        assert [a["category_id"] - 1 for a in annotations] == scene.classes.tolist()
        boxes = np.array([a["bbox"] for a in annotations]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        np.testing.assert_allclose(boxes, scene.boxes, atol=0.011)
        for a in annotations:
            assert a["area"] == pytest.approx(a["bbox"][2] * a["bbox"][3], abs=0.01)
            assert a["iscrowd"] == 0


def test_json_has_cocos_sections(folder):
    data = content(folder, "train")
    assert set(data) == {"info", "licenses", "categories", "images", "annotations"}
    assert {image["license"] for image in data["images"]} == {data["licenses"][0]["id"]}


def test_another_run_in_another_process_writes_the_same_bytes(folder, tmp_path):
    script = (
        "import sys; from retinanet_ext.data.quickstart.dataset import ensure_quickstart\n"
        "ensure_quickstart(sys.argv[1], num_train=4, num_val=3)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, check=True)
    assert snapshot(tmp_path / folder.name) == snapshot(folder)


def test_a_pool_of_processes_writes_the_same_bytes(folder, tmp_path, monkeypatch):
    pools = []
    start_pool = parallel._start_pool

    def count_pools(workers):
        pools.append(workers)
        return start_pool(workers)

    monkeypatch.setattr(parallel, "_start_pool", count_pools)
    monkeypatch.setattr(parallel, "_count_cpus", lambda: 2)
    monkeypatch.setattr(parallel, "MIN_JOBS", 4)
    monkeypatch.setattr(parallel, "CHUNK", 1)
    other = ensure_quickstart(tmp_path, num_train=4, num_val=3)
    assert pools == [2]
    assert snapshot(other) == snapshot(folder)


def test_a_complete_dataset_is_left_alone(folder, monkeypatch):
    monkeypatch.setattr(dataset, "_generate", lambda *_: pytest.fail("generated again"))
    assert ensure_quickstart(folder.parent, num_train=4, num_val=3) == folder
    # Nothing beside it but the lock file.
    assert {p.name for p in folder.parent.iterdir()} <= {folder.name, f"{folder.name}.lock"}


def break_image(folder):
    (folder / "train" / "000002.png").unlink()


def empty_image(folder):
    (folder / "train" / "000002.png").write_bytes(b"")


def break_json(folder):
    path = folder / "annotations" / "instances_train.json"
    path.write_text(path.read_text()[:-20])


def drop_json(folder):
    (folder / "annotations" / "instances_val.json").unlink()


def older_version(folder):
    path = folder / "annotations" / "instances_val.json"
    path.write_text(path.read_text().replace('"version": "1"', '"version": "0"'))


def list_as_json(folder):
    (folder / "annotations" / "instances_val.json").write_text("[]")


@pytest.mark.parametrize(
    "damage", [break_image, empty_image, break_json, drop_json, older_version, list_as_json]
)
def test_a_damaged_dataset_is_made_again(damage, tmp_path):
    folder = ensure_quickstart(tmp_path, num_train=2, num_val=1)
    before = snapshot(folder)
    damage(folder)
    assert snapshot(folder) != before
    ensure_quickstart(tmp_path, num_train=2, num_val=1)
    assert snapshot(folder) == before


def test_another_seed_or_size_replaces_the_dataset(tmp_path):
    folder = ensure_quickstart(tmp_path, num_train=1, num_val=1)
    first = snapshot(folder)
    ensure_quickstart(tmp_path, num_train=2, num_val=1)
    assert len(content(folder, "train")["images"]) == 2
    ensure_quickstart(tmp_path, num_train=1, num_val=1, seed=5)
    assert content(folder, "train")["info"]["seed"] == 5
    assert snapshot(folder)["train/000001.png"] != first["train/000001.png"]


def test_a_failure_in_between_leaves_nothing_behind(tmp_path, monkeypatch):
    def full_disk(function, jobs, description):
        function(jobs[0])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dataset, "map_in_processes", full_disk)
    with pytest.raises(OSError) as error:
        ensure_quickstart(tmp_path, num_train=2, num_val=1)
    assert error.value.errno == 28
    for words in ("No space left", str(tmp_path / "quickstart_v1"), "DETECTRON2_DATASETS"):
        assert words in str(error.value)
    assert {p.name for p in tmp_path.iterdir()} <= {"quickstart_v1.lock"}


def test_a_root_that_cannot_be_written_is_named(tmp_path):
    # A file in place of the folder: root may write anywhere else.
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/root/quickstart_v1.*DETECTRON2_DATASETS"):
        ensure_quickstart(tmp_path / "file" / "root", num_train=1, num_val=1)


def test_without_opencv_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(raster, "cv2", None)
    monkeypatch.setattr(raster, "_reason", "No module named 'cv2'", raising=False)
    with pytest.raises(ImportError, match=r"No module named 'cv2'.*opencv-python-headless"):
        ensure_quickstart(tmp_path, num_train=1, num_val=1)


def test_it_works_where_files_cannot_be_locked(tmp_path, monkeypatch):
    def no_locks(path):
        raise dataset.LockException("locks are not supported")

    monkeypatch.setattr(dataset, "file_lock", no_locks)
    folder = ensure_quickstart(tmp_path, num_train=1, num_val=1)
    assert {p.name for p in tmp_path.iterdir()} == {folder.name}


def test_without_locks_the_slower_of_two_processes_gives_way(tmp_path, monkeypatch):
    move = dataset._move_into_place

    def other_was_faster(temporary, target, counts, seed):
        monkeypatch.setattr(dataset, "_move_into_place", move)
        dataset._generate(target, counts, seed, "quickstart")
        move(temporary, target, counts, seed)

    monkeypatch.setattr(dataset, "_move_into_place", other_was_faster)
    folder = ensure_quickstart(tmp_path, num_train=1, num_val=1)
    assert len(content(folder, "train")["images"]) == 1
    assert {p.name for p in tmp_path.iterdir()} <= {folder.name, f"{folder.name}.lock"}


@pytest.mark.slow
def test_two_processes_at_once_both_end_well(tmp_path):
    script = (
        "import sys; from retinanet_ext.data.quickstart.dataset import ensure_quickstart\n"
        "print(ensure_quickstart(sys.argv[1], num_train=70, num_val=4))"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    pair = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in "ab"]
    outputs = [process.communicate(timeout=120)[0] for process in pair]
    assert [process.returncode for process in pair] == [0, 0]
    assert outputs == [f"{tmp_path / 'quickstart_v1'}\n"] * 2
    assert len(list((tmp_path / "quickstart_v1" / "train").iterdir())) == 70


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_after_a_kill_the_next_run_starts_afresh(tmp_path):
    script = (
        "import sys; from retinanet_ext.data.quickstart.dataset import ensure_quickstart\n"
        "ensure_quickstart(sys.argv[1], num_train=5000, num_val=4)"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT)
    deadline = time.monotonic() + 90
    while not list(tmp_path.glob("*/train/*.png")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    # Its workers end with it, so the lock is free; what it left is cleared away.
    folder = ensure_quickstart(tmp_path, num_train=2, num_val=1)
    assert len(content(folder, "train")["images"]) == 2
    assert {p.name for p in tmp_path.iterdir()} == {folder.name, f"{folder.name}.lock"}
