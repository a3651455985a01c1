"""The Predictor sees what the evaluation sees, whatever holds the picture and in any batch."""

from __future__ import annotations

import copy
import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image

from retinanet_ext import Predictor, UserError
from retinanet_ext.data.datasets.register import register_builtin_datasets
from retinanet_ext.data.loading.bad_images import BadImageError
from retinanet_ext.engine import evaluate
from retinanet_ext.inference import FailedPicture, Picture
from retinanet_ext.inference.detector import Fitting
from tests.helpers.parity import spread_predictions
from tests.helpers.tiny import CLASSES, tiny_cfg

pytestmark = pytest.mark.usefixtures("clean_catalogs")

SIZES = ((64, 80), (80, 64), (64, 64), (100, 70), (64, 80), (50, 150))
EXIF_ORIENTATION = 0x0112


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """OUTPUT_DIR of a run, as far as a Predictor reads it."""
    folder = tmp_path_factory.mktemp("run")
    cfg = tiny_cfg(folder)
    torch.manual_seed(0)
    model = build_model(cfg)
    spread_predictions(model)
    state = {"model": model.state_dict(), "thing_classes": list(CLASSES)}
    torch.save(state, folder / "model_final.pth")
    (folder / "config.yaml").write_text(cfg.dump())
    return folder


@pytest.fixture(scope="module")
def predictor(run: Path) -> Predictor:
    return Predictor.from_run(run)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    paths = []
    for i, (height, width) in enumerate(SIZES):
        coarse = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)
        paths.append(str(folder / f"{i} ü#.png"))
        picture.save(paths[-1])
    return paths


def assert_same(got, expected, box: float = 0.0, score: float = 0.0) -> None:
    assert len(got) == len(expected) > 0
    np.testing.assert_allclose(got.boxes, expected.boxes, rtol=0, atol=box)
    np.testing.assert_allclose(got.scores, expected.scores, rtol=0, atol=score)
    np.testing.assert_array_equal(got.classes, expected.classes)


def test_detections_are_those_of_the_evaluation(predictor, run, tiny_root, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tiny_root))
    register_builtin_datasets(str(tiny_root))
    cfg = predictor.cfg.clone()
    cfg.defrost()
    cfg.OUTPUT_DIR = str(tmp_path)
    evaluate(cfg)
    written = json.loads(next(tmp_path.rglob("coco_instances_results.json")).read_text())
    found = []
    paths = sorted((tiny_root / "bccd" / "val").glob("*.png"))
    for prediction in predictor.stream(paths, batch_size=1):
        found += prediction.to_coco(image_id=prediction.index + 1)
    assert len(found) == len(written) > 0
    for got, expected in zip(found, written, strict=True):
        assert got["image_id"] == expected["image_id"]
        assert got["category_id"] == expected["category_id"]
        assert got["bbox"] == pytest.approx(expected["bbox"], abs=1e-3)
        assert got["score"] == pytest.approx(expected["score"], abs=1e-6)


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, "8"])
def test_a_batch_size_is_a_whole_number_from_1_on(predictor, pictures, batch_size):
    with pytest.raises(UserError, match=f"batch_size is {batch_size!r}; it must be a whole"):
        list(predictor.stream(pictures, batch_size))


@pytest.mark.parametrize("batch_size", [2, 8])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_gives_what_single_pictures_give(predictor, pictures, batch_size, workers):
    alone = [predictor(path) for path in pictures]
    together = list(predictor.stream(pictures, batch_size, workers=workers))
    assert [x.name for x in together] == pictures
    assert [x.index for x in together] == list(range(len(pictures)))
    for got, expected in zip(together, alone, strict=True):
        assert_same(got, expected, box=1e-3, score=1e-4)


def test_batches_side_by_side_share_the_batch_size_and_change_nothing(
    predictor, pictures, tmp_path, monkeypatch
):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    paths = [*pictures, tmp_path / "bad.png", *pictures, *pictures]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)  # as if this machine had two cores
    detect, lock = predictor.detector.detect, threading.Lock()
    now: list[int] = []
    most, names = 0, set()

    def watched(batch):
        nonlocal most
        with lock:
            now.append(len(batch))
            most = max(most, sum(now))
            names.add(threading.current_thread().name)
        found = detect(batch)
        with lock:
            now.remove(len(batch))
        return found

    monkeypatch.setattr(predictor.detector, "detect", watched)
    found = list(predictor.stream(paths, 4, on_error="yield"))
    monkeypatch.undo()
    assert [x.index for x in found] == list(range(len(paths)))
    assert isinstance(found[len(pictures)], FailedPicture)
    assert 2 <= most <= 4 and len(names) == 2
    for got in found[:5] + found[7:]:
        assert_same(got, predictor(got.name), box=1e-3, score=1e-4)


