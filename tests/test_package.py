"""The package as a whole: what it imports, and how it behaves in someone else's script."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "retinanet_ext"

# A room is a file or folder directly in the package or, in the wings, directly in a wing.
WINGS = {"data", "engine", "export", "inference", "losses", "modeling", "report", "weights"}
GROUND_FLOOR = {
    "boxes",
    "compat",
    "console",
    "cores",
    "errors",
    "files",
    "protocols",
    "random_state",
    "registry",
    "structures",
    "untrusted",
}
# Room -> the rooms that it may import, beside the ground floor and itself. A wing by name stands
# for all of its rooms.
MAY_IMPORT = {
    "__init__": {"config", "data", "engine", "inference", "modeling", "weights"},
    "__main__": {"cli"},
    "anchor_tools": {"data", "modeling", "visualization"},
    "benchmark": {
        "config",
        "data",
        "engine",
        "evaluation",
        "export",
        "inference",
        "losses",
        "modeling",
    },
    "cli": {
        "anchor_tools",
        "benchmark",
        "config",
        "data",
        "engine",
        "evaluation",
        "export",
        "inference",
        "modeling",
        "report",
        "recipe",
        "serve",
        "visualization",
        "weights",
    },
    "config": set(),
    "data/__init__": {"data"},
    "data/augment": {"data/loading"},
    "data/datasets": {"data/formats", "data/loading", "data/quickstart"},
    "data/doctor": {"data/datasets", "data/formats", "data/loading", "data/parallel"},
    "data/formats": {"data/loading"},
    "data/mapper": {"data/loading"},
    "data/quickstart": {"data/parallel"},
    "data/register": {"data/datasets"},
    "engine/__init__": {"engine"},
    "engine/checkpoint": {"data/loading", "weights"},
    "engine/checkpointer": {"engine/checkpoint"},
    "engine/builders": {
        "engine/evaluating",
        "engine/impossible_model",
        "engine/loaders",
        "engine/optim",
        "evaluation",
    },
    "engine/describe": set(),
    "engine/dry_run": {"engine/describe", "engine/evaluating", "engine/trainer"},
    "engine/eval_only": {
        "data/datasets",
        "engine/checkpoint",
        "engine/describe",
        "engine/evaluating",
        "engine/trainer",
        "inference/exported",
    },
    "engine/evaluating": {
        "config",
        "data/datasets",
        "engine/launch",
        "engine/optim",
        "engine/progress",
        "evaluation",
        "inference/build",
    },
    "engine/failures": {"engine/checkpoint"},
    "engine/impossible_model": {"config"},
    "engine/launch": {"config", "data/loading", "engine/checkpoint", "weights"},
    "engine/lazy": {"config", "data/loading", "engine/optim", "evaluation", "modeling"},
    "engine/loaders": {"data", "engine/launch", "engine/progress", "inference/build"},
    "engine/optim": {"config", "data/loading", "engine/checkpoint", "engine/launch"},
    "engine/progress": {"data/loading"},
    "engine/records": {
        "config",
        "data/loading",
        "engine/evaluating",
        "engine/launch",
        "engine/progress",
    },
    "engine/replay": {
        "config",
        "engine/checkpoint",
        "engine/failures",
        "engine/step",
        "engine/trainer",
        "weights/reading",
    },
    "engine/job": set(),
    "engine/setup": {
        "config",
        "data/datasets",
        "engine/job",
        "engine/launch",
        "engine/optim",
        "engine/records",
        "engine/step",
        "engine/user_modules",
        "inference/exported",
    },
    "engine/step": {"config", "engine/failures", "modeling"},
    "engine/trainer": {
        "data/datasets",
        "data/loading",
        "engine/builders",
        "engine/checkpoint",
        "engine/describe",
        "engine/evaluating",
        "engine/failures",
        "engine/job",
        "engine/launch",
        "engine/loaders",
        "engine/optim",
        "engine/progress",
        "engine/records",
        "engine/step",
        "evaluation",
    },
    "evaluation": {"data/formats", "data/loading", "modeling"},
    "export/__init__": {"export"},
    "export/check": {"export/graph", "export/options", "modeling"},
    "export/files": {"export/graph", "inference"},
    "export/folder": {"export/files", "export/graph", "inference"},
    "export/graph": {"modeling"},
    "export/int8": {
        "export/files",
        "export/folder",
        "export/options",
        "export/quantize",
        "export/verify",
        "inference",
    },
    "export/job": {"export", "inference"},
    "export/options": {"inference/allocator"},
    "export/pictures": {"inference"},
    "export/quantize": {"export/pictures", "inference"},
    "export/reference": {"inference"},
    "export/verify": {
        "export/compare",
        "export/folder",
        "export/pictures",
        "export/reference",
        "inference",
    },
    "inference/__init__": {"inference"},
    "inference/build": {"inference/detector", "inference/pooled"},
    "inference/class_names": {"data/datasets", "weights/reading"},
    "inference/detector": {"data/loading", "inference/allocator", "modeling"},
    "inference/exported": {"config", "modeling"},
    "inference/job": {"inference"},
    "inference/load_model": {
        "engine/checkpoint",
        "engine/impossible_model",
        "inference/class_names",
        "inference/exported",
    },
    "inference/outputs": {
        "inference/prediction",
        "inference/score_thresh",
        "inference/sources",
    },
    "inference/pictures": {"data/loading"},
    "inference/pooled": {"data/loading", "inference/detector", "modeling"},
    "inference/prediction": {"inference/score_thresh", "visualization"},
    "inference/predictor": {
        "config",
        "data/loading",
        "engine/setup",
        "inference",
    },
    "inference/raw_heads": {"inference", "modeling"},
    "inference/sources": {"data/formats", "inference/pictures"},
    "inference/streaming": {"inference/pictures", "inference/prediction"},
    "integrations": {"inference"},
    "inference/run_folder": {"config", "engine/checkpoint", "weights/demo"},
    "losses/__init__": {"losses"},
    "losses/box": {"losses/precision"},
    "losses/conv_focal": {"losses/focal", "losses/kernels"},
    "losses/cross_entropy": {"losses/focal", "losses/layout", "losses/precision"},
    "losses/elementwise": {"losses/precision"},
    "losses/focal": {"losses/kernels", "losses/layout", "losses/precision"},
    "losses/fvcore": {"losses/focal", "losses/kernels", "losses/precision"},
    "losses/heatmap": {"losses/focal", "losses/precision"},
    "losses/kernels": {"losses/layout", "losses/precision"},
    "losses/multi_label": {"losses/elementwise"},
    "losses/quality": {"losses/elementwise", "losses/focal", "losses/precision"},
    "losses/star": {"losses/focal", "losses/layout", "losses/precision"},
    "modeling/__init__": {"modeling"},
    "modeling/anchors": {"modeling/anchor_sizes"},
    "modeling/check_config": {"modeling/assigners", "modeling/criteria", "modeling/postprocess"},
    "modeling/classifier": {"losses/precision"},
    "modeling/criteria": {"losses", "modeling/classifier", "modeling/coders"},
    "modeling/detectron2_arguments": {
        "modeling/assigners",
        "modeling/criteria",
        "modeling/postprocess",
    },
    "modeling/detectron2_names": {"modeling/postprocess"},
    "modeling/heads": {"modeling/classifier", "modeling/coders", "modeling/speedups"},
    "modeling/loss_terms": {"modeling/criteria", "modeling/postprocess"},
    "modeling/postprocess": {"losses/precision", "modeling/classifier", "modeling/coders"},
    "modeling/predictions": {"losses/precision", "modeling/coders"},
    "modeling/proposals": {"losses/precision", "modeling"},
    "modeling/retinanet": {"modeling"},
    "modeling/steps": {
        "modeling/assigners",
        "modeling/coders",
        "modeling/criteria",
        "modeling/detectron2_names",
        "modeling/loss_terms",
        "modeling/postprocess",
        "modeling/predictions",
        "modeling/speedups",
    },
    "report/__init__": {"report"},
    "report/compute": {"data", "evaluation"},
    "report/findings": {"evaluation"},
    "report/galleries": {"report"},
    "report/page": {"report/findings"},
    "report/pictures": {"data/loading", "visualization"},
    "report/found": {"evaluation", "report"},
    "report/write": {"evaluation", "report"},
    "recipe": {
        "anchor_tools",
        "config",
        "data",
        "engine",
        "modeling",
        "weights/catalogue",
        "weights/demo",
    },
    "serve": {"data/loading", "inference", "visualization"},
    "validate": {"config"},
    "visualization": set(),
    "weights/__init__": set(),
    "weights/catalogue": {"weights/reading"},
    "weights/convert": {"weights/foreign", "weights/reading"},
    "weights/foreign": {"weights/checks", "weights/reading"},
    "weights/online": {"weights/reading"},
    "weights/pretrained": {
        "weights/demo",
        "weights/names",
        "weights/online",
        "weights/pixels",
        "weights/reading",
    },
    "weights/reading": {"weights/checks", "weights/packed", "weights/unpickle"},
}
OLD_PLACES = {"messages", "validate", "data/mapper", "data/register", "engine/checkpointer"}
MOST_FILES = 14  # of one folder


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


def room_of(path: Path) -> str:
    """The room of a source file or folder."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return "/".join(parts[:2]) if parts[0] in WINGS else parts[0]


