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
from retinanet_ext.data.register import load_class_names, register_builtin_datasets
from retinanet_ext.engine.setup import build_cfg, default_argument_parser, setup
from tests.data.four_formats import FORMATS, Picture, some_pictures, write
from tests.tiny import SETTINGS, restored_loggers

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


@pytest.mark.slow
def test_the_four_formats_train_alike(config_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sets = {"train": coloured(4, 1), "val": coloured(2, 2)}
    lines = {}
    for kind in FORMATS:
        words = ["--config-file", str(config_file)]
        for split, pictures in sets.items():
            root = tmp_path / kind / split
            words += [f"--{split}", write(kind, root, pictures, NAMES)]
            draw(root, pictures)
        opts = ["TEST.DETECTIONS_PER_IMAGE", "1000", "MODEL.RETINANET.SCORE_THRESH_TEST", "0.0"]
        with restored_loggers():
            train_net.run([*words, *opts, "OUTPUT_DIR", f"output_{kind}"])
        metrics = (tmp_path / f"output_{kind}" / "metrics.json").read_text().splitlines()
        lines[kind] = {
            key: value
            for line in metrics
            for key, value in json.loads(line).items()
            if key.startswith(("bbox/A", "loss", "total_loss"))
        }
    first = lines["coco"]
    assert first["loss_box_reg"] > 0 and "bbox/AP-bee" in first and first["bbox/AR100"] > 0
    for kind in FORMATS:
        assert lines[kind] == pytest.approx(first, nan_ok=True), kind
