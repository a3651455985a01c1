"""``retinanet-ext convert``: whose a file is, wrappers around it, what is written, bad input."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image
from torch import Tensor

from retinanet_ext import get_cfg, load_config_file, validate_cfg
from retinanet_ext.cli.weights.verify import verify
from retinanet_ext.engine.checkpoint.checkpointer import SafeCheckpointer
from retinanet_ext.weights.convert.mmdet import from_mmdet
from retinanet_ext.weights.convert.run import detect_source, read_source, state_of
from retinanet_ext.weights.reading import WeightsError
from retinanet_ext_command import main

from .test_mmdet_and_odtk import mmdet_weights, odtk_weights
from .test_torchvision import state_of as state_of_torchvision
from .test_torchvision import torchvision_model


@pytest.fixture(scope="module")
def mmdet() -> dict[str, Tensor]:
    return mmdet_weights()


@pytest.fixture
def mmdet_file(mmdet: dict[str, Tensor], tmp_path: Path) -> Path:
    path = tmp_path / "epoch_12.pth"
    meta = {"CLASSES": ("a", "b", "c", "d"), "config": "style='pytorch'"}
    torch.save({"state_dict": mmdet, "meta": meta}, path)
    return path


def test_the_yaml_beside_the_file_is_a_whole_config(mmdet_file: Path, tmp_path: Path, capsys):
    out = tmp_path / "converted.pth"
    assert main(["convert", str(mmdet_file), str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"{out}: " in printed and "4 classes" in printed and "resizes by OpenCV" in printed
    cfg = get_cfg()
    load_config_file(cfg, str(tmp_path / "converted.yaml"))
    cfg.MODEL.DEVICE = "cpu"
    validate_cfg(cfg)
    model = build_model(cfg).eval()
    names = ["a", "b", "c", "d"]
    SafeCheckpointer(model, thing_classes=names, require_all=True).load(cfg.MODEL.WEIGHTS)
    expected = from_mmdet(torch.load(mmdet_file, weights_only=True)["state_dict"]).model
    state = model.state_dict()
    assert all(torch.equal(state[k], v) for k, v in expected.items())


def test_there_and_back_through_files_every_bit_is_the_same(mmdet_file: Path, tmp_path: Path):
    ours, back = tmp_path / "ours.pth", tmp_path / "back.pth"
    assert main(["convert", str(mmdet_file), str(ours), "--from", "mmdet"]) == 0
    assert main(["convert", str(ours), str(back), "--to", "mmdet"]) == 0  # takes ours.yaml
    before = torch.load(mmdet_file, weights_only=True)
    after = torch.load(back, weights_only=True)
    weights = {k: v for k, v in before["state_dict"].items() if not k.endswith("tracked")}
    assert after["state_dict"].keys() == weights.keys()
    assert all(torch.equal(after["state_dict"][k], v) for k, v in weights.items())
    assert after["meta"]["CLASSES"] == list(before["meta"]["CLASSES"])


@pytest.mark.parametrize(
    ("make", "source"), [(mmdet_weights, "mmdet"), (odtk_weights, "odtk")], ids=["mmdet", "odtk"]
)
def test_the_toolkit_is_found_out_by_the_names(make: Any, source: str):
    assert detect_source(list(make())) == source
    assert detect_source(["head.classification_head.cls_logits.weight"]) == "torchvision"
    assert detect_source(["head.cls_score.weight"]) == "detectron2"


def test_names_of_none_or_of_two_toolkits_are_asked_about():
    with pytest.raises(WeightsError, match=r"of none of torchvision, mmdet.*\(a, b, \.\.\.\)"):
        detect_source(["a", "b"])
    with pytest.raises(WeightsError, match="may be of mmdet or odtk; say which with --from"):
        detect_source(["bbox_head.x", "backbones.y"])


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module.model."])
def test_the_prefixes_of_wrappers_are_taken_off(mmdet: dict[str, Tensor], prefix: str):
    wrapped = {"state_dict": {prefix + k: v for k, v in mmdet.items()}, "epoch": 3}
    tensors, notes = state_of(wrapped)
    assert tensors.keys() == mmdet.keys() and notes == []


def test_averaged_weights_beside_it_are_left_with_a_word(mmdet: dict[str, Tensor]):
    averaged = {"ema_" + k.replace(".", "_"): v for k, v in mmdet.items()}
    tensors, notes = state_of({"state_dict": {**mmdet, **averaged}, "ema_state_dict": mmdet})
    assert tensors.keys() == mmdet.keys()
    assert len(notes) == 2 and all("not converted" in note for note in notes)


def test_half_precision_becomes_float32_without_a_change(mmdet: dict[str, Tensor], tmp_path: Path):
    half = {k: v.half() if v.is_floating_point() else v for k, v in mmdet.items()}
    torch.save({"state_dict": half}, tmp_path / "half.pth")
    found = read_source(str(tmp_path / "half.pth"))
    assert any("float32" in note for note in found.notes)
    assert {v.dtype for v in found.model.values()} == {torch.float32}
    stem = found.model["backbone.bottom_up.stem.conv1.weight"]
    assert torch.equal(stem.half(), half["backbone.conv1.weight"])


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["IN", "OUT.txt"], "its name must end with .pth or .safetensors"),
        (["IN", "IN"], "IN and OUT are both"),
        (["missing.pth", "OUT.pth"], "missing.pth"),
        (["IN", "OUT.pth", "--from", "detectron2"], "weights of Detectron2 need their config"),
        (["IN", "OUT.pth", "--from", "torchvision"], "cannot be converted: its stages have"),
        (["IN", "OUT.pth", "--classes", "NAMES"], "4 classes, but 1 names are given"),
        (["IN", "OUT.pth", "--style", "keras"], "give pytorch or caffe"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    mmdet_file: Path, tmp_path: Path, words: list[str], wanted: str, capsys
):
    (tmp_path / "names.txt").write_text("one\n")
    places = {"IN": str(mmdet_file), "NAMES": str(tmp_path / "names.txt")}
    words = [places.get(x, x.replace("OUT", str(tmp_path / "out"))) for x in words]
    assert main(["convert", *words]) == 2
    assert wanted in capsys.readouterr().err
    assert not list(tmp_path.glob("out*"))


@pytest.fixture(scope="module", params=["v1", "v2"])
def torchvision_file(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Path]:
    """A file of 130 MB or more, which goes with the module's tests."""
    path = tmp_path_factory.mktemp("torchvision") / f"{request.param}.pth"
    torch.save(state_of_torchvision(torchvision_model(request.param, 4), request.param), path)
    yield path
    path.unlink()


