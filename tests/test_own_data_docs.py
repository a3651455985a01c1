"""What docs/own-data.md shows as commands and configs works, in the folders that it describes."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from PIL import Image

from retinanet_ext import get_cfg, load_config_file, validate_cfg
from retinanet_ext.cli import main
from retinanet_ext.data.datasets.by_path import register_extra_datasets
from retinanet_ext.data.datasets.register import load_class_names, register_builtin_datasets
from retinanet_ext.data.doctor.findings import CODES as FINDINGS
from retinanet_ext.engine.setup import build_cfg, default_argument_parser
from tests.helpers.four_formats import Picture, some_pictures, write
from tests.helpers.tiny import CLASSES, restored_loggers, write_dataset

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "own-data.md").read_text()
YAML = dict(re.findall(r"^```yaml\n# (\S+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE))
FORMATS = {"COCO": "coco", "Pascal VOC": "voc", "YOLO": "yolo", "CSV": "csv"}
FIVE = ("1. Check", "2. Look", "3. Train", "4. Measure", "5. Draw")

# Appended to the commands, so that they take seconds.
TINY = {
    "2. Look": ["--num", "4"],
    "3. Train": [
        *("SOLVER.EPOCHS", "1", "SOLVER.IMS_PER_BATCH", "2", "DATALOADER.NUM_WORKERS", "0"),
        *("INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64"),
    ],
    "5. Draw": ["--score-thresh", "0"],
    "Train": [
        *("SOLVER.MAX_ITER", "2", "SOLVER.IMS_PER_BATCH", "2", "DATALOADER.NUM_WORKERS", "0"),
        *("INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64", "MODEL.WEIGHTS", ""),
    ],
}
THREE = ("Check", "Train", "Use")


def commands() -> dict[str, list[list[str]]]:
    """The words of each command, by the heading above it."""
    found: dict[str, list[list[str]]] = {}
    for section in re.split(r"^##+ ", PAGE, flags=re.MULTILINE)[1:]:
        heading, _, text = section.partition("\n")
        for block in re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            found.setdefault(heading, []).append(shlex.split(block.replace("\\\n", " ")))
    return found


COMMANDS = commands()


@pytest.fixture(autouse=True)
def traceless(tmp_path, monkeypatch):
    """A cache folder of the test's own; no names left in the catalogs, no log handlers."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with restored_loggers():
        yield
    for catalog in (DatasetCatalog, MetadataCatalog):
        for name in ("custom_train", "custom_val", "cells_train", "cells_val"):
            if name in catalog:
                catalog.pop(name)
    register_builtin_datasets()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the page's commands run in, with its configs; the current one."""
    folder = tmp_path / "work"
    (folder / "cells").mkdir(parents=True)
    for name in ("configs", "train_net.py"):
        (folder / name).symlink_to(ROOT / name)
    for name, text in YAML.items():
        if "/" not in name:
            (folder / name).write_text(text)
    monkeypatch.chdir(folder)
    return folder


def run(heading: str) -> str:
    """Run a section's command in a process of its own; return what it printed."""
    (name,) = [x for x in COMMANDS if x.startswith(heading) or x == heading]
    ((program, *words),) = COMMANDS[name]
    start = ["-m", "retinanet_ext"] if program == "retinanet-ext" else []
    environment = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-W", "ignore", *start, *words, *TINY.get(heading, [])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def write_cells(folder: Path) -> None:
    """Coloured rectangles as ``cells/`` of the page, and two pictures without boxes."""
    tiny = write_dataset(folder / "tiny", num_train=6, num_val=2) / "bccd"
    for where in ("cells/images", "new_pictures"):
        (folder / where).mkdir()
    for split in ("train", "val"):
        content = json.loads((tiny / "annotations" / f"instances_{split}.json").read_text())
        for image in content["images"]:
            name = f"{split}_{image['file_name']}"
            path = shutil.move(tiny / split / image["file_name"], folder / "cells/images" / name)
            if split == "val":
                shutil.copy(path, folder / "new_pictures")
            image["file_name"] = name
        (folder / "cells" / f"{split}.json").write_text(json.dumps(content))


def colours(path: Path) -> int:
    """Number of different colours in a picture that is large enough to look at."""
    picture = np.asarray(Image.open(path).convert("RGB"))
    assert picture.shape[0] > 200 and picture.shape[1] > 1000
    return len(np.unique(picture.reshape(-1, 3), axis=0))