def room_of_module(name: str) -> str:
    """The room of a module or of a name in it, as :func:`imported_modules` gives it."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        path = PACKAGE.joinpath(*parts[:length])
        if path.is_dir():
            return room_of(path / "__init__.py" if length == 1 else path)
        if path.with_suffix(".py").is_file():
            return room_of(path.with_suffix(".py"))
    return "__init__"  # a name that the package itself gives, such as __version__


def arrows() -> dict[str, set[str]]:
    """Room -> the rooms that it imports."""
    found: dict[str, set[str]] = {}
    for path in sources():
        room = room_of(path)
        targets = {room_of_module(name) for name in imported_modules(path)}
        found.setdefault(room, set()).update(targets - {room})
    return found


def may_import(room: str, target: str) -> bool:
    wing = target.split("/")[0]
    allowed = MAY_IMPORT.get(room, set())
    return target in GROUND_FLOOR or target == "__init__" or bool({target, wing} & allowed)


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path: Path):
    room = room_of(path)
    for name in imported_modules(path):
        target = room_of_module(name)
        assert target == room or may_import(room, target), f"{room} imports {name}"


def test_rooms_are_no_circle():
    left = {room: targets - {"__init__"} for room, targets in arrows().items()}
    while ground := {room for room, targets in left.items() if not targets & left.keys()}:
        left = {room: targets for room, targets in left.items() if room not in ground}
    assert left == {}


def test_the_ground_floor_imports_nothing_above_it():
    for room in GROUND_FLOOR:
        assert arrows()[room] <= GROUND_FLOOR


def test_old_places_are_for_scripts_only():
    for room, targets in arrows().items():
        assert not targets & OLD_PLACES, room


def test_rules_are_about_rooms_that_exist():
    rooms = {room_of(path) for path in sources()}
    named = {
        *MAY_IMPORT,
        *GROUND_FLOOR,
        *OLD_PLACES,
        *(x for targets in MAY_IMPORT.values() for x in targets),
    }
    assert named - rooms - WINGS == set()


def test_no_folder_is_crowded():
    for folder in {path.parent for path in sources()}:
        assert len(list(folder.glob("*.py"))) <= MOST_FILES, folder


def used_names(path: Path) -> set[str]:
    """Dotted names that ``path`` imports or its code mentions, as ``torch.jit.script``."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute):
            found.add(ast.unparse(node))
    return found


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_losses_do_without_detectron2_and_nothing_needs_the_model_zoo(path: Path):
    used = used_names(path)
    assert not {x for x in used if "model_zoo" in x.split(".") or x.endswith("jit.script")}
    if path.relative_to(PACKAGE).parts[0] == "losses":
        assert not {x for x in used if x.split(".")[0] == "detectron2"}


