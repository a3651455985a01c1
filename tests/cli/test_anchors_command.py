"""``retinanet-ext anchors``: numbers, picture and yaml from a config and a dataset."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from retinanet_ext import get_cfg
from retinanet_ext.anchor_tools.fit import IOU_TOLERANCE
from retinanet_ext.anchor_tools.levels import anchor_levels
from retinanet_ext.cli import main
from retinanet_ext.config import load_config_file, validate_cfg
from tests.helpers.broken import good_content, write

needs_scipy = pytest.mark.skipif(
    importlib.util.find_spec("scipy") is None, reason="the search is SciPy's"
)

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


pytestmark = pytest.mark.usefixtures("cache_dir", "clean_catalogs")


@pytest.fixture
def config(tmp_path: Path) -> str:
    """Images of 96 x 64 at their own size, and all of them for training."""
    text = {
        "_BASE_": str(CONFIGS / "Base-R_18_FPN-scratch.yaml"),
        "INPUT": {"MIN_SIZE_TRAIN": [64], "MAX_SIZE_TRAIN": 1000},
        "DATASETS": {"TRAIN": [], "VAL_FRACTION": 0.0},
    }
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(text))
    return str(path)


@pytest.fixture
def tall(tmp_path: Path) -> str:
    """A COCO json of objects 12 x 60, centred on locations of the first level (OFFSET 0)."""
    content = good_content()
    for i, annotation in enumerate(content["annotations"]):
        annotation["bbox"] = [10.0 + 48 * (i % 2), 2.0, 12.0, 60.0]
    return ":".join(map(str, write(tmp_path, content)))


def anchors(*words: str) -> int:
    return main(["anchors", *words])


def test_show_writes_numbers_and_picture(config, tall, tmp_path, capsys):
    numbers, picture = tmp_path / "n.json", tmp_path / "p.png"
    files = ("--json", str(numbers), "--picture", str(picture))
    assert anchors("show", "--config-file", config, "--train", tall, *files) == 0
    out = capsys.readouterr().out
    assert "8 boxes in 4 views" in out and "cat" in out and "p7" in out
    report = json.loads(numbers.read_text())
    assert report["all"]["recall"]["0.5"] == 0 and report["matches"]["low_quality_only"] == 1
    assert report["matches"]["unmatched"] == 0
    assert np.asarray(Image.open(picture)).ndim == 3


def test_no_picture_where_all_is_covered(config, tmp_path, capsys):
    content = good_content()
    for annotation in content["annotations"]:
        annotation["bbox"] = [20.0, 16.0, 24.0, 24.0]
    train = ":".join(map(str, write(tmp_path, content)))
    picture = tmp_path / "p.png"
    words = ("--train", train, "--picture", str(picture))
    assert anchors("show", "--config-file", config, *words) == 0
    assert "is not written: some anchor covers every object" in capsys.readouterr().out
    assert not picture.exists()


def test_samples_see_the_augmentations(config, tall, capsys):
    words = ("show", "--config-file", config, "--train", tall, "--samples", "5")
    assert anchors(*words) == 0
    first = capsys.readouterr().out
    assert "in 5 views" in first
    assert anchors(*words) == 0
    assert capsys.readouterr().out == first


def test_shapes_by_kmeans_are_written_as_cell_anchors(config, tall, tmp_path, capsys):
    output = tmp_path / "shapes.yaml"
    words = ("optimise", "--config-file", config, "--train", tall, "--method", "kmeans-shape")
    assert anchors(*words, "--shapes", "1", "--output", str(output)) == 2
    assert "5 shapes are asked for, but the objects have 1" in capsys.readouterr().err
    content = json.loads(Path(tall.split(":")[0]).read_text())
    for i, annotation in enumerate(content["annotations"]):
        annotation["bbox"] = [10.0, 2.0, 12.0 + i, 60.0 - 2 * i]
    Path(tall.split(":")[0]).write_text(json.dumps(content))
    assert anchors(*words, "--shapes", "1", "--output", str(output)) == 0
    assert "mean best IoU of shapes" in capsys.readouterr().out
    cfg = get_cfg()
    load_config_file(cfg, output)
    validate_cfg(cfg)
    levels, _ = anchor_levels(cfg)
    areas = [float((x.cells[0, 2:] * 2).prod()) for x in levels]
    assert [len(x.cells) for x in levels] == [1] * 5 and areas == sorted(areas)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--method", "kmeans-shape", "--ratios", "2"), "--ratios is not read.*--shapes"),
        (("--shapes", "2"), "--shapes is not read.*kmeans-shape"),
    ],
)
def test_numbers_that_the_method_does_not_read_are_refused(config, tall, words, message, capsys):
    assert anchors("optimise", "--config-file", config, "--train", tall, *words) == 2
    assert re.search(message, capsys.readouterr().err)


@needs_scipy
def test_optimise_starts_from_a_shipped_config_by_name(tall, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("--train", tall, "--method", "kmeans", "--ratios", "2", "--output", "better.yaml")
    assert anchors("optimise", "--config-file", "quickstart.yaml", *words) == 0
    cfg = get_cfg()
    load_config_file(cfg, "better.yaml")
    assert cfg.OUTPUT_DIR == "output/quickstart"
    assert len(cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS[0]) == 2


@needs_scipy
def test_optimise_writes_a_config_that_loads_and_covers_more(config, tall, tmp_path, capsys):
    output = tmp_path / "better.yaml"
    words = ("optimise", "--config-file", config, "--train", tall, "--method", "kmeans")
    assert anchors(*words, "--ratios", "2", "--output", str(output)) == 0
    printed = capsys.readouterr().out
    assert "recall 0.00%" in printed and "recall 100.00%" in printed
    cfg = get_cfg()
    load_config_file(cfg, output)
    validate_cfg(cfg)
    node = cfg.MODEL.ANCHOR_GENERATOR
    snippet = yaml.safe_load(printed.split("\n\n")[1])["MODEL"]["ANCHOR_GENERATOR"]
    assert {key: node[key] for key in snippet} == snippet
    assert len(node.ASPECT_RATIOS[0]) == 2 and cfg.INPUT.MIN_SIZE_TRAIN == (64,)
    assert [len(x.cells) for x in anchor_levels(cfg)[0]] == [6] * 5
    report = tmp_path / "r.json"
    show = ("show", "--config-file", str(output), "--train", tall, "--json", str(report))
    assert anchors(*show) == 0
    assert json.loads(report.read_text())["all"]["recall"]["0.5"] == 1


@needs_scipy
def test_sizes_of_another_generator_do_not_contradict(tall, tmp_path, capsys):
    text = {
        "_BASE_": str(CONFIGS / "Base-R_18_FPN-scratch.yaml"),
        "MODEL": {
            "ANCHOR_GENERATOR": {
                "NAME": "DefaultAnchorGenerator",
                "SIZES": [[16.0], [32.0], [64.0], [128.0], [256.0]],
                "OCTAVE_BASE_SIZES": [32.0, 64.0, 128.0, 256.0, 512.0],
            }
        },
        "INPUT": {"MIN_SIZE_TRAIN": [64]},
        "DATASETS": {"VAL_FRACTION": 0.0},
    }
    config, output = tmp_path / "d.yaml", tmp_path / "o.yaml"
    config.write_text(yaml.safe_dump(text))
    words = ("--config-file", str(config), "--train", tall, "--output", str(output))
    assert anchors("optimise", *words, "--method", "kmeans") == 0
    cfg = get_cfg()
    load_config_file(cfg, output)
    validate_cfg(cfg)
    assert [len(x.cells) for x in anchor_levels(cfg)[0]] == [3] * 5


def test_mistakes_are_one_line(config, tall, tmp_path, capsys):
    def error(action: str, *words: str) -> str:
        assert anchors(action, "--config-file", config, *words) == 2
        return capsys.readouterr().err

    assert "has no DATASETS.TRAIN; give --train or --dataset" in error("show")
    assert "dataset 'bcd_train' is not registered. Did you mean 'bccd_train'?" in error(
        "show", "--dataset", "bcd_train"
    )
    assert "no kind of picture" in error("show", "--train", tall, "--picture", "p.txt")
    assert "no folder for" in error("show", "--train", tall, "--json", str(tmp_path / "a" / "b"))
    assert "--samples is -1" in error("show", "--train", tall, "--samples", "-1")
    assert "exists; name another file or pass --force" in error(
        "optimise", "--train", tall, "--output", config
    )
    assert "--output is --config-file" in error(
        "optimise", "--train", tall, "--output", config, "--force"
    )


@needs_scipy
def test_real_blood_cells_keep_their_anchors_and_are_covered_better_with_more(
    shared_datasets, tmp_path, capsys
):
    data = str(shared_datasets / "bccd" / "annotations" / "instances_train.json")
    train = f"{data}:{shared_datasets / 'bccd' / 'train'}"
    config = str(CONFIGS / "bccd_R_18_FPN.yaml")
    found = {}
    output = tmp_path / "better.yaml"
    words = ("--train", train, "--method", "kmeans", "--output", str(output))
    assert anchors("optimise", "--config-file", config, *words) == 0
    assert "keep yours" in capsys.readouterr().out and not output.exists()
    assert anchors("optimise", "--config-file", config, *words, "--ratios", "4") == 0
    for name, file in (("before", config), ("after", str(output))):
        report = tmp_path / "r.json"
        words = ("--train", train, "--json", str(report), "--num-images", "2")
        assert anchors("show", "--config-file", file, *words) == 0
        found[name] = json.loads(report.read_text())
    before, after = found["before"], found["after"]
    assert after["all"]["recall"]["0.5"] > before["all"]["recall"]["0.5"]
    assert after["all"]["mean_best_iou"] > before["all"]["mean_best_iou"]
    for size, old in before["by_size"].items():
        assert after["by_size"][size]["mean_best_iou"] > old["mean_best_iou"] - IOU_TOLERANCE
