"""``retinanet-ext predict`` writes what it finds, as it finds it, and says what it cannot read."""

from __future__ import annotations

import csv
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retinanet_ext import Predictor
from retinanet_ext.cli import main
from tests.helpers.predicting import SIZES, predict, without_times
from tests.helpers.tiny import CLASSES

pytestmark = pytest.mark.usefixtures("clean_catalogs")


def test_lines_are_the_detections_of_the_predictor(run, photos):
    records = predict(run, "photos")
    predictor = Predictor.from_run(run)
    assert [x["file"] for x in records] == [f"photos/{i}.png" for i in range(4)]
    for i, (record, (height, width)) in enumerate(zip(records, SIZES, strict=True)):
        expected = predictor(record["file"])
        assert (record["index"], record["width"], record["height"]) == (i, width, height)
        assert record["frame"] is None and record["time_s"] is None
        assert set(record["ms"]) == {"read", "model", "draw"}
        found = record["detections"]
        assert [x["class"] for x in found] == expected.names
        np.testing.assert_allclose([x["box"] for x in found], expected.boxes, atol=1e-3)
        np.testing.assert_allclose([x["score"] for x in found], expected.scores, atol=1e-5)


def test_every_format_holds_the_same(run, photos):
    Image.new("RGB", (64, 64)).save("photos/empty.png")
    records = predict(run, "photos", "--format", "json,csv,coco,yolo", "--score-thresh", "0.2")
    kept = [[d for d in x["detections"] if d["score"] >= 0.2] for x in records]
    total = sum(map(len, kept))
    assert 0 < total < sum(len(x["detections"]) for x in records)
    as_json = json.loads(Path("out/predictions.json").read_text())
    assert as_json == [{**x, "detections": k} for x, k in zip(records, kept, strict=True)]
    with open("out/predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(max(1, len(x)) for x in kept)
    assert [float(x["x1"]) for x in rows if x["x1"]] == [d["box"][0] for k in kept for d in k]
    results = json.loads(Path("out/coco_instances_results.json").read_text())
    assert [x["image_id"] for x in results] == [i for i, k in enumerate(kept, 1) for _ in k]
    x1, y1, x2, y2 = kept[0][0]["box"]
    assert results[0]["bbox"] == pytest.approx([x1, y1, x2 - x1, y2 - y1], abs=1e-3)
    images = json.loads(Path("out/coco_images.json").read_text())
    assert [x["file_name"] for x in images["images"]] == [x["file"] for x in records]
    assert [x["name"] for x in images["categories"]] == list(CLASSES)
    for record, found in zip(records, kept, strict=True):
        lines = Path("out/labels", f"{Path(record['file']).stem}.txt").read_text().splitlines()
        assert len(lines) == len(found)
        for line, detection in zip(lines, found, strict=True):
            k, cx, cy, w, h, score = map(float, line.split())
            x1, y1, x2, y2 = detection["box"]
            assert k == detection["class_id"] and score == pytest.approx(
                detection["score"], abs=1e-6
            )
            assert cx * record["width"] == pytest.approx((x1 + x2) / 2, abs=1e-2)
            assert h * record["height"] == pytest.approx(y2 - y1, abs=1e-2)
            assert 0 <= min(cx, cy, w, h) <= max(cx, cy, w, h) <= 1


def test_coco_results_take_the_ids_of_annotations(run, photos, capsys):
    images = [{"id": 70 + i, "file_name": f"{i}.png"} for i in range(3)]
    categories = [{"id": 9 - i, "name": name} for i, name in enumerate(CLASSES)]
    Path("val.json").write_text(json.dumps({"images": images, "categories": categories}))
    records = predict(run, "photos", "--format", "coco", "--annotations", "val.json")
    results = json.loads(Path("out/coco_instances_results.json").read_text())
    assert {x["image_id"] for x in results} == {70, 71, 72}
    found = [d for x in records[:3] for d in x["detections"]]
    assert [x["category_id"] for x in results] == [9 - x["class_id"] for x in found]
    assert "1 image left out of the coco files: not in --annotations" in capsys.readouterr().err


def test_pictures_and_objects_are_drawn(run, photos):
    records = predict(run, "photos", "--draw", "--crops", "--score-thresh", "0.2")
    for record in records:
        name = Path(record["file"]).stem
        drawn = np.asarray(Image.open(f"out/drawn/{name}.jpg")).astype(int)
        assert drawn.shape == (record["height"], record["width"], 3)
        kept = [x for x in record["detections"] if x["score"] >= 0.2]
        crops = list(Path("out/crops").rglob(f"{name}_*.jpg"))
        assert len(crops) == len(kept)
        original = np.asarray(Image.open(record["file"])).astype(int)
        assert (np.abs(drawn - original).max() > 100) == bool(kept)
    first = records[0]["detections"][0]
    x1, y1, x2, y2 = first["box"]
    crop = Image.open(f"out/crops/{first['class']}/0_0.jpg")
    assert crop.size == (round(x2) - int(x1), round(y2) - int(y1))


def test_options_choose_detections(run, photos):
    everything = predict(run, "photos")
    one = predict(run, "photos", "--overwrite", "--classes", "WBC, RBC")
    assert {d["class"] for x in one for d in x["detections"]} == {"RBC", "WBC"}
    few = predict(run, "photos", "--overwrite", "--max-dets", "3")
    assert [len(x["detections"]) for x in few] == [3, 3, 3, 3]
    assert few[0]["detections"] == everything[0]["detections"][:3]
    sparse = predict(run, "photos", "--overwrite", "--nms-thresh", "0.05")
    assert len(sparse[0]["detections"]) < len(everything[0]["detections"])
    low = predict(run, "photos", "--overwrite", "--score-thresh", "0.01", "--max-dets", "500")
    assert min(d["score"] for x in low for d in x["detections"]) < 0.05


def test_agnostic_suppresses_over_all_classes(run, photos):
    each = predict(run, "photos", "--max-dets", "1000")
    words = ["--agnostic", "--max-dets", "1000", "--overwrite"]
    together = predict(run, "photos", *words)
    count = [sum(len(x["detections"]) for x in records) for records in (each, together)]
    assert count[1] < count[0]
    opts = ["--opts", "MODEL.RETINANET.NMS_KIND", "class_agnostic"]
    same = predict(run, "photos", *words[1:], *opts)
    assert without_times(same) == without_times(together)


def test_size_is_that_of_the_network_input(run, photos):
    usual, large = predict(run, "photos"), predict(run, "photos", "--size", "128", "--overwrite")
    opts = ["--opts", "INPUT.MIN_SIZE_TEST", "128", "INPUT.MAX_SIZE_TEST"]
    longest = Predictor.from_run(run).cfg.INPUT
    longest = round(128 * longest.MAX_SIZE_TEST / longest.MIN_SIZE_TEST)
    same = predict(run, "photos", "--overwrite", *opts, longest)
    assert without_times(large) == without_times(same) != without_times(usual)
    small = predict(run, "photos", "--size", "64,65", "--overwrite")
    same = predict(run, "photos", "--overwrite", *opts[:2], "64", opts[3], "65")
    assert without_times(small) == without_times(same)


@pytest.mark.parametrize("size", ["0", "800x", "800,600", "a"])
def test_a_size_that_is_none_is_named(run, photos, capsys, size):
    with pytest.raises(SystemExit):
        predict(run, "photos", "--size", size)
    assert f"'{size}' is no size" in capsys.readouterr().err


def test_boxes_may_be_drawn_without_labels(run, photos, monkeypatch):
    drawn = []
    monkeypatch.setattr("retinanet_ext.visualization.draw.draw_labels", lambda *x: drawn.append(x))
    predict(run, "photos/0.png", "--draw", "--no-labels", "--score-thresh", "0.1")
    assert not drawn and Path("out/drawn/0.jpg").is_file()
    predict(run, "photos/0.png", "--draw", "--score-thresh", "0.1", "--overwrite")
    assert drawn


def test_lower_precision_gives_about_the_same(run, photos):
    exact = predict(run, "photos")
    assert without_times(predict(run, "photos", "--precision", "float32", "--overwrite")) == (
        without_times(exact)
    )
    half = predict(run, "photos", "--precision", "bfloat16", "--overwrite")
    assert without_times(half) != without_times(exact)
    best, expected = (x[0]["detections"][0] for x in (half, exact))
    assert best["score"] == pytest.approx(expected["score"], abs=0.05)


def test_the_size_of_batches_may_be_left_open(run, photos):
    expected = without_times(predict(run, "photos", "--batch-size", "4"))
    found = without_times(predict(run, "photos", "--batch-size", "auto", "--overwrite"))
    assert found == expected


def test_what_tiles_do_is_said_and_that_none_was_cut(run, photos, capsys):
    predict(run, "photos", "--tile", "512")
    out, err = capsys.readouterr()
    assert "tiles of 512 x 512 px" in out and "goes through the network 37 times" in out
    assert "no picture was larger" in err
    Image.new("RGB", (300, 200)).save("photos/large.png")
    predict(run, "photos", "--tile", "256", "--overwrite")
    assert "no picture was larger" not in capsys.readouterr().err


def test_what_is_found_in_pictures_of_many_pixels_comes_without_a_warning(run, photos, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        records = predict(run, "photos/0.png")  # 5,120 px
    assert len(records) == 1
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    assert len(predict(run, "photos/0.png", "--overwrite", expected=1)) == 0
    assert "more than the 4,000 pixels" in Path("out/failed.txt").read_text()


def test_what_cannot_be_read_is_listed_and_the_rest_is_done(run, photos, capsys):
    Path("photos/broken.jpg").write_bytes(b"no picture")
    Path("photos/cut.png").write_bytes(Path("photos/0.png").read_bytes()[:200])
    Path("photos/x.jpg").mkdir()
    records = predict(run, "photos", expected=1)
    assert len(records) == 4
    failed = [line.split("\t") for line in Path("out/failed.txt").read_text().splitlines()]
    assert [name for name, _ in failed] == ["photos/broken.jpg", "photos/cut.png", "photos/x.jpg"]
    assert failed[0][1] == "it is no kind of picture that Pillow knows"
    assert "is a folder" in failed[2][1]
    out, err = capsys.readouterr()
    assert "4 images" in out and "3 failed" in out and "out/failed.txt" in err
    Path("photos/broken.jpg").unlink()
    Path("photos/x.jpg").rmdir()
    Image.open("photos/1.png").save("photos/cut.png")
    assert len(predict(run, "photos", "--resume")) == 5
    assert not Path("out/failed.txt").exists()


def test_the_first_failure_may_end_it(run, photos):
    Path("photos/00.jpg").write_bytes(b"no picture")
    words = [run, "photos", "--on-error", "stop", "--batch-size", "1"]
    assert len(predict(*words, expected=1)) == 1
    assert len(Path("out/failed.txt").read_text().splitlines()) == 1


def test_sources_may_stand_anywhere_and_only_be_listed(run, photos, capsys):
    Path("photos/a\nb.png").touch()
    assert main(["predict", "no model yet", "photos/0.png", "--dry-run", "photos"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "photos/0.png",
        "photos/1.png",
        "photos/2.png",
        "photos/3.png",
        "'photos/a\\nb.png'",
    ]
    assert not Path("out").exists()


def test_a_config_and_weights_are_a_model(run, photos):
    expected = without_times(predict(run, "photos"))
    words = ["--config-file", run / "config.yaml", "--weights", run / "model_final.pth", "photos"]
    assert without_times(predict(*words, "--overwrite")) == expected


def test_quiet_says_nothing(run, photos, capsys):
    predict(run, "photos", "--quiet")
    assert capsys.readouterr() == ("", "")


def test_the_results_go_to_a_folder_within_the_source(run, photos, monkeypatch):
    monkeypatch.chdir(photos)
    assert len(predict(run, ".", "--draw", "--recursive")) == 4
    assert len(predict(run, ".", "--draw", "--recursive", "--overwrite")) == 4


NODE = "MODEL.RETINANET"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["missing", "photos"], "'missing' is no folder; give the OUTPUT_DIR"),
        (["photos", "photos"], "'photos' holds no config.yaml"),
        (["RUN"], "SOURCE is missing after MODEL"),
        (["RUN/model_final.pth", "photos"], "a file; give the OUTPUT_DIR of a training, or"),
        (["RUN", "photos", "--weights", "other.pth"], "holds no other.pth; there are model_final"),
        (["RUN", "nothing.jpg"], "'nothing.jpg', and there is no such file"),
        (["RUN", "photos", "--classes", "WCB"], "names 'WCB'.*Did you mean 'WBC'"),
        (["RUN", "photos", "--annotations", "x.json"], "--format coco, which is missing"),
        (["RUN", "photos", "--format", "coco", "--annotations", "x.json"], "no such file"),
        (["RUN", "photos", "--video-out", "clip.mp4"], "end it in .webm"),
        (["RUN", "photos", "--video-out", "clip.webm"], "takes one video"),
        (["RUN", "photos", "--start", "x"], "'x' is no time"),
        (["RUN", "photos", "--start", "5", "--end", "0:03"], "--end is 0:03, not after --start 5"),
        (["RUN", "photos", "--every", "2"], "--every is about videos, and only pictures are read"),
        (["RUN", "photos", "--start", "1"], "--start is about videos"),
        (["RUN", "photos", "--fps", "10"], "--fps is the rate of --video-out, which is missing"),
        (["RUN", "photos", "--no-labels"], "--no-labels is about drawings; pass --draw"),
        (
            ["RUN", "photos", "--nms-thresh", "0.3", "--opts", f"{NODE}.NMS_THRESH_TEST", "0.6"],
            f"--nms-thresh sets {NODE}.NMS_THRESH_TEST, which the KEY VALUE pairs set too; give",
        ),
        (
            ["RUN", "photos", "--size", "64", "--opts", "INPUT.MAX_SIZE_TEST", "90"],
            "--size sets INPUT.MAX_SIZE_TEST, which the KEY VALUE pairs set too",
        ),
        (
            ["RUN", "photos", "--tile", "200", "--opts", "TEST.TILES.SIZE", "(256,256)"],
            "--tile sets TEST.TILES.SIZE, which the KEY VALUE pairs set too",
        ),
        (["RUN", "photos", "--device", "tpu"], "--device is 'tpu'"),
        (["RUN", "photos", "--resume", "--overwrite"], "pass one of them"),
        (["RUN", "photos", "--show"], "--show needs a display, and there is none"),
        (["--config-file", "RUN/config.yaml", "photos"], "--weights is missing"),
        (
            ["RUN", "photos", "--opts", "MODEL.RETINANET.NUM_CLASSES", "5"],
            "does not fit the model: .* number of classes",
        ),
    ],
)
def test_a_mistake_is_one_sentence(words, says, run, photos, capsys, monkeypatch):
    import re

    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    words = [word.replace("RUN", str(run)) for word in words]
    assert main(["predict", "--output", "out", *words]) == 2
    err = capsys.readouterr().err
    assert re.search(says, err) and err.count("\n") == 1, err
    assert not Path("out/predictions.jsonl").exists()


def test_classes_that_name_none_keep_not_all(run, photos, capsys):
    with pytest.raises(SystemExit) as exit_:  # as by an empty variable of a shell
        main(["predict", str(run), "photos", "--output", "out", "--classes", ""])
    assert exit_.value.code == 2 and "names no class" in capsys.readouterr().err


def test_an_unknown_option_is_refused(run, photos, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["predict", str(run), "photos", "--outputs", "x", "--unknown"])
    assert exit_.value.code == 2 and "unrecognized arguments" in capsys.readouterr().err
