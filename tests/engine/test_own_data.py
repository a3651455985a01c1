"""--train and --val from the command line to a trained model, in every format."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path

import pytest
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image, ImageDraw

import train_net
from retinanet_ext import get_cfg, load_config_file
from retinanet_ext.data.datasets.register import load_class_names, register_builtin_datasets
from retinanet_ext.engine.setup import build_cfg, default_argument_parser, setup
from tests.helpers.four_formats import FORMATS, Picture, pictures_of_coco, some_pictures, write
from tests.helpers.tiny import SETTINGS, restored_loggers

NAMES = ["ant", "bee", "cat"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """A cache folder of the test's own; no names left in the catalogs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield
    for catalog in (DatasetCatalog, MetadataCatalog):
        for name in ("custom_train", "custom_val"):
            if name in catalog:
                catalog.pop(name)
    register_builtin_datasets()


@pytest.fixture
def config_file(tmp_path):
    """The tiny config, which says nothing of datasets and classes."""
    settings = copy.deepcopy({k: v for k, v in SETTINGS.items() if k != "DATASETS"})
    del settings["MODEL"]["RETINANET"]["NUM_CLASSES"]
    settings["MODEL"]["RESNETS"]["NORM"] = settings["MODEL"]["FPN"]["NORM"] = "BN"  # no weights
    settings["SOLVER"].update(MAX_ITER=2, IMS_PER_BATCH=2)
    settings["OUTPUT_DIR"] = str(tmp_path / "output")
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture
def arguments(config_file):
    def parse(*words):
        return default_argument_parser().parse_args(["--config-file", str(config_file), *words])

    return parse


def data(tmp_path, kind="csv", names=NAMES):
    return write(kind, tmp_path / f"data_{kind}", some_pictures(), list(names))


def test_the_number_of_classes_comes_from_the_data(arguments, tmp_path):
    cfg = setup(arguments("--dry-run", "--train", data(tmp_path)))
    assert cfg.MODEL.RETINANET.NUM_CLASSES == 3
    assert load_class_names("custom_train") == load_class_names("custom_val") == NAMES


@pytest.mark.parametrize("number", ["80", "2"])  # 80 is the default, and here somebody's wish
def test_a_number_of_classes_that_someone_set_is_compared(arguments, tmp_path, number):
    words = rf"NUM_CLASSES is {number} but dataset 'custom_train' has 3 classes \(ant, bee, cat\)"
    with pytest.raises(ValueError, match=words):
        setup(
            arguments("--dry-run", "--train", data(tmp_path), "MODEL.RETINANET.NUM_CLASSES", number)
        )
    assert setup(
        arguments("--dry-run", "--train", data(tmp_path, "voc"), "MODEL.RETINANET.NUM_CLASSES", "3")
    )


def test_a_number_in_a_base_file_was_set_too(arguments, tmp_path, config_file):
    base = tmp_path / "base.yaml"
    config_file.rename(base)
    base.write_text(base.read_text().replace("NUM_CONVS: 1", "NUM_CLASSES: 80"))
    config_file.write_text("_BASE_: base.yaml\n")
    with pytest.raises(ValueError, match="NUM_CLASSES is 80 but"):
        setup(arguments("--dry-run", "--train", data(tmp_path)))


def test_a_saved_config_repeats_the_run_without_flags(arguments, tmp_path):
    first = setup(arguments("--train", data(tmp_path), "DATASETS.DROP_CLASSES", "['bee']"))
    before = DatasetCatalog.get("custom_val")
    again = get_cfg()
    load_config_file(again, tmp_path / "output" / "config.yaml")
    assert again.MODEL.RETINANET.NUM_CLASSES == 2
    words = ["--config-file", str(tmp_path / "output" / "config.yaml"), "--dry-run"]
    cfg = setup(default_argument_parser().parse_args(words))
    assert cfg.DATASETS == first.DATASETS
    assert DatasetCatalog.get("custom_val") == before
    assert load_class_names("custom_val") == ["ant", "cat"]


def test_evaluation_alone_needs_no_training_flag(arguments, tmp_path):
    weights = tmp_path / "model.pth"
    weights.write_bytes(b"weights")
    words = ["--eval-only", "--val", data(tmp_path, "coco"), "MODEL.WEIGHTS", str(weights)]
    gone = ["DATASETS.EXTRA", "[{'NAME': 'gone', 'ANNOTATIONS': '/gone'}]"]
    cfg = setup(arguments(*words, "DATASETS.TRAIN", "('gone',)", *gone))
    assert cfg.MODEL.RETINANET.NUM_CLASSES == 3 and cfg.DATASETS.TEST == ("custom_val",)


def test_without_datasets_by_path_nothing_changes(arguments):
    cfg = build_cfg(arguments())
    assert cfg.MODEL.RETINANET.NUM_CLASSES == 80 and cfg.DATASETS.EXTRA == []


