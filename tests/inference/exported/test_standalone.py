"""What goes with a file works without PyTorch and this package, and gives what they give."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from PIL import Image

from retinanet_ext import Predictor
from retinanet_ext.export.compare import compare_sets
from retinanet_ext.inference import Picture
from retinanet_ext.inference.exported.engines import open_engine
from retinanet_ext.inference.exported.sidecar import Sidecar
from retinanet_ext.inference.exported.standalone import decode, preprocess

EXIF_ORIENTATION = 0x0112
BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "torchvision", "detectron2", "retinanet_ext", "fvcore"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Block())
"""


@pytest.fixture(scope="module")
def predictor(exports) -> Predictor:
    return Predictor.from_run(exports.run)


@pytest.fixture(scope="module")
def meta(exports) -> dict:
    return json.loads((exports("nms") / "model.json").read_text())


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    random = np.random.default_rng(width)
    coarse = random.integers(0, 256, (9, 11, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return image.convert(mode)


def write_all(folder: Path) -> list[Path]:
    """Pictures of many kinds."""
    picture(203, 150).save(folder / "a.jpg", quality=60)
    picture(90, 171).save(folder / "b.png")
    picture(99, 99, "L").save(folder / "gray.png")
    picture(121, 80, "L").save(folder / "gray.jpg")
    picture(64, 64).save(folder / "same.png")
    picture(1333, 40).save(folder / "long.png")
    picture(70, 50, "P").save(folder / "palette.png")
    picture(70, 51, "CMYK").save(folder / "cmyk.jpg")
    picture(70, 53, "LA").save(folder / "la.png")
    transparent = picture(80, 61, "RGBA")
    transparent.putalpha(77)
    transparent.save(folder / "alpha.png")
    for turn in (3, 6, 8, 5):
        exif = Image.Exif()
        exif[EXIF_ORIENTATION] = turn
        picture(101, 60 + turn).save(folder / f"turned{turn}.jpg", exif=exif)
        picture(101, 60 + turn).save(folder / f"turned{turn}.tif", exif=exif)
    return sorted(folder.iterdir())


def test_pixels_are_those_of_the_predictor_bit_for_bit(predictor, meta, tmp_path):
    paths = write_all(tmp_path)
    assert len(paths) == 18
    for path in paths:
        pixels = predictor.read(Picture(str(path)))
        ours = preprocess.read(str(path), meta)
        np.testing.assert_array_equal(ours, pixels, err_msg=path.name)
        theirs = predictor.detector.prepare(pixels)["image"].numpy().transpose(1, 2, 0)
        np.testing.assert_array_equal(preprocess.resize(ours, meta), theirs, err_msg=path.name)


@pytest.mark.parametrize("rule", ["full", "minmax"])
def test_sixteen_bits_are_scaled_by_the_rule_of_the_run(exports, meta, tmp_path, rule):
    values = np.random.default_rng(0).integers(300, 60000, (40, 50)).astype(np.uint16)
    path = str(tmp_path / "deep.png")
    Image.fromarray(values).save(path)
    predictor = Predictor.from_run(exports.run, opts=["INPUT.SIXTEEN_BIT", rule])
    own = {**meta, "resize": {**meta["resize"], "sixteen_bit": rule}}
    np.testing.assert_array_equal(preprocess.read(path, own), predictor.read(Picture(path)))
    with pytest.raises(ValueError, match="sixteen_bit"):
        preprocess.read(path, meta)


@pytest.mark.parametrize(("channels", "mode"), [("RGB", "RGB"), ("L", "L")])
def test_other_channels_than_bgr(meta, tmp_path, channels, mode):
    picture(40, 30).save(tmp_path / "a.png")
    own = {**meta, "input": {**meta["input"], "channels": channels}}
    pixels = preprocess.read(str(tmp_path / "a.png"), own)
    expected = np.asarray(Image.open(tmp_path / "a.png").convert(mode))
    np.testing.assert_array_equal(pixels, expected.reshape(pixels.shape))
    assert preprocess.resize(pixels, own).shape == (64, 85, len(mode))


def test_sizes_are_detectron2s(meta):
    from retinanet_ext.data.loading.pixels import ResizeShortestEdge

    random = np.random.default_rng(0)
    for _ in range(500):
        height, width, shorter, longer = random.integers(1, 2000, 4).tolist()
        own = {"resize": {"shorter": shorter, "longer": longer}}
        picture = np.broadcast_to(np.uint8(0), (height, width, 3))
        transform = ResizeShortestEdge(shorter, longer).get_transform(picture)
        expected = transform.new_h, transform.new_w
        assert preprocess.resized_size(height, width, own) == expected
    own = {"resize": {"shorter": 64, "longer": 100}}
    assert preprocess.resized_size(5000, 1, own) == (100, 1)  # where Detectron2 has (100, 0)
    own = {"resize": {"shorter": 0, "longer": 100}}
    assert preprocess.resized_size(300, 200, own) == (300, 200)


def test_a_batch_is_filled_up_with_what_normalises_to_zero(meta):
    small, large = np.zeros((30, 40, 3), np.uint8), np.zeros((50, 20, 3), np.uint8)
    images = preprocess.batch([small, large], meta)
    assert images.shape == (2, 3, 50, 40) and images.dtype == np.float32
    normalized = preprocess.normalized(images, meta)
    assert normalized.shape == (2, 3, 64, 64)
    assert (normalized[0, :, 30:] == 0).all() and (normalized[1, :, :, 20:] == 0).all()
    assert (normalized[0, :, :30, :40] != 0).all()


@pytest.mark.parametrize("head", ["raw", "decoded", "nms"])
def test_numpy_decodes_to_what_the_predictor_finds(exports, head):
    folder = exports(head)
    sidecar = Sidecar.read(folder)
    engine, meta = open_engine(sidecar), sidecar.meta
    predictor = Predictor.from_run(exports.run)
    for path in exports.pictures:
        pixels = preprocess.read(path, meta)
        small = preprocess.resize(pixels, meta)
        found = decode.detections(engine(preprocess.batch([small], meta)), 0, meta)
        boxes, scores, classes = decode.in_picture(found, small.shape[:2], pixels.shape[:2])
        ours = Instances(
            pixels.shape[:2],
            pred_boxes=Boxes(torch.from_numpy(boxes)),
            scores=torch.from_numpy(scores),
            pred_classes=torch.from_numpy(classes),
        )
        compared = compare_sets([predictor(path).instances], [ours], edge=0.05, most=100)
        assert compared.count > 20 and compared.missing == 0


def test_soft_nms_is_refused(meta):
    own = {**meta, "decode": {**meta["decode"], "nms": "soft"}}
    with pytest.raises(ValueError, match="soft"):
        decode.suppress(np.zeros((1, 4)), np.ones(1), np.zeros(1, int), own)


@pytest.mark.parametrize("head", ["raw", "nms"])
def test_the_folder_runs_without_torch_and_this_package(exports, tmp_path, head):
    folder = exports(head)
    code = BLOCK + (
        f"sys.path.insert(0, {str(folder)!r})\n"
        f"sys.argv = ['run', '--check', *{exports.pictures!r}]\n"
        "import run_onnxruntime\n"
        "status = run_onnxruntime.main()\n"
        "assert not {'torch', 'detectron2', 'retinanet_ext'} & set(sys.modules)\n"
        "sys.exit(status)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(x) for x in done.stdout.splitlines()]
    assert [x["file"] for x in lines[:-1]] == exports.pictures
    for line, expected in zip(
        lines, Predictor.from_run(exports.run).stream(exports.pictures), strict=False
    ):
        assert (line["height"], line["width"]) == (expected.height, expected.width)
        assert len(line["detections"]) == len(expected)
        best = line["detections"][0]
        assert best["class"] == expected.names[0]
        np.testing.assert_allclose(best["box"], expected.boxes[0], atol=1e-2)
    assert min(lines[-1]["share of equal values"].values()) >= 0.99