def test_whatever_holds_the_picture_gives_the_same(predictor, pictures):
    expected = predictor(pictures[0])
    rgb = np.asarray(Image.open(pictures[0]))
    alpha = np.full((*rgb.shape[:2], 1), 255, np.uint8)
    assert_same(predictor(Path(pictures[0])), expected)
    assert_same(predictor(Image.open(pictures[0])), expected)
    assert_same(predictor(rgb, "RGB"), expected)
    assert_same(predictor(rgb[:, :, ::-1], "BGR"), expected)
    assert_same(predictor(np.concatenate([rgb, alpha], 2), "RGBA"), expected)
    assert_same(predictor(np.concatenate([rgb[:, :, ::-1], alpha], 2), "BGRA"), expected)
    assert_same(predictor(Picture(rgb, "RGB", "camera")), expected)


def test_gray_pictures_are_those_of_their_file(predictor, tmp_path, pictures):
    Image.open(pictures[0]).convert("L").save(tmp_path / "gray.png")
    gray = np.asarray(Image.open(tmp_path / "gray.png"))
    expected = predictor(tmp_path / "gray.png")
    assert_same(predictor(gray, "L"), expected)
    assert_same(predictor(gray[:, :, None], "L"), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("as_image", [False, True])
def test_every_exif_orientation_is_read_upright(
    predictor, pictures, tmp_path, orientation, as_image
):
    upright = Image.open(pictures[0])
    inverse = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = upright if inverse is None else upright.transpose(inverse)
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    stored.save(tmp_path / "turned.png", exif=exif)
    source = tmp_path / "turned.png"
    found = predictor(Image.open(source) if as_image else source)
    assert (found.width, found.height) == upright.size
    assert_same(found, predictor(pictures[0]), box=1e-6)


def test_damaged_exif_data_turn_nothing(predictor, pictures, tmp_path):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    damaged = bytearray(exif.tobytes())
    damaged[damaged.index(b"MM\x00*" if b"MM\x00*" in damaged else b"II*\x00")] ^= 0xFF
    Image.open(pictures[0]).save(tmp_path / "damaged.webp", exif=bytes(damaged), lossless=True)
    expected = predictor(tmp_path / "damaged.webp")
    assert (expected.width, expected.height) == Image.open(pictures[0]).size
    assert_same(predictor(Image.open(tmp_path / "damaged.webp")), expected)


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGBA", "CMYK", "L"])
def test_other_modes_are_read(predictor, pictures, tmp_path, mode):
    name = "picture.tif" if mode == "CMYK" else "picture.png"
    Image.open(pictures[0]).convert(mode).save(tmp_path / name)
    found = predictor(tmp_path / name)
    assert found.picture.shape == (*SIZES[0], 3)


def test_sixteen_bits_need_a_rule(run, tmp_path):
    deep = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    Image.fromarray(deep).save(tmp_path / "deep.png")
    with pytest.raises(BadImageError, match=r"deep\.png.*INPUT\.SIXTEEN_BIT"):
        Predictor.from_run(run)(tmp_path / "deep.png")
    ruled = Predictor.from_run(run, opts=["INPUT.SIXTEEN_BIT", "full"])
    assert ruled(tmp_path / "deep.png").picture.max() == 255
    assert ruled(Image.open(tmp_path / "deep.png")).picture.max() == 255


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2000, 3), (1, 500)])
def test_odd_shapes_are_answered(predictor, height, width):
    found = predictor(np.zeros((height, width, 3), np.uint8), "RGB")
    assert (found.height, found.width) == (height, width)
    inside = found.boxes.reshape(-1, 2, 2)
    assert (inside >= 0).all() and (inside <= (width, height)).all()


@pytest.mark.parametrize(
    ("array", "channels", "message"),
    [
        (np.zeros((8, 8, 3), np.uint8), "", r"pass channels=, one of RGB"),
        (np.zeros((8, 8, 3), np.uint8), "HSV", "channels is 'HSV'; use one of"),
        (np.zeros((8, 8, 3), np.float32), "RGB", "is of float32, so pass value_range="),
        (np.zeros((8, 8, 3), np.uint16), "RGB", "is of uint16, so pass scale="),
        (np.zeros((8, 8, 3), np.int32), "RGB", "is of int32, but the model takes"),
        (np.zeros((3, 8, 8), np.uint8), "RGB", r"shape \(3, 8, 8\), but channels RGB is"),
        (np.zeros((8, 8), np.uint8), "RGB", r"is \(H, W, 3\)"),
        (np.zeros((0, 8, 3), np.uint8), "RGB", "holds no pixel"),
        (3, "", "this is a int"),
    ],
)
def test_nothing_is_guessed(predictor, array, channels, message):
    with pytest.raises(UserError, match=message):
        predictor(array, channels)