def test_mistakes_in_the_data_end_with_one_sentence(config_file, tmp_path, capsys):
    flag = data(tmp_path)
    lines = Path(flag).read_text() + "pictures/p00.png,1,2,x,4,ant\n"
    Path(flag).write_text(lines)
    words = ["--config-file", str(config_file), "--train", flag]
    with pytest.raises(SystemExit) as exit_info:
        train_net.run(words)
    errors = capsys.readouterr().err
    assert exit_info.value.code == 2
    assert f"boxes.csv, line {len(lines.splitlines())}: x2 is 'x'" in errors
    assert [line[:7] for line in errors.splitlines()] == ["error: "]


def coloured(count, seed) -> list[Picture]:
    rng, pictures = random.Random(seed), []
    for i in range(count):
        picture = Picture(f"p{seed}{i}.png", 64, 64)
        for label in NAMES:
            x, y = rng.randint(0, 30), rng.randint(0, 30)
            picture.boxes.append((label, x, y, x + rng.randint(15, 30), y + rng.randint(15, 30)))
        pictures.append(picture)
    return pictures


def draw(root, pictures):
    for p in pictures:
        path = next(root.rglob(p.name))
        image = Image.new("RGB", (p.width, p.height), "gray")
        for label, *box in p.boxes:
            colour = dict(zip(NAMES, ("red", "green", "blue"), strict=True))[label]
            ImageDraw.Draw(image).rectangle(box, fill=colour)
        image.save(path)


def train_each(config_file, roots, *opts):
    """Train by one command per format; return its losses and metrics, and the dataset dicts.

    Args:
        roots: format -> what --train and --val name.
    """
    opts = ("TEST.DETECTIONS_PER_IMAGE", "1000", *opts)
    opts = ("MODEL.RETINANET.SCORE_THRESH_TEST", "0.0", *opts)
    lines, dicts = {}, {}
    for kind, flags in roots.items():
        words = ["--config-file", str(config_file)]
        words += [word for split, flag in flags.items() for word in (f"--{split}", flag)]
        with restored_loggers():
            train_net.run([*words, *opts, "OUTPUT_DIR", f"output_{kind}"])
        lines[kind] = {
            key: value
            for line in Path(f"output_{kind}", "metrics.json").read_text().splitlines()
            for key, value in json.loads(line).items()
            if key.startswith(("bbox/A", "loss", "total_loss"))
        }
        dicts[kind] = [record for split in flags for record in dicts_of(f"custom_{split}")]
    return lines, dicts


def dicts_of(name):
    """Dataset dicts without the folder of the images, the one thing in which formats differ."""
    return [
        {**record, "file_name": Path(record["file_name"]).name}
        for record in DatasetCatalog.get(name)
    ]


def assert_alike(lines, dicts):
    assert list(lines) == list(FORMATS)
    for kind in FORMATS:
        assert dicts[kind] == dicts["coco"], kind
        assert lines[kind] == pytest.approx(lines["coco"], nan_ok=True), kind


@pytest.mark.slow
def test_the_four_formats_train_alike(config_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    roots = {kind: {} for kind in FORMATS}
    for split, pictures in {"train": coloured(4, 1), "val": coloured(2, 2)}.items():
        for kind in FORMATS:
            roots[kind][split] = write(kind, tmp_path / kind / split, pictures, NAMES)
            draw(tmp_path / kind / split, pictures)
    lines, dicts = train_each(config_file, roots)
    assert lines["coco"]["loss_box_reg"] > 0 and lines["coco"]["bbox/AR100"] > 0
    assert "bbox/AP-bee" in lines["coco"]
    assert_alike(lines, dicts)


@pytest.mark.slow
def test_real_pictures_in_four_formats_train_alike(
    config_file, tmp_path, monkeypatch, shared_datasets
):
    monkeypatch.chdir(tmp_path)
    names = ["Platelets", "RBC", "WBC"]
    roots = {kind: {} for kind in FORMATS}
    for split, count in {"train": 12, "val": 6}.items():
        annotations = shared_datasets / "bccd" / "annotations" / f"instances_{split}.json"
        pictures = pictures_of_coco(annotations, count)
        folder = tmp_path / f"pictures_{split}"  # of these alone: YOLO takes what is in a folder
        folder.mkdir()
        for picture in pictures:
            (folder / picture.name).symlink_to(shared_datasets / "bccd" / split / picture.name)
        for kind in FORMATS:
            root = tmp_path / kind / split
            roots[kind][split] = write(kind, root, pictures, names, folder)
    lines, dicts = train_each(config_file, roots, "SOLVER.MAX_ITER", "3")
    assert len(dicts["coco"]) == 18 and sum(len(x["annotations"]) for x in dicts["coco"]) > 150
    assert lines["coco"]["loss_box_reg"] > 0 and lines["coco"]["bbox/AR100"] > 0
    assert {f"bbox/AP-{name}" for name in names} <= set(lines["coco"])
    assert_alike(lines, dicts)
