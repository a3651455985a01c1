"""The package as a whole: what it imports, and how it behaves in someone else's script."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "retinanet_ext"

# Room -> the rooms of the package that it may import (its own is always allowed). A file directly
# in the package or in modeling/ is a room of its own.
MAY_IMPORT = {
    "losses": set(),
    "messages": set(),
    "registry": {"messages"},
    "structures": set(),
    "step_keys": {"messages"},
    "modeling": {"messages", "registry", "structures", "losses"},
    "ignored_keys": {"registry"},
    "epoch_keys": set(),
    "schedule_keys": {"messages", "epoch_keys"},
    "evaluation_keys": set(),
    "validate": {
        "messages",
        "evaluation_keys",
        "step_keys",
        "structures",
        "losses",
        "data",
        "registry",
        "ignored_keys",
        "schedule_keys",
        "writer_keys",
        "modeling",
        "config",
    },
    "engine_keys": set(),
    "writer_keys": {"messages"},
    "config": {"validate", "engine_keys"},
    "data": {"messages", "structures"},
    "engine": {
        "messages",
        "step_keys",
        "structures",
        "validate",
        "epoch_keys",
        "schedule_keys",
        "modeling",
        "data",
        "config",
        "evaluation",
    },
    "evaluation": {"messages", "modeling", "data", "config"},
    "export": {"modeling", "data", "config"},
    "anchor_tools": {"modeling", "data", "evaluation"},
    "benchmark": {
        "messages",
        "structures",
        "losses",
        "modeling",
        "data",
        "config",
        "engine",
        "evaluation",
    },
    "cli": {
        "messages",
        "structures",
        "validate",
        "engine",
        "evaluation",
        "export",
        "benchmark",
        "anchor_tools",
        "data",
        "config",
        "modeling",
        "registry",
    },
    "__main__": {"cli"},
    "__init__": {"modeling", "config", "data"},
}
# The parts of the detector do not know each other; retinanet.py wires them.
PARTS = {
    "heads",
    "anchors",
    "assigners",
    "backbones",
    "box_criteria",
    "criteria",
    "mining",
    "quality_criteria",
    "normalizer",
    "decode",
    "speedups",
}


def imported_modules(path: Path) -> set[str]:
    """Modules of the package that ``path`` imports, as dotted names without the package's own."""
    package = ("retinanet_ext", *path.relative_to(PACKAGE).parts[:-1])
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            found.update(f"{module}.{alias.name}" for alias in node.names)
    return {name.split(".", 1)[1] for name in found if name.startswith("retinanet_ext.")}


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path: Path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for name in imported_modules(path):
        target = name.split(".")[0]
        if target != room and (PACKAGE / target).exists() | (PACKAGE / f"{target}.py").exists():
            assert target in MAY_IMPORT[room], f"{path} imports {name}"


@pytest.mark.parametrize("part", sorted(PARTS))
def test_parts_of_the_detector_do_not_import_each_other(part: str):
    imported = imported_modules(PACKAGE / "modeling" / f"{part}.py")
    others = {f"modeling.{other}" for other in PARTS - {part}}
    assert not [name for name in imported if name.startswith(tuple(others))]


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_losses_do_without_detectron2_and_nothing_needs_the_model_zoo(path: Path):
    text = path.read_text()
    assert "model_zoo" not in text and "jit.script" not in text
    if path.relative_to(PACKAGE).parts[0] == "losses":
        assert "import detectron2" not in text and "from detectron2" not in text


def run(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == {name!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Block())
"""


def test_losses_work_where_detectron2_is_absent():
    script = BLOCK.format(name="detectron2") + (
        "import torch\n"
        "from retinanet_ext.losses import sigmoid_focal_loss\n"
        "loss = sigmoid_focal_loss(torch.zeros(2, 3), torch.tensor([0, 3]), 3)\n"
        "print(f'{loss.item():.4f}')\n"
        "import retinanet_ext\n"
        "try:\n"
        "    retinanet_ext.get_cfg()\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    loss, message = run(script).splitlines()
    # ln 2 / 4 * (0.25 * 1 + 0.75 * 5) = 0.6931
    assert loss == "0.6931"
    assert "retinanet_ext.get_cfg needs Detectron2" in message
    assert "dev/install_detectron2.py" in message


def test_everything_imports_without_pkg_resources():
    script = BLOCK.format(name="pkg_resources") + (
        "import retinanet_ext.modeling, retinanet_ext.engine.trainer\n"
        "import retinanet_ext.evaluation, retinanet_ext.data.register, retinanet_ext.cli\n"
        "print('fine')\n"
    )
    assert run(script).splitlines()[-1] == "fine"


def test_someone_elses_faster_rcnn_takes_our_anchor_generator():
    script = """
import retinanet_ext
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
cfg = get_cfg()
retinanet_ext.add_retinanet_ext_config(cfg)
cfg.MODEL.DEVICE = "cpu"
cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
cfg.MODEL.RESNETS.DEPTH = 18
cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
cfg.MODEL.FPN.OUT_CHANNELS = 16
cfg.MODEL.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4", "p5"]
cfg.MODEL.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
cfg.MODEL.ROI_BOX_HEAD.NUM_FC = 1
cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 16
cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION = 7
cfg.MODEL.ANCHOR_GENERATOR.NAME = "RetinaNetAnchorGenerator"
cfg.MODEL.ANCHOR_GENERATOR.SCALES_PER_OCTAVE = 2
retinanet_ext.validate_cfg(cfg)
model = build_model(cfg).eval()
with torch.no_grad():
    model([{"image": torch.zeros(3, 64, 64)}])
generator = model.proposal_generator.anchor_generator
print(type(model).__name__, type(generator).__name__, generator.num_anchors)
"""
    assert run(script).splitlines()[-1] == (
        "GeneralizedRCNN RetinaNetAnchorGenerator [6, 6, 6, 6, 6]"
    )