def test_the_tests_folder_is_found_whatever_else_is_called_tests(tmp_path: Path):
    # A checkout of Detectron2 on PYTHONPATH has a package of that name.
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "__init__.py").touch()
    found = PathFinder.find_spec("tests", [str(ROOT), str(tmp_path)])
    assert found is not None and found.origin == str(ROOT / "tests" / "__init__.py")


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
        "assert isinstance(error_class := retinanet_ext.UserError, type)\n"
        "try:\n"
        "    from retinanet_ext import RetinaNetExt\n"
        "except error_class as error:\n"
        "    print(error)\n"
        "assert retinanet_ext.losses.focal_loss and not hasattr(retinanet_ext, 'nothing')\n"
    )
    loss, message, other = run(script).splitlines()
    # ln 2 / 4 * (0.25 * 1 + 0.75 * 5) = 0.6931
    assert loss == "0.6931"
    assert other.startswith("retinanet_ext.RetinaNetExt needs Detectron2")
    assert "retinanet_ext.get_cfg needs Detectron2" in message
    assert "dev/install_detectron2.py" in message


def test_everything_imports_without_pkg_resources():
    script = BLOCK.format(name="pkg_resources") + (
        "import retinanet_ext.modeling, retinanet_ext.engine.trainer\n"
        "import retinanet_ext.evaluation, retinanet_ext.data.datasets.register, retinanet_ext.cli\n"
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