def test_values_of_other_dtypes_are_read_by_a_stated_rule(predictor, pictures):
    rgb = np.asarray(Image.open(pictures[0]))
    expected = predictor(rgb, "RGB")
    assert_same(predictor(rgb.astype(np.uint16) * 16, "RGB", scale=1 / 16), expected)
    assert_same(predictor(rgb / 127.5 - 1, "RGB", value_range=(-1, 1)), expected)
    halves = (rgb / np.float32(255)).astype(np.float16)
    assert_same(predictor(halves, "RGB", value_range=(0, 1)), expected)


@pytest.mark.parametrize(
    ("array", "rules", "message"),
    [
        (np.full((8, 8, 3), 5000, np.uint16), {"scale": 255 / 4095}, "from 5000 to 5000"),
        (np.full((8, 8, 3), np.nan), {"value_range": (0, 1)}, r"value_range \(0, 1\) does not"),
        (np.zeros((8, 8, 3)), {"value_range": (1, 0)}, "makes no 0 to 255"),
        (np.zeros((8, 8, 3), np.uint16), {"scale": 0.0}, "makes no 0 to 255"),
        (np.zeros((8, 8, 3), np.uint8), {"scale": 1.0}, "leave out scale="),
        (np.zeros((8, 8, 3), np.uint16), {"scale": 1.0, "value_range": (0, 1)}, "so pass scale="),
    ],
)
def test_a_rule_that_does_not_fit_the_values_is_refused(predictor, array, rules, message):
    with pytest.raises(UserError, match=message):
        predictor(array, "RGB", **rules)


def test_bad_files_are_raised_or_yielded_in_their_place(predictor, pictures, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    sources = [pictures[0], tmp_path / "bad.png", tmp_path / "gone.png", pictures[1]]
    with pytest.raises(BadImageError, match=r"bad\.png"):
        list(predictor.stream(sources))
    found = list(predictor.stream(sources, 4, on_error="yield"))
    assert [type(x).__name__ for x in found] == [
        "Prediction",
        "FailedPicture",
        "FailedPicture",
        "Prediction",
    ]
    assert isinstance(found[1], FailedPicture) and "bad.png" in found[1].reason
    assert found[2].index == 2 and "gone.png" in found[2].reason


def test_a_stream_takes_no_more_than_it_needs(predictor, pictures):
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield pictures[0]

    stream = predictor.stream(endless(), 2, workers=2)
    for _ in range(6):
        next(stream)
    stream.close()
    assert len(taken) < 40


def test_many_threads_may_share_it(predictor, pictures):
    expected = [predictor(path) for path in pictures]
    found: dict[int, list] = {}

    def work(i: int) -> None:
        found[i] = [predictor(path) for path in pictures]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for results in found.values():
        for got, wanted in zip(results, expected, strict=True):
            assert_same(got, wanted)
    assert len(found) == 3


def test_results_tell_names_and_draw(predictor, pictures):
    found = predictor(pictures[0])
    assert found.names == [CLASSES[k] for k in found.classes]
    assert (np.diff(found.scores) <= 0).all()
    assert found.draw(0.2).size == (found.width, found.height)
    assert len(found.above(0.2)) == (found.scores >= 0.2).sum() < len(found)
    as_json = json.loads(json.dumps(found.to_dict()))
    assert as_json["file"] == pictures[0] and len(as_json["detections"]) == len(found)
    assert as_json["detections"][0]["class"] == found.names[0]
    left, top, right, bottom = found.boxes[0].tolist()
    coco = found.to_coco(5, category_ids=[10, 20, 30])[0]
    assert coco["bbox"] == pytest.approx([left, top, right - left, bottom - top])
    assert coco["category_id"] == 10 * (found.classes[0] + 1)
    assert found.instances.pred_boxes.tensor.device.type == "cpu"


def test_thresholds_are_the_configs_unless_given(run, predictor, pictures):
    found = predictor(pictures[0])
    assert found.scores.min() > predictor.cfg.MODEL.RETINANET.SCORE_THRESH_TEST
    surer = Predictor.from_run(run, score_thresh=0.2)(pictures[0])
    assert surer.scores.min() >= 0.2 and 0 < len(surer) < len(found)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": "best"}, r"holds no model_best\.pth; there are model_final\.pth"),
        ({"device": "tpu"}, "tpu"),
        ({"score_thresh": 2}, "between 0 and 1"),
        ({"opts": ["MODEL.RETINANET.SCORE_THRESH_TETS", 0.1]}, "SCORE_THRESH_TETS"),
    ],
)
def test_wrong_arguments_are_named(run, arguments, message):
    with pytest.raises(UserError, match=message):
        Predictor.from_run(run, **arguments)


