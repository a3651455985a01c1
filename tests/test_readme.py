"""What README shows as code runs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from detectron2.modeling import build_model
from PIL import Image

import retinanet_ext
from retinanet_ext import get_cfg, load_config_file, validate_cfg
from retinanet_ext.config import flatten
from retinanet_ext.data.quickstart.dataset import folder_of
from retinanet_ext.engine.setup import build_cfg, default_argument_parser
from retinanet_ext.modeling import FocalLoss
from retinanet_ext.registry import CLS_LOSS_REGISTRY
from retinanet_ext.structures import DenseTargets
from tests.helpers.coco_file import coco_file

README = Path(__file__).resolve().parents[1] / "README.md"


def python_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def block_with(text: str) -> str:
    (found,) = [block for block in python_blocks() if text in block]
    return found


def test_own_loss_registers_and_computes():
    exec(block_with("class BalancedCrossEntropy"), {"__name__": "readme"})
    loss = CLS_LOSS_REGISTRY.get("BalancedCrossEntropy")(get_cfg())
    targets = DenseTargets(torch.tensor([[0, 2, -1, 2]]), torch.zeros(1, 4, 4), num_classes=2)
    # At p = 0.5 the one positive costs 0.25 ln 2, the five negatives 0.75 ln 2 each, the ignored
    # anchor nothing.
    value = loss([torch.zeros(1, 2, 2, 2)], targets).item()
    assert abs(value - (0.25 + 5 * 0.75) * 0.693147) < 1e-4


def test_anchors_work_in_another_model():
    cfg = {}
    exec(block_with("OCTAVE_BASE_SIZES").replace("get_cfg()", "_cpu_cfg()"), scope(cfg))
    assert cfg["model"].proposal_generator.anchor_generator.num_anchors == [9]


def test_the_lines_load_a_run_and_detect(tmp_path, monkeypatch, capsys):
    code = block_with("Predictor.from_run")
    (run,) = re.findall(r'from_run\("(.*)"\)', code)
    (picture,) = re.findall(r'predictor\("(.*)"\)', code)
    (tmp_path / run).mkdir(parents=True)
    (tmp_path / picture).parent.mkdir(parents=True)
    cfg = get_cfg()
    load_config_file(cfg, "quickstart.yaml")
    cfg.MODEL.DEVICE = "cpu"
    model = build_model(cfg)
    model.head.cls_score.weight.data.zero_()
    model.head.cls_score.bias.data.fill_(torch.tensor(0.6).logit())  # every score is 0.6
    torch.save({"model": model.state_dict()}, tmp_path / run / "model_final.pth")
    (tmp_path / run / "config.yaml").write_text(cfg.dump())
    Image.new("RGB", (96, 64), "gray").save(tmp_path / picture)
    monkeypatch.chdir(tmp_path)
    variables = {"__name__": "readme"}
    exec(code, variables)
    found = variables["found"]
    assert found.instances.image_size == (64, 96)
    assert len(found) == cfg.TEST.DETECTIONS_PER_IMAGE
    np.testing.assert_allclose(found.scores, 0.6, atol=1e-6)
    assert Image.open("found.png").size == (96, 64)
    assert found.names[0] in capsys.readouterr().out


def test_the_quickstart_writes_the_files_that_the_lines_read():
    code = block_with("Predictor.from_run")
    cfg = get_cfg()
    load_config_file(cfg, "quickstart.yaml")
    assert f'"{cfg.OUTPUT_DIR}"' in code
    assert f'"datasets/{folder_of("quickstart")}/val/000001.png"' in code


def test_the_map_of_folders_is_that_of_the_package():
    (tree,) = re.findall(r"```\n(retinanet_ext/\n.*?)```", README.read_text(), re.DOTALL)
    lines = tree.splitlines()
    inside = {line.split("/")[0].strip() for line in lines if line.startswith("  ")}
    rooms = {path.parent.name for path in (README.parent / "retinanet_ext").glob("*/__init__.py")}
    assert inside == rooms
    assert len(lines) == len(rooms) + 2  # a line each
    for name in re.findall(r"(?:^|  )(\w+)/", tree, re.MULTILINE):
        assert (README.parent / name).is_dir() or name in rooms, name


def component_rows() -> list[list[str]]:
    text = README.read_text().partition("## Components")[2].partition("\n\n`")[0]
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[1:]]


def names_in(cell: str) -> list[str]:
    return re.findall(r"`([\w.]+)`", cell)


def test_each_row_of_components_has_two_keys_at_most_and_all_exist():
    cfg, nodes = get_cfg(), ("", "MODEL.", "MODEL.RETINANET.", "MODEL.ANCHOR_GENERATOR.")
    known = {name for name, _ in flatten(cfg)}
    known |= {name.rpartition(".")[0] for name in known}  # a section by itself
    assert len(component_rows()) > 25
    for _, _, keys in component_rows():
        assert len(names_in(keys)) <= 2, keys
        for key in names_in(keys):
            assert any(node + key in known for node in nodes), key


def test_components_lists_each_entry_of_our_registries():
    listed: dict[str, list[str]] = {}
    for registry, entry, _ in component_rows():
        if registry:
            name, key = names_in(registry)
            assert key in {name for name, _ in flatten(get_cfg())}
        listed.setdefault(name, []).extend(names_in(entry))
    for name in ("DENSE_HEAD", "ASSIGNER", "CLS_LOSS", "BOX_LOSS", "BOX_CODER"):
        ours = getattr(retinanet_ext, f"{name}_REGISTRY")
        entries = {k for k, v in ours if v.__module__.startswith("retinanet_ext.")}
        assert entries <= set(listed[f"{name}_REGISTRY"])


def test_the_key_of_the_readable_loss_is_shown():
    (key, value) = re.findall(r"`(\S+LOSS_KERNEL) (\w+)` computes", README.read_text())[0]
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "RetinaNetExt"
    cfg.merge_from_list([key, value])
    validate_cfg(cfg)
    assert FocalLoss(cfg).kernel == value


def test_each_link_leads_to_a_file_or_heading():
    text = README.read_text()
    headings = {re.sub(r"\W+", "-", x.lower()) for x in re.findall(r"^##+ (.+)$", text, re.M)}
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in headings, target
        elif "://" not in target:
            assert (README.parent / target).exists(), target


def scope(variables: dict) -> dict:
    def cpu_cfg():
        from detectron2.config import get_cfg as detectron2_cfg

        cfg = detectron2_cfg()
        cfg.MODEL.DEVICE = "cpu"
        return cfg

    variables["_cpu_cfg"] = cpu_cfg
    return variables


def test_the_command_for_own_data_is_understood(tmp_path, monkeypatch):
    cells = tmp_path / "cells"
    (cells / "images").mkdir(parents=True)
    for split in ("train", "val"):
        coco_file(cells / f"{split}.json", {}, categories={1: "cell"})
    monkeypatch.chdir(tmp_path)
    text = README.read_text().replace("\\\n", " ")
    (command,) = re.findall(r"^python train_net\.py (.* --train .*)$", text, re.MULTILINE)
    words = command.replace("configs/", f"{README.parent}/configs/").split()
    cfg = build_cfg(default_argument_parser().parse_args(words))
    assert cfg.DATASETS.TRAIN == ("custom_train",) and cfg.DATASETS.TEST == ("custom_val",)
    paths = [(entry["ANNOTATIONS"], entry["IMAGES"]) for entry in cfg.DATASETS.EXTRA]
    assert paths == [(str(cells / f"{x}.json"), str(cells / "images")) for x in ("train", "val")]