def save_picture(folder: Path) -> str:
    pixels = torch.randint(0, 256, (20, 30, 3), generator=torch.Generator().manual_seed(1))
    image = Image.fromarray(pixels.to(torch.uint8).numpy())
    image.resize((300, 200)).save(folder / "photo.png")
    return str(folder / "photo.png")


def test_torchvisions_own_network_agrees_on_a_picture(
    torchvision_file: Path, tmp_path: Path, capsys
):
    words = ["convert", str(torchvision_file), str(tmp_path / "o.pth")]
    assert main([*words, "--verify", save_picture(tmp_path)]) == 0
    assert "photo.png: equal: logits differ by at most" in capsys.readouterr().out


def test_a_network_that_differs_is_found_out(torchvision_file: Path, tmp_path: Path):
    found = read_source(str(torchvision_file))
    found.model["head.bbox_pred.bias"] = found.model["head.bbox_pred.bias"].flip(0)
    verified = verify(str(torchvision_file), found, save_picture(tmp_path))
    assert not verified.equal and verified.deltas > 1e-2 and verified.logits < 1e-3


def test_what_cannot_be_verified_is_said_before_anything_is_written(
    mmdet_file: Path, tmp_path: Path, capsys
):
    words = ["convert", str(mmdet_file), str(tmp_path / "out.pth"), "--verify", "photo.png"]
    assert main(words) == 2
    assert "only torchvision is installed, and IN is of mmdet" in capsys.readouterr().err
    assert not list(tmp_path.glob("out*"))