def test_folders_that_are_no_run_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no folder"):
        Predictor.from_run(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match=r"holds no config\.yaml"):
        Predictor.from_run(tmp_path)
    (tmp_path / "config.yaml").write_text("VERSION: 2\n")
    with pytest.raises(FileNotFoundError, match="saved no model yet"):
        Predictor.from_run(tmp_path)


def test_batches_are_halved_until_they_fit_and_no_more_is_tried_again(predictor, pictures):
    tried = []

    class Small:
        """A detector with memory for two pictures."""

        def batch_key(self, pixels):
            return 0

        def __call__(self, found):
            tried.append(len(found))
            if len(found) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return predictor.detector(found)

    small = copy.copy(predictor)
    small.detector = Small()
    same = [pictures[0]] * 11
    found = list(small.stream(same, None, window=1))
    assert tried == [4, 2, 2, 2, 2, 2, 1]  # 4 is what a CPU begins with
    assert [x.index for x in found] == list(range(11))
    for got in found:
        assert_same(got, predictor(pictures[0]), box=1e-3, score=1e-4)


def test_one_picture_too_many_for_the_memory_is_an_error():
    def no_memory(batch):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with pytest.raises(RuntimeError, match="allocate memory"):
        Fitting()(no_memory, [1, 2])
    with pytest.raises(RuntimeError, match="a bug"):
        Fitting()(lambda batch: (_ for _ in ()).throw(RuntimeError("a bug")), [1, 2])


def test_thresholds_of_classes_choose_by_class(predictor, pictures):
    found = predictor(pictures[0])
    of_class = [1.0] * len(found.class_names)
    k = int(found.classes[0])
    of_class[k] = float(found.scores[found.classes == k][1])
    assert len(found.above(of_class)) == 2 and set(found.above(of_class).classes) == {k}
    assert len(found.above(float(found.scores[2]))) == 3
    with pytest.raises(UserError, match="2 scores for 3 classes"):
        found.above([0.5, 0.5])
    with pytest.raises(UserError, match=r"score is 1\.5"):
        found.above([0.5, 1.5, 0.5])


def test_a_line_says_the_scores_to_the_last_bit(predictor, pictures):
    found = predictor(pictures[0])
    line = json.loads(json.dumps(found.to_line("a.png", time_s=0.5, draw=1.25)))
    scores = np.array([x["score"] for x in line["detections"]], np.float32)
    np.testing.assert_array_equal(scores, found.scores)
    assert (line["file"], line["frame"], line["time_s"], line["ms"]["draw"]) == (
        *("a.png", None, 0.5, 1.25),
    )


def test_autocast_auto_is_for_the_predictor_only(run, monkeypatch):
    opts = ["MODEL.SPEEDUPS.AUTOCAST", "auto"]
    monkeypatch.setattr(
        "retinanet_ext.inference.exported.precision.best_autocast", lambda device: "bfloat16"
    )
    fast = Predictor.from_run(run, opts=opts)
    assert fast.model.speedups.autocast == "bfloat16"
    cfg = fast.cfg.clone()
    cfg.defrost()
    cfg.merge_from_list(opts)
    assert build_model(cfg).speedups.autocast == ""


def test_one_picture_is_no_stream(predictor):
    """A path would be read as one file for each of its letters."""
    for picture in ("photo.jpg", Path("photo.jpg"), np.zeros((8, 8, 3), np.uint8)):
        with pytest.raises(UserError, match="put one in a list"):
            predictor.stream(picture)


@pytest.mark.parametrize("limits", [(10_000_000, 0), (3_000_000, 6_000_000)])
def test_a_size_that_no_memory_holds_is_refused_before_anything_is_resized(run, pictures, limits):
    shorter, longer = limits
    keys = ["INPUT.MIN_SIZE_TEST", shorter, "INPUT.MAX_SIZE_TEST", longer or 2 * shorter]
    predictor = Predictor.from_run(run, opts=keys)
    with pytest.raises(UserError, match=rf"makes {shorter} x \d+ px of a picture of 64 x 80 px"):
        predictor(pictures[0])
    with pytest.raises(UserError, match=r"memory can hold; lower it \(--size\)"):
        list(predictor.stream(pictures[:2], batch_size=2))
