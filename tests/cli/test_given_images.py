"""``draw-detections --images``: which files, under which class names, on the picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image

from retinanet_ext.cli import main
from retinanet_ext.cli.options.given_images import list_images
from retinanet_ext.inference.class_names import class_names_of
from tests.helpers.four_formats import some_pictures, write
from tests.helpers.tiny import tiny_cfg

pytestmark = pytest.mark.usefixtures("clean_catalogs")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images, a text file, and a folder with one more image."""
    folder = tmp_path / "new"
    (folder / "deeper").mkdir(parents=True)
    for name in ("b.PNG", "a.jpg", "deeper/c.png"):
        Image.new("RGB", (80, 64), (200, 60, 20)).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


def own_cfg(tmp_path: Path, num_classes: int = 3):
    cfg = tiny_cfg(NUM_CLASSES=num_classes)
    flag = write("voc", tmp_path / "voc", some_pictures(), ["ant", "bee", "cat"])
    cfg.DATASETS.EXTRA = [{"NAME": "own", "ANNOTATIONS": flag}]
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("own",), ()
    cfg.DATASETS.CACHE_DIR = "none"
    return cfg


def test_folders_give_their_images_and_files_themselves(folder):
    a, b, c = (str(folder / name) for name in ("a.jpg", "b.PNG", "deeper/c.png"))
    assert list_images([str(folder)]) == [a, b]
    assert list_images([c, str(folder), a]) == [c, a, b]


def test_missing_paths_and_empty_folders_are_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"'.*gone\.png'"):
        list_images([str(folder), str(tmp_path / "gone.png")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty', a folder without images"):
        list_images([str(tmp_path / "empty")])


def test_class_names_are_those_of_the_dataset(tmp_path, capsys):
    assert class_names_of(own_cfg(tmp_path)) == ["ant", "bee", "cat"]
    assert capsys.readouterr().out == ""


def test_class_names_of_the_checkpoint_come_first(tmp_path):
    cfg = own_cfg(tmp_path)
    cfg.MODEL.WEIGHTS = str(tmp_path / "model.pth")
    torch.save({"model": {}, "thing_classes": ["dee", "eel", "fly"]}, cfg.MODEL.WEIGHTS)
    assert class_names_of(cfg) == ["dee", "eel", "fly"]


def test_class_names_may_be_in_the_config(tmp_path):
    cfg = own_cfg(tmp_path)
    cfg.DATASETS.EXTRA = []
    cfg.DATASETS.CLASSES = ["x", "y", "z"]
    assert class_names_of(cfg) == ["x", "y", "z"]


@pytest.mark.parametrize("num_classes, path", [(3, "gone"), (2, "voc")])
def test_classes_that_nobody_names_are_numbered(tmp_path, capsys, num_classes, path):
    cfg = own_cfg(tmp_path, num_classes)
    cfg.DATASETS.EXTRA = [{"NAME": "own", "ANNOTATIONS": str(tmp_path / path)}]
    assert class_names_of(cfg) == ["class 0", "class 1", "class 2"][:num_classes]
    assert "DATASETS.CLASSES" in capsys.readouterr().out


def test_images_without_annotations_are_drawn(folder, tmp_path, capsys, monkeypatch):
    cfg = own_cfg(tmp_path)
    cfg.MODEL.WEIGHTS, cfg.INPUT.MIN_SIZE_TEST = "", 64
    (tmp_path / "config.yaml").write_text(cfg.dump())
    model = build_model(cfg)
    model.head.cls_score.weight.data.zero_()
    model.head.cls_score.bias.data.fill_(2.0)  # every score is 0.88
    torch.save({"model": model.state_dict()}, tmp_path / "model.pth")
    words = ["--config-file", str(tmp_path / "config.yaml"), "--weights"]
    words += [str(tmp_path / "model.pth"), "--output", str(tmp_path / "p.png")]
    assert main(["draw-detections", *words, "--images", str(folder)]) == 0
    printed = capsys.readouterr().out.splitlines()[-1]
    assert printed.endswith("detections on 2 images of 2 given")
    assert int(printed.split(": ")[1].split()[0]) > 0
    picture = np.asarray(Image.open(tmp_path / "p.png"))
    assert (picture == (200, 60, 20)).all(axis=2).any()
    (folder / "c.jpg").write_bytes(b"no picture")
    assert main(["draw-detections", *words, "--images", str(folder)]) == 0  # the others are drawn
    out, err = capsys.readouterr()
    assert out.splitlines()[-1].endswith("detections on 2 images of 3 given")
    assert f"cannot load {folder / 'c.jpg'}" in err and "Traceback" not in err
    named = [str(folder / "a.jpg"), str(folder / "c.jpg")]
    assert main(["draw-detections", *words, "--images", *named]) == 1  # one that was asked for
    assert "on 1 image of 2 given" in capsys.readouterr().out
    assert main(["draw-detections", *words, "--images", named[1]]) == 2
    assert "c.jpg" in capsys.readouterr().err
    assert main(["draw-detections", *words, "--images", str(tmp_path / "gone")]) == 2
    assert "gone" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["draw-detections", *words])
    assert "--dataset --images" in capsys.readouterr().err
