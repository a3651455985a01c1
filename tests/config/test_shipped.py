"""Shipped configs by name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import retinanet_ext
from retinanet_ext import UserError, config_names, find_config, get_cfg, load_config_file
from retinanet_ext.config.shipped import CONFIGS
from retinanet_ext.engine.setup import build_cfg, default_argument_parser

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A current folder without any config."""
    monkeypatch.chdir(tmp_path)


def test_names_are_the_files_of_configs():
    files = [p.relative_to(ROOT / "configs").as_posix() for p in ROOT.glob("configs/**/*.yaml")]
    assert config_names() == sorted(files)
    assert {"quickstart.yaml", "scales/retinanet_R_50_FPN_600.yaml"} <= set(files)


def test_the_package_has_no_copy_of_its_own():
    assert (Path(retinanet_ext.__file__).parent / "configs").resolve() == ROOT / "configs"


@pytest.mark.parametrize("name", config_names())
def test_each_loads_by_its_name(name):
    by_name, by_path = get_cfg(), get_cfg()
    load_config_file(by_name, name)
    load_config_file(by_path, ROOT / "configs" / name)
    assert by_name == by_path != get_cfg()


def test_the_name_of_a_checkout_works_too():
    assert find_config("configs/quickstart.yaml") == find_config("quickstart.yaml")


def test_a_file_of_ones_own_comes_first(tmp_path):
    shutil.copy(CONFIGS / "Base-RetinaNet.yaml", tmp_path)
    (tmp_path / "quickstart.yaml").write_text('_BASE_: "Base-RetinaNet.yaml"\nSEED: 77\n')
    assert find_config("quickstart.yaml") == "quickstart.yaml"
    cfg = get_cfg()
    load_config_file(cfg, "quickstart.yaml")
    assert cfg.SEED == 77


def test_a_close_name_is_suggested(tmp_path):
    with pytest.raises(UserError) as caught:
        load_config_file(get_cfg(), "quikstart.yml")
    assert f"config file 'quikstart.yml' does not exist (from {tmp_path})" in str(caught.value)
    assert "did you mean 'quickstart.yaml'" in str(caught.value)
    assert isinstance(caught.value, FileNotFoundError)


def test_where_none_is_close_the_names_are_listed():
    with pytest.raises(UserError, match=r"shipped are .*retinanet_R_50_FPN_1x\.yaml.* more$"):
        find_config("nowhere.yaml")


@pytest.mark.parametrize("path", ["/nowhere/quickstart.yaml", "other/quickstart.yaml"])
def test_another_folders_file_is_not_replaced_by_a_shipped_one(path):
    with pytest.raises(FileNotFoundError, match=r"did you mean 'quickstart\.yaml'"):
        find_config(path)


def test_the_arguments_then_hold_a_path_that_can_be_opened():
    # Detectron2's default_setup opens it.
    args = default_argument_parser().parse_args(["--config-file", "quickstart.yaml"])
    cfg = build_cfg(args)
    assert cfg.MODEL.RETINANET.NUM_CLASSES == 5
    assert args.config_file == str(ROOT / "configs" / "quickstart.yaml")