@pytest.mark.slow
def test_the_three_commands_need_no_config(folder):
    write_cells(folder)
    assert "Nothing found." in run("Check")
    trained = run("Train")
    assert "validation: cells/val.json, 2 pictures" in trained
    assert re.search(r"^batch +SOLVER.IMS_PER_BATCH 2.* yours$", trained, re.MULTILINE)
    assert (folder / "output" / "cells" / "recipe.yaml").is_file()
    (line,) = [x for x in trained.splitlines() if x.startswith("use it: ")]
    (words,) = COMMANDS["Use"]
    shown = shlex.split(line.removeprefix("use it: "))
    assert [x if x != "PICTURES" else "new_pictures" for x in shown] == words
    run("Use")
    assert len((folder / "found" / "predictions.jsonl").read_text().splitlines()) == 2


@pytest.mark.slow
def test_the_five_commands_lead_from_a_folder_to_detections(folder):
    write_cells(folder)
    checked = run("1. Check")
    assert "Nothing found." in checked and all(name in checked for name in CLASSES)
    assert "4 samples of custom_train" in run("2. Look")
    assert colours(folder / "samples.png") > 100
    trained = run("3. Train")
    assert re.search(r"of 3 classes \(Platelets \d+, RBC \d+, WBC \d+\)", trained)
    output = folder / "output" / "cells"
    for name in ("config.yaml", "metrics.json", "model_final.pth", "last_checkpoint"):
        assert (output / name).is_file(), name
    before = (output / "model_final.pth").read_bytes()
    assert "AP50" in run("4. Measure")
    assert (output / "model_final.pth").read_bytes() == before
    drawn = run("5. Draw").splitlines()[-1]
    found = re.fullmatch(r"detections\.png: (\d+) detections on 2 images of 2 given", drawn)
    assert found and int(found[1]) > 0
    assert colours(folder / "detections.png") > 100


def labelled(count: int = 6) -> list[Picture]:
    """Pictures with the page's classes; the last one has no objects."""
    new = dict(zip(("ant", "bee", "cat"), CLASSES, strict=True))
    return [
        Picture(p.name, p.width, p.height, [(new[label], *box) for label, *box in p.boxes])
        for p in some_pictures(count)
    ]


