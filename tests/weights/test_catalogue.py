"""The catalogue of weights: files come whole to where Detectron2 looks, or are asked for."""

from __future__ import annotations

import hashlib
import io
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
from detectron2.utils.file_io import PathManager

from retinanet_ext.config.shipped import config_names
from retinanet_ext.errors import ConfigError, InputError
from retinanet_ext.files import find_damage
from retinanet_ext.weights.catalogue import CATALOGUE, Entry, entry_of, fetch, place_of
from retinanet_ext.weights.reading import WeightsError
from retinanet_ext_command import main

CONTENT = b"weights" * 1000
R50 = "retinanet_R_50_FPN_3x"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Entry:
    """The entry of R50 as if its file had a few bytes."""
    entry = replace(entry_of(R50), megabytes=len(CONTENT) / 1e6)
    monkeypatch.setitem(CATALOGUE, R50, entry)
    return entry


def offline(*args: Any, **kwargs: Any) -> None:
    raise URLError("no route to host")


def test_a_fetched_file_is_where_detectron2_looks_for_its_address(
    small: Entry, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(urllib.request, "urlopen", lambda *a, **k: io.BytesIO(CONTENT))
    path = fetch(small)
    assert Path(path).read_bytes() == CONTENT and find_damage(path) == ""
    monkeypatch.setattr(urllib.request, "urlopen", offline)
    short = "detectron2://" + small.url.partition("detectron2/")[2]
    assert PathManager.get_local_path(small.url) == PathManager.get_local_path(short) == path
    assert fetch(small) == path  # nothing to do


def test_without_internet_the_file_and_the_command_are_named(
    small: Entry, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(urllib.request, "urlopen", offline)
    with pytest.raises(WeightsError) as error:
        fetch(small)
    assert small.url in str(error.value)
    command = f"retinanet-ext weights fetch {R50} --from model_final_5bd44e.pkl"
    assert str(error.value).endswith(command)
    assert not Path(place_of(small)).exists()


def test_a_file_that_was_brought_is_taken(small: Entry, tmp_path: Path, capsys):
    brought = tmp_path / "stick.pkl"
    brought.write_bytes(CONTENT)
    assert main(["weights", "fetch", R50, "--from", str(brought)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == place_of(small)
    assert main(["weights", "path", R50]) == 0
    assert Path(capsys.readouterr().out.strip()).read_bytes() == CONTENT


def test_a_damaged_file_is_fetched_again(small: Entry, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(urllib.request, "urlopen", lambda *a, **k: io.BytesIO(CONTENT))
    path = Path(fetch(small))
    path.write_bytes(CONTENT[:-1] + b"x")
    assert Path(fetch(small)).read_bytes() == CONTENT


@pytest.mark.parametrize("content", [b"", CONTENT[:3000], b"<html>404</html>"])
def test_half_a_file_is_refused_and_gets_no_name(small: Entry, tmp_path: Path, content: bytes):
    brought = tmp_path / "half.pkl"
    brought.write_bytes(content)
    with pytest.raises(InputError, match=r"half.pkl has 0.0 MB, but model_final_5bd44e.pkl has"):
        fetch(small, str(brought))
    assert list(Path(place_of(small)).parent.iterdir()) == []


def test_another_file_of_that_size_is_refused_where_the_checksum_is_known(
    small: Entry, tmp_path: Path
):
    brought = tmp_path / "other.pkl"
    brought.write_bytes(CONTENT)
    right = hashlib.sha256(CONTENT).hexdigest()[:8]
    assert fetch(replace(small, sha256=right), str(brought))
    with pytest.raises(InputError, match=rf"its SHA-256 begins with {right}, not 00000000"):
        fetch(replace(small, sha256="00000000"), str(brought))


def test_the_table_has_every_entry_once(capsys):
    assert main(["weights", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split()[0] for line in lines] == list(CATALOGUE)
    assert all(entry.url in line for entry, line in zip(CATALOGUE.values(), lines, strict=True))


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["path", R50], f"weights fetch {R50}`, with --from FILE"),
        (["path", "retinanet_R_50_FPN_2x"], f"Did you mean '{R50[:-2]}"),
        (["fetch"], "needs a NAME"),
        (["list", R50], "takes no name"),
        (["list", "--from", "x"], "--from is for `weights fetch`"),
        (["fetch", R50, "--from", "missing.pkl"], "missing.pkl does not exist"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(words: list[str], wanted: str, capsys):
    assert main(["weights", *words]) == 2
    assert wanted in capsys.readouterr().err


def test_unknown_names_raise():
    with pytest.raises(ConfigError, match="Known: retinanet_R_50_FPN_1x"):
        entry_of("yolo")


def test_detectron2s_weights_are_for_configs_that_are_shipped():
    configs = [entry.config for entry in CATALOGUE.values() if not entry.source]
    assert len(configs) == 3 and set(configs) <= set(config_names())


def test_torchvisions_entries_are_what_torchvision_says():
    from torchvision.models.detection import (
        RetinaNet_ResNet50_FPN_V2_Weights,
        RetinaNet_ResNet50_FPN_Weights,
    )

    for name, weights in (
        ("torchvision_retinanet_resnet50_fpn", RetinaNet_ResNet50_FPN_Weights.COCO_V1),
        ("torchvision_retinanet_resnet50_fpn_v2", RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1),
    ):
        entry = CATALOGUE[name]
        assert entry.url == weights.url
        assert entry.ap == weights.meta["_metrics"]["COCO-val2017"]["box_map"]
        assert entry.megabytes == pytest.approx(weights.meta["_file_size"] * 1.048576, abs=0.1)
