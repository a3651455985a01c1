"""``predict`` reads whatever people call a picture, by whatever name, or names why it does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from tests.helpers.predicting import predict

pytestmark = pytest.mark.usefixtures("clean_catalogs")
ROOT = Path(__file__).resolve().parents[2]
EXIF_ORIENTATION = 0x0112
TURNED = (  # what a camera stores so that EXIF's orientation 1 to 8 turns it upright
    *(None, Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180),
    *(Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_90),
    *(Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_270),
)


def test_all_eight_orientations_give_the_same(run, photos):
    upright = Image.open(photos / "1.png")
    Path("turned").mkdir()
    for orientation, how in enumerate(TURNED, start=1):
        stored = upright if how is None else upright.transpose(how)
        exif = Image.Exif()
        exif[EXIF_ORIENTATION] = orientation
        stored.save(f"turned/{orientation}.png", exif=exif)
    records = predict(run, "turned", "--draw", "--format", "yolo")
    assert len(records) == 8 and records[0]["detections"]
    for record in records:
        assert (record["width"], record["height"]) == upright.size
        assert [x["class"] for x in record["detections"]] == [
            x["class"] for x in records[0]["detections"]
        ]
        for got, expected in zip(record["detections"], records[0]["detections"], strict=True):
            assert got["box"] == pytest.approx(expected["box"], abs=2e-3)
        drawn = Image.open(Path("out/drawn") / Path(record["file"]).with_suffix(".jpg").name)
        assert drawn.size == upright.size and not drawn.getexif()


def test_every_kind_of_picture_gives_a_result_or_a_reason(run, photos):
    picture = Image.open(photos / "0.png").convert("RGB")
    Path("kinds").mkdir()
    for mode in ("L", "LA", "P", "RGBA", "1"):
        picture.convert(mode).save(f"kinds/{mode}.png")
    picture.convert("CMYK").save("kinds/cmyk.jpg")
    picture.save("kinds/first.gif", save_all=True, append_images=[Image.new("RGB", picture.size)])
    picture.resize((1, 1)).save("kinds/one.png")
    picture.resize((20000, 30)).save("kinds/wide.png")
    picture.resize((3, 2000)).save("kinds/thin.bmp")
    modern = ["kinds/new.avif"] if features.check("avif") else []  # not in every build of Pillow
    for name in modern:
        picture.save(name)
    Path("kinds/empty.jpg").touch()
    deep = np.asarray(picture.convert("L")).astype(np.uint16) * 257
    Image.fromarray(deep).save("kinds/deep.png")
    words = [
        run,
        "kinds",
        "--batch-size",
        "1",
        "--draw",
        "--crops",
        "--score-thresh",
        "0.1",
        "--format",
        "coco,yolo",
    ]
    records = predict(*words, expected=1)
    failed = dict(x.split("\t") for x in Path("out/failed.txt").read_text().splitlines())
    assert set(failed) == {"kinds/deep.png", "kinds/empty.jpg"}
    assert "set INPUT.SIXTEEN_BIT to full" in failed["kinds/deep.png"]
    assert set(modern) <= {x["file"] for x in records}
    sizes = {Path(x["file"]).name: (x["width"], x["height"]) for x in records}
    assert sizes["wide.png"] == (20000, 30) and sizes["one.png"] == (1, 1)
    for record in records:
        stem = Path(record["file"]).stem
        assert Image.open(f"out/drawn/{stem}.jpg").size == sizes[Path(record["file"]).name]
        for found in record["detections"]:
            x1, y1, x2, y2 = found["box"]
            assert 0 <= x1 <= x2 <= record["width"] and 0 <= y1 <= y2 <= record["height"]
    words += ["--overwrite", "--opts", "INPUT.SIXTEEN_BIT", "full"]
    by_file = {x["file"]: x["detections"] for x in predict(*words, expected=1)}
    assert by_file["kinds/deep.png"] == by_file["kinds/L.png"]


def test_a_line_of_pixels_is_a_picture(run, photos):
    Path("lines").mkdir()
    picture = Image.open(photos / "0.png").convert("RGB")
    picture.resize((5000, 1)).save("lines/wide.png")
    picture.resize((1, 5000)).save("lines/high.png")
    sizes = [(1, 5000), (5000, 1)]
    assert [(x["width"], x["height"]) for x in predict(run, "lines", "--crops")] == sizes
    views = predict(run, "lines", "--overwrite", "--tile", "256", "--tta", "flip,0.5")
    assert [(x["width"], x["height"]) for x in views] == sizes


NAMES = ("grüße.png", "with space.png", "#1.png", "new\nline.png", "tab\t%s.png", "日本.png")


def test_any_name_is_read_and_written(run, photos):
    Path("odd").mkdir()
    for name in NAMES:
        os.link(photos / "0.png", f"odd/{name}")
    broken = os.fsdecode(b"odd/latin-\xfc.png")
    Path(broken).write_bytes(b"no picture")
    Path("odd/bad\nname.png").write_bytes(b"no picture")
    words = [run, "odd", "--draw", "--format", "csv,json,coco,yolo"]
    records = predict(*words, expected=1)
    assert {x["file"] for x in records} == {f"odd/{name}" for name in NAMES}
    for name in NAMES:
        assert Path("out/drawn", name).with_suffix(".jpg").is_file()
        assert Path("out/labels", name).with_suffix(".txt").is_file()
    lines = Path("out/failed.txt").read_bytes().decode(errors="surrogateescape").splitlines()
    assert [x.split("\t")[0] for x in lines] == ["odd/bad\\nname.png", broken]
    images = json.loads(Path("out/coco_images.json").read_text())["images"]
    assert {x["file_name"] for x in images} == {f"odd/{name}" for name in NAMES}
    again = predict(*words, "--resume", expected=1)
    assert len(again) == len(NAMES)


def test_outputs_of_equal_names_do_not_collide(run, photos):
    for folder in ("a", "b"):
        Path(folder).mkdir()
        os.link(photos / f"{'ab'.index(folder)}.png", f"{folder}/x.png")
    predict(run, "a/x.png", "b/x.png", "--draw", "--format", "yolo")
    sizes = [Image.open(f"out/drawn/{folder}/x.jpg").size for folder in ("a", "b")]
    assert sizes == [(80, 64), (70, 100)]
    assert len(list(Path("out/labels").rglob("*.txt"))) == 2


@pytest.mark.slow
def test_it_runs_where_there_is_no_display(run, photos):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        environment.pop(name, None)
    command = [sys.executable, "-W", "ignore", "-m", "retinanet_ext", "predict", str(run)]
    command += ["photos", "--output", "out", "--draw", "--crops"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "4 images" in done.stdout
    command += ["--overwrite", "--show"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("--draw or --video-out write files")


@pytest.mark.slow
def test_a_thousand_pictures_of_which_some_are_broken(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("many").mkdir()
    picture = Image.new("RGB", (64, 64), (90, 120, 60))
    for i in range(997):
        picture.save(f"many/{i:04d}.png")
    for i in range(3):
        Path(f"many/broken_{i}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(i))
    Path("many/x.jpg").mkdir()
    records = predict(run, "many", "--batch-size", "8", expected=1)
    assert [x["file"] for x in records] == [f"many/{i:04d}.png" for i in range(997)]
    assert len(Path("out/failed.txt").read_text().splitlines()) == 4
