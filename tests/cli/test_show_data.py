"""show-data writes the training samples of a config to one picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from detectron2.modeling import build_model
from PIL import Image

from retinanet_ext.cli import main
from retinanet_ext.cli.see.show_data import AnchorMaker
from retinanet_ext.data.datasets.register import register_builtin_datasets
from retinanet_ext.visualization.draw_sample import draw_sample
from retinanet_ext.visualization.palette import class_color
from tests.helpers.tiny import SETTINGS, restored_loggers, tiny_cfg, write_config, write_dataset


@pytest.fixture(autouse=True)
def undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A cache of the test's own; logging and the built-in datasets' folder are undone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with restored_loggers():
        yield
    register_builtin_datasets()


def config_file(folder: Path, **input_keys) -> str:
    path = folder / "aug.yaml"
    settings = {**SETTINGS, "INPUT": {**SETTINGS["INPUT"], **input_keys}}
    path.write_text(yaml.safe_dump(settings))
    return str(path)


def test_a_sheet_is_written_with_boxes_and_anchors(tmp_path: Path, tiny_root: Path, capsys):
    aug = [{"NAME": "Mosaic", "PROB": 1, "SIZE": [64, 96]}, "Default", "RandomBrightness"]
    arguments = ["show-data", "--config-file", config_file(tmp_path, AUG=aug)]
    arguments += ["--data-root", str(tiny_root), "--num", "3"]
    sheets = []
    for name, more in (("a", []), ("b", []), ("c", ["--seed", "1"]), ("d", ["--anchors"])):
        output = tmp_path / "new" / f"{name}.png"
        assert main([*arguments, "--output", str(output), *more]) == 0
        sheets.append(np.asarray(Image.open(output)))
    assert "3 samples of bccd_train" in capsys.readouterr().out
    assert np.array_equal(sheets[0], sheets[1])  # the same seed
    assert sheets[0].shape != sheets[2].shape or (sheets[0] != sheets[2]).any()
    assert (sheets[0] != sheets[3]).any()


def test_own_annotations_are_shown(tmp_path: Path, tiny_root: Path, capsys):
    folder = tiny_root / "bccd"
    flag = f"{folder / 'annotations' / 'instances_val.json'}:{folder / 'val'}"
    output = tmp_path / "own.png"
    command = ["show-data", "--config-file", config_file(tmp_path), "--train", flag]
    assert main([*command, "--output", str(output)]) == 0
    assert "samples of custom_train" in capsys.readouterr().out
    assert Image.open(output).width > 1000


def test_a_bad_picture_is_named_and_the_others_are_drawn(tmp_path: Path, capsys):
    root = write_dataset(tmp_path / "data")
    bad = root / "bccd" / "train" / "003.png"
    bad.write_bytes(bad.read_bytes()[:40])
    output = tmp_path / "a.png"
    command = ["show-data", "--config-file", config_file(tmp_path), "--output", str(output)]
    command += ["--data-root", str(root)]
    assert main([*command, "--num", "12"]) == 0
    out, err = capsys.readouterr()
    assert "11 samples of bccd_train" in out and output.is_file()
    (line,) = err.splitlines()
    assert "003.png" in line and "left out" in line
    output.unlink()
    for path in bad.parent.iterdir():
        path.write_bytes(b"")
    assert main([*command, "--num", "2"]) == 2
    assert not output.exists() and ".png" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "more,words",
    [
        (["--dataset", "bccd_trian"], "Did you mean 'bccd_train'?"),
        (["--output", "sheet.txt"], "no kind of picture"),
        (["--seed", "-1"], "--seed must be in"),
        (["--classes", "x"], "--classes goes with --train"),
    ],
)
def test_mistakes_are_one_line(more: list, words: str, tmp_path: Path, tiny_root: Path, capsys):
    command = ["show-data", "--config-file", str(write_config(tmp_path)), "--output", "a.png"]
    assert main([*command, "--data-root", str(tiny_root), *more]) == 2
    assert words in capsys.readouterr().err


def test_anchors_are_those_of_the_model(tmp_path: Path):
    cfg = tiny_cfg(tmp_path)
    model = build_model(cfg)
    made = AnchorMaker(cfg)(70, 131)
    image = model.preprocess_image([{"image": model.pixel_mean.new_zeros(3, 70, 131)}])
    features = model.backbone(image.tensor)
    expected = model.anchor_generator([features[name] for name in model.head_in_features])
    assert [x.tensor.tolist() for x in made] == [x.tensor.tolist() for x in expected]
    cfg.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
    with pytest.raises(ValueError, match="--anchors needs a RetinaNet"):
        AnchorMaker(cfg)


def test_drawing_shows_boxes_regions_and_anchors_in_their_places():
    image = np.full((100, 200, 3), 120, dtype=np.uint8)
    nothing = np.zeros((0, 4))
    drawn = draw_sample(image, np.array([[10, 20, 60, 80]]), [1], nothing)
    assert tuple(drawn[20, 30]) == class_color(1) and tuple(drawn[50, 30]) == (120, 120, 120)
    labelled = draw_sample(image, np.array([[10, 20, 60, 80]]), [1], nothing, ["cat", "dog"])
    assert (labelled != drawn).any()
    region = draw_sample(image, nothing, [], np.array([[100, 10, 190, 90]]), height=200)
    rows, columns = np.nonzero((region != 120).any(axis=2))
    assert region.shape == (200, 400, 3)
    assert (columns.min(), rows.min()) == pytest.approx((200, 20), abs=2)
    assert (columns.max(), rows.max()) == pytest.approx((380, 180), abs=2)
    assert (region[60:140, 240:340] != 120).any(axis=2).mean() > 0.1  # hatched within
    anchors = draw_sample(image, nothing, [], nothing, None, np.array([[30, 30, 90, 70.0]]), [0])
    assert (anchors[30, 30:91] != 120).any(axis=1).all() and (anchors[31, 40] == 120).all()
