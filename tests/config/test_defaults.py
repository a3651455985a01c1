"""Reading config files: safe, and complete."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import detectron2
import pytest
from detectron2.config import get_cfg as get_detectron2_cfg

from retinanet_ext import get_cfg, load_config_file, validate_cfg
from retinanet_ext.config import flatten

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
ZOO = Path(detectron2.__file__).parent / "model_zoo" / "configs"


def test_detectron2_keys_keep_their_defaults():
    ours = dict(flatten(get_cfg()))
    for key, value in flatten(get_detectron2_cfg()):
        assert ours[key] == value, key


def test_every_shipped_file_loads_safely_in_a_fresh_process():
    script = (
        "import sys\n"
        "from retinanet_ext import get_cfg\n"
        "for path in sys.argv[1:]:\n"
        "    get_cfg().merge_from_file(path, allow_unsafe=False)\n"
        "print('loaded', len(sys.argv) - 1)\n"
    )
    paths = [str(path) for path in sorted(CONFIGS.rglob("*.yaml"))]
    assert len(paths) >= 10
    done = subprocess.run(
        [sys.executable, "-c", script, *paths], capture_output=True, text=True, check=True
    )
    assert f"loaded {len(paths)}" in done.stdout
    assert "unsafe_load" not in done.stdout + done.stderr


def test_shipped_base_equals_detectron2_base():
    ours, theirs = get_cfg(), get_cfg()
    load_config_file(ours, CONFIGS / "Base-RetinaNet.yaml")
    load_config_file(theirs, ZOO / "Base-RetinaNet.yaml", allow_unsafe=True)
    mine, stock = dict(flatten(ours)), dict(flatten(theirs))
    different = {key for key in mine if mine[key] != stock[key]}
    assert different == {
        "MODEL.META_ARCHITECTURE",
        "MODEL.ANCHOR_GENERATOR.NAME",
        "MODEL.ANCHOR_GENERATOR.SIZES",
    }


@pytest.mark.parametrize(
    "name", ["retinanet_R_50_FPN_1x", "retinanet_R_50_FPN_3x", "retinanet_R_101_FPN_3x"]
)
def test_shipped_recipes_equal_the_model_zoo(name: str):
    ours, theirs = get_cfg(), get_cfg()
    load_config_file(ours, CONFIGS / f"{name}.yaml")
    load_config_file(theirs, ZOO / "COCO-Detection" / f"{name}.yaml", allow_unsafe=True)
    for key in ("SOLVER", "INPUT", "DATASETS"):
        assert ours[key] == theirs[key]
    assert ours.MODEL.RESNETS == theirs.MODEL.RESNETS
    assert ours.MODEL.WEIGHTS == theirs.MODEL.WEIGHTS


@pytest.mark.parametrize(
    "name",
    [
        "COCO-Detection/faster_rcnn_R_50_FPN_1x",
        "COCO-Detection/rpn_R_50_FPN_1x",
        "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x",
    ],
)
def test_shipped_two_stage_recipes_are_those_of_the_model_zoo(name: str):
    ours, theirs = get_cfg(), get_cfg()
    load_config_file(ours, CONFIGS / f"{Path(name).name}.yaml")
    load_config_file(theirs, ZOO / f"{name}.yaml", allow_unsafe=True)
    assert dict(flatten(ours)) == dict(flatten(theirs)) != dict(flatten(get_cfg()))
    assert validate_cfg(ours) == []


@pytest.mark.parametrize("name", ["faster_rcnn", "mask_rcnn", "rpn"])
@pytest.mark.parametrize("size", ["{}_R_50_FPN_1x", "quickstart_{}"])
def test_with_dense_rpn_a_recipe_changes_in_its_proposals_only(size: str, name: str):
    plain, dense = get_cfg(), get_cfg()
    load_config_file(plain, CONFIGS / f"{size.format(name)}.yaml")
    load_config_file(dense, CONFIGS / f"{size.format(name)}_dense_rpn.yaml")
    assert validate_cfg(dense) == []
    before, after = dict(flatten(plain)), dict(flatten(dense))
    changed = {key for key in before if before[key] != after[key]} - {"OUTPUT_DIR"}
    sections = ("MODEL.PROPOSAL_GENERATOR", "MODEL.ANCHOR_GENERATOR", "MODEL.RETINANET")
    assert changed and all(key.startswith(sections) for key in changed)


def test_file_that_asks_for_code_is_refused_unless_allowed(tmp_path: Path):
    marker = tmp_path / "ran"
    bad = tmp_path / "bad.yaml"
    bad.write_text(f'OUTPUT_DIR: !!python/object/apply:eval [\'open("{marker}", "w").name\']\n')
    with pytest.raises(ValueError, match=r"bad\.yaml.*--allow-unsafe-yaml"):
        load_config_file(get_cfg(), bad)
    assert not marker.exists()
    load_config_file(get_cfg(), bad, allow_unsafe=True)
    assert marker.exists()


def test_broken_yaml_is_named(tmp_path: Path):
    bad = tmp_path / "bad.yaml"
    bad.write_text("MODEL: [1, 2\nSOLVER: {}\n")
    with pytest.raises(ValueError, match=r"bad\.yaml.*is not yaml.*line 2"):
        load_config_file(get_cfg(), bad)


def test_missing_file_is_named():
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml"):
        load_config_file(get_cfg(), "nowhere.yaml")


def test_a_saved_config_loads_again(tmp_path: Path):
    cfg = get_cfg()
    load_config_file(cfg, CONFIGS / "quickstart.yaml")
    (tmp_path / "config.yaml").write_text(cfg.dump())
    again = get_cfg()
    load_config_file(again, tmp_path / "config.yaml")
    assert validate_cfg(again) == []
    # Tuples come back as lists.
    assert json.dumps(dict(flatten(again))) == json.dumps(dict(flatten(cfg)))
