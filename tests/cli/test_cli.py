"""The command line: dispatch, one-line errors, and pictures of what a model finds."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from detectron2.structures import BoxMode
from PIL import Image

from retinanet_ext.cli import main
from retinanet_ext.cli.see.pictures import pick_images
from retinanet_ext.data.datasets.register import register_builtin_datasets
from tests.helpers.tiny import tiny_cfg


@pytest.fixture(scope="module")
def model_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Config and weights of a tiny, untrained detector of two classes."""
    folder = tmp_path_factory.mktemp("model")
    keys = {"DATASETS.TRAIN": ("test_cli_train",), "INPUT.MIN_SIZE_TEST": 64}
    cfg = tiny_cfg(keys={**keys, "MODEL.WEIGHTS": ""}, NUM_CLASSES=2, SCORE_THRESH_TEST=0.3)
    (folder / "config.yaml").write_text(cfg.dump())
    torch.manual_seed(0)
    model = build_model(cfg)
    model.head.cls_score.weight.data.zero_()
    model.head.cls_score.bias.data.fill_(torch.tensor(0.4).logit())  # every score is 0.4
    torch.save({"model": model.state_dict()}, folder / "model.pth")
    return str(folder / "config.yaml"), str(folder / "model.pth")


@pytest.fixture
def dataset(tmp_path: Path) -> Iterator[str]:
    """Three small images, the second without objects."""
    name = f"test_cli_{uuid.uuid4().hex}"
    box = {"bbox": [8, 8, 30, 20], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 1}
    dicts = []
    for i in range(3):
        path = tmp_path / f"{i}.png"
        pixels = np.random.default_rng(i).integers(0, 256, (64, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        record = {"file_name": str(path), "image_id": i, "height": 64, "width": 80}
        dicts.append({**record, "annotations": [] if i == 1 else [dict(box)]})
    DatasetCatalog.register(name, lambda: dicts)
    MetadataCatalog.get(name).thing_classes = ["disc", "bar"]
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def draw(model_files: tuple[str, str], dataset: str, output: Path, *more: str) -> int:
    config, weights = model_files
    words = ["--config-file", config, "--weights", weights, "--dataset", dataset]
    return main(["draw-detections", *words, "--output", str(output), *more])


def test_draws_a_picture_and_says_where(model_files, dataset, tmp_path, capsys):
    output = tmp_path / "new" / "picture.png"
    assert draw(model_files, dataset, output, "--num", "2", "--score-thresh", "0") == 0
    out = capsys.readouterr().out
    assert str(output) in out and "on 2 images" in out
    picture = np.asarray(Image.open(output))
    assert picture.ndim == 3 and picture.shape[1] > 1000


def test_picture_is_the_same_every_time(model_files, dataset, tmp_path):
    for name in ("a.png", "b.png"):
        assert draw(model_files, dataset, tmp_path / name, "--score-thresh", "0") == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("own_threshold", ["0.1", "0.9"])
def test_score_threshold_chooses_whatever_the_models_own(
    model_files, dataset, tmp_path, capsys, own_threshold
):
    config = tmp_path / "config.yaml"
    text = Path(model_files[0]).read_text()
    config.write_text(text.replace("SCORE_THRESH_TEST: 0.3", f"SCORE_THRESH_TEST: {own_threshold}"))
    counts = []
    for thresh in ("0.35", "0.45"):  # every score is 0.4
        output = tmp_path / "p.png"
        assert draw((str(config), model_files[1]), dataset, output, "--score-thresh", thresh) == 0
        counts.append(int(capsys.readouterr().out.split(": ")[-1].split()[0]))
    assert counts[0] > counts[1] == 0


def test_where_nothing_is_found_the_best_score_is_told(model_files, dataset, tmp_path, capsys):
    assert draw(model_files, dataset, tmp_path / "p.png", "--score-thresh", "0.45") == 0
    assert "nothing found with a score from 0.45: the best score is 0.4" in capsys.readouterr().out
    assert draw(model_files, dataset, tmp_path / "p.png", "--score-thresh", "0.35") == 0
    assert "nothing found" not in capsys.readouterr().out


def test_colors_of_the_images_are_kept(model_files, dataset, tmp_path):
    for record in DatasetCatalog.get(dataset):
        Image.new("RGB", (80, 64), (200, 60, 20)).save(record["file_name"])
    assert draw(model_files, dataset, tmp_path / "p.png") == 0
    picture = np.asarray(Image.open(tmp_path / "p.png"))
    assert (picture == (200, 60, 20)).all(axis=2).mean() > 0.5


def test_jpg_is_written_too(model_files, dataset, tmp_path):
    assert draw(model_files, dataset, tmp_path / "picture.jpg") == 0
    assert Image.open(tmp_path / "picture.jpg").format == "JPEG"


@pytest.mark.parametrize(
    "num_objects,num,expected",
    [
        ([1, 1, 1, 1, 1, 1], 2, [1, 4]),  # spread, not the first ones
        ([0, 0, 3, 0, 2, 0], 2, [2, 4]),  # images with objects first
        ([0, 1, 0, 0], 2, [1, 2]),  # filled up with empty ones
        ([1, 0, 1], 9, [0, 1, 2]),  # all there are
        ([0, 0], 1, [1]),
    ],
)
def test_images_are_spread_and_show_objects_first(num_objects, num, expected):
    assert pick_images(num_objects, num) == expected


def test_unknown_dataset_is_named_with_the_nearest(model_files, dataset, tmp_path, capsys):
    assert draw(model_files, dataset + "x", tmp_path / "p.png") == 2
    error = capsys.readouterr().err
    assert f"'{dataset}x'" in error and f"'{dataset}'" in error
    assert len(error.strip().splitlines()) == 1
    assert dataset + "x" not in MetadataCatalog


def test_missing_weights_are_named(model_files, dataset, tmp_path, capsys):
    config = model_files[0]
    assert draw((config, str(tmp_path / "no.pth")), dataset, tmp_path / "p.png") == 2
    error = capsys.readouterr().err
    assert "no.pth" in error and "model_final.pth" in error


def test_missing_config_is_named(model_files, dataset, tmp_path, capsys):
    assert draw((str(tmp_path / "no.yaml"), model_files[1]), dataset, tmp_path / "p.png") == 2
    assert "no.yaml" in capsys.readouterr().err


def test_missing_data_names_the_way_to_them(model_files, tmp_path, capsys):
    more = ("--data-root", str(tmp_path / "nowhere"))
    try:
        assert draw(model_files, "bccd_val", tmp_path / "p.png", *more) == 2
    finally:
        register_builtin_datasets()
    error = capsys.readouterr().err
    assert "nowhere" in error and "--data-root" in error


def test_model_of_another_dataset_is_refused(model_files, dataset, tmp_path, capsys):
    MetadataCatalog.get(dataset).__dict__["thing_classes"] = ["a", "b", "c"]
    assert draw(model_files, dataset, tmp_path / "p.png") == 2
    error = capsys.readouterr().err
    assert "NUM_CLASSES is 2" in error and "3 classes" in error


def test_output_must_be_a_picture(model_files, dataset, tmp_path, capsys):
    assert draw(model_files, dataset, tmp_path / "p.txt") == 2
    assert "p.txt" in capsys.readouterr().err


@pytest.mark.parametrize("by", ["option", "environment"])
def test_debug_shows_the_traceback_before_the_sentence(
    model_files, dataset, tmp_path, capsys, monkeypatch, by
):
    monkeypatch.setenv("RETINANET_EXT_DEBUG", "1" if by == "environment" else "0")
    more = ["--debug"] if by == "option" else []
    assert draw(model_files, dataset, tmp_path / "p.txt", *more) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[0].startswith("Traceback") and "check_picture" in "".join(lines)
    assert lines[-1].startswith("retinanet-ext: error: ") and "p.txt" in lines[-1]


@pytest.mark.parametrize("more", [("--num", "0"), ("--score-thresh", "1.5"), ("--num", "x")])
def test_senseless_numbers_are_refused(model_files, dataset, tmp_path, more, capsys):
    with pytest.raises(SystemExit) as stop:
        draw(model_files, dataset, tmp_path / "p.png", *more)
    assert stop.value.code == 2 and more[0] in capsys.readouterr().err


def test_help_lists_the_commands(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0 and "draw-detections" in capsys.readouterr().out


def test_no_command_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 2 and "COMMAND" in capsys.readouterr().err


def test_module_can_be_run_and_says_how_to_get_a_missing_detectron2():
    root = Path(__file__).resolve().parents[2]
    code = (
        "import sys, runpy; sys.modules['detectron2'] = None; sys.argv = ['retinanet-ext', '-h'];"
        "runpy.run_module('retinanet_ext', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "install_detectron2.py" in done.stderr and "Traceback" not in done.stderr
