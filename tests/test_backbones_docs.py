"""The configs that docs/backbones.md shows are valid, and its table names what there is."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import yaml
from detectron2.config import CfgNode

from retinanet_ext import get_cfg, validate_cfg
from tests.helpers.docs import blocks

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "backbones.md").read_text()
CONFIGS = blocks(PAGE, "yaml")
needs_timm = pytest.mark.skipif(
    importlib.util.find_spec("timm") is None, reason="timm is not installed: pip install timm"
)


@needs_timm
@pytest.mark.parametrize("text", CONFIGS, ids=["timm", "swin", "vit"])
def test_the_configs_are_valid(text: str):
    cfg = get_cfg()
    cfg.merge_from_other_cfg(CfgNode(yaml.safe_load(text)))
    assert validate_cfg(cfg) == []


@pytest.mark.parametrize("text", CONFIGS, ids=["timm", "swin", "vit"])
def test_the_keys_exist(text: str):
    get_cfg().merge_from_other_cfg(CfgNode(yaml.safe_load(text)))


def test_the_recipes_of_the_table_exist():
    names = re.findall(r"^\| `(\w+\.yaml)` \|", PAGE, re.MULTILINE)
    assert len(names) == 2 and all((ROOT / "configs" / name).is_file() for name in names)