def lay_out(kind: str, cells: Path) -> None:
    """Write four pictures to train and two to validate, in the folders of the page."""
    pictures, names = labelled(), list(CLASSES)
    sets = {"train": pictures[:4], "val": pictures[4:]}
    if kind in ("coco", "csv"):
        suffix = {"coco": "json", "csv": "csv"}[kind]
        for split, part in sets.items():
            write(kind, cells, part, names)
            text = (cells / f"boxes.{suffix}").read_text().replace("pictures/", "images/")
            (cells / f"{split}.{suffix}").write_text(text)
        (cells / f"boxes.{suffix}").unlink()
        (cells / "pictures").rename(cells / "images")
        if kind == "csv":
            (cells / "classes.csv").write_text("".join(f"{x},{i}\n" for i, x in enumerate(names)))
        return
    write(kind, cells, pictures, names)
    for split, part in sets.items():
        if kind == "voc":
            (cells / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
            lines = "".join(f"{Path(p.name).stem}\n" for p in part)
            (cells / "ImageSets" / "Main" / f"{split}.txt").write_text(lines)
            continue
        for what in ("images", "labels"):
            (cells / what / split).mkdir()
            for file in [f for p in part for f in (cells / what).glob(f"{Path(p.name).stem}.*")]:
                file.rename(cells / what / split / file.name)
    if kind == "yolo":
        (cells / "data.yaml").write_text(YAML["cells/data.yaml"])


def configure(words: list[str]) -> None:
    """Check the config of a ``train_net.py`` command, and register its datasets."""
    assert words[:2] == ["python", "train_net.py"]
    cfg = build_cfg(default_argument_parser().parse_args(words[2:]))
    validate_cfg(cfg)
    register_extra_datasets(cfg)


def expected(pictures: list[Picture]) -> list[tuple]:
    boxes = [[(CLASSES.index(label), *box) for label, *box in p.boxes] for p in pictures]
    return [(p.name, p.height, p.width, b) for p, b in zip(pictures, boxes, strict=True)]


def registered(name: str) -> list[tuple]:
    return [
        (
            Path(d["file_name"]).name,
            d["height"],
            d["width"],
            [(a["category_id"], *a["bbox"]) for a in d["annotations"]],
        )
        for d in DatasetCatalog.get(name)
    ]


@pytest.mark.parametrize("heading", FORMATS)
def test_each_format_is_read_from_the_folders_of_the_page(heading, folder):
    lay_out(FORMATS[heading], folder / "cells")
    (command,) = COMMANDS[heading]
    configure(command)
    pictures = labelled()
    assert registered("custom_train") == expected(pictures[:4])
    assert registered("custom_val") == expected(pictures[4:])
    assert load_class_names("custom_train") == load_class_names("custom_val") == list(CLASSES)


def test_datasets_can_stand_in_the_config(folder):
    lay_out("voc", folder / "cells")
    cfg = get_cfg()
    load_config_file(cfg, "cells_by_config.yaml")
    validate_cfg(cfg)
    assert register_extra_datasets(cfg) == ["cells_train", "cells_val"]
    assert [len(registered(f"cells_{split}")) for split in ("train", "val")] == [4, 2]


def others() -> list:
    names = [x for x in COMMANDS if x not in FORMATS and not x.startswith(FIVE) and x not in THREE]
    # The search for anchors takes seconds.
    return [pytest.param(x, marks=pytest.mark.slow) if x == "Anchors" else x for x in names]


@pytest.mark.parametrize("heading", others())
def test_the_other_commands_are_understood(heading, folder):
    lay_out("coco", folder / "cells")
    for words in COMMANDS[heading]:
        if words[0] == "retinanet-ext":
            assert main(words[1:]) == 0
        else:
            configure(words)
            assert registered("custom_train")


def test_class_rules_do_what_the_page_says(folder):
    lay_out("coco", folder / "cells")
    (words,) = COMMANDS["Classes"]
    configure(words)
    assert load_class_names("custom_train") == ["cell"]


@pytest.mark.parametrize("name", [x for x in YAML if "/" not in x])
def test_each_config_is_accepted(name, folder):
    cfg = get_cfg()
    load_config_file(cfg, name)
    validate_cfg(cfg)
    assert name == "cells_gpu.yaml" or cfg.SOLVER.EPOCHS == 14


@pytest.mark.parametrize(
    ("start", "page"),
    [
        ("quickstart.yaml", "cells.yaml"),
        ("quickstart.yaml", "configs/bccd_R_18_FPN.yaml"),
        ("quickstart_lite0.yaml", "cells_start.yaml"),
    ],
)
def test_weights_of_the_quickstart_fit_the_network_of_the_page(folder, start, page):
    shapes = []
    for config in (f"configs/{start}", page):
        cfg = get_cfg()
        load_config_file(cfg, config)
        cfg.MODEL.DEVICE = "meta"
        with torch.device("meta"):
            weights = build_model(cfg).state_dict()
        shapes.append({name: weight.shape for name, weight in weights.items()})
    differ = {name for name, shape in shapes[0].items() if shapes[1].get(name) != shape}
    assert shapes[0].keys() == shapes[1].keys()
    assert differ == {"head.cls_score.weight", "head.cls_score.bias"}


def test_every_block_and_link_of_the_page_is_tested():
    assert len(YAML) == len(re.findall(r"^```yaml$", PAGE, re.MULTILINE))
    assert sum(map(len, COMMANDS.values())) == len(re.findall(r"^```sh$", PAGE, re.MULTILINE))
    three, rest = list(COMMANDS)[: len(THREE)], list(COMMANDS)[len(THREE) :]
    assert tuple(three) == THREE
    assert [x for x in COMMANDS if x.startswith(FIVE)] == rest[: len(FIVE)]
    headings = {re.sub(r"\W+", "-", x.lower()) for x in re.findall(r"^##+ (.+)$", PAGE, re.M)}
    assert set(re.findall(r"\]\(#([\w-]+)\)", PAGE)) <= headings
    for path in re.findall(r"\]\((\.\./[^)#]+)\)", PAGE):
        assert (ROOT / "docs" / path).exists(), path


def test_the_page_has_advice_for_every_finding():
    named = set(re.findall(r"^\| (`.*?`) \|", PAGE, re.MULTILINE))
    assert set(re.findall(r"`(\w+)`", " ".join(named))) >= set(FINDINGS)
