"""The names that users of the package import."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import retinanet_ext

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("projects/*/*.md"))]
SCRIPTS = sorted([ROOT / "train_net.py", *ROOT.glob("projects/**/*.py"), *ROOT.glob("dev/*.py")])

# Modules that moved -> where they are now. Scripts may have the old names, so these stay;
# test_package.py holds that nothing of the package uses them.
OLD_PLACES = {
    "messages": "errors",
    "validate": "config",
    "data.register": "data.datasets.register",
    "data.mapper": "data.loading.ignore_mapper",
    "engine.checkpointer": "engine.checkpoint.checkpointer",
}
# What README, docs and projects have ever imported from where.
PROMISED = {
    "": ["add_retinanet_ext_config", "get_cfg", "load_config_file", "validate_cfg"],
    "config": ["add_retinanet_ext_config", "get_cfg", "load_config_file", "validate_cfg"],
    "data.mapper": ["IgnoreRegionMapper"],
    "data.register": ["load_class_names", "register_builtin_datasets", "register_coco_dataset"],
    "engine": ["RetinaNetTrainer", "evaluate", "launch_job"],
    "engine.checkpointer": ["SafeCheckpointer"],
    "engine.setup": ["default_argument_parser", "merge_opts", "resolve_device", "setup"],
    "losses": ["BOX_IOU_LOSSES", "focal_loss", "level_views", "sigmoid_focal_loss"],
    "losses.fvcore": ["sigmoid_focal_loss"],
    "messages": ["did_you_mean"],
    "modeling": ["FocalLoss", "RetinaNetExt", "RetinaNetHead"],
    "registry": [
        *("ASSIGNER_REGISTRY", "BOX_CODER_REGISTRY", "BOX_LOSS_REGISTRY"),
        *("CLS_LOSS_REGISTRY", "DENSE_HEAD_REGISTRY"),
    ],
    "structures": ["IGNORE_LABEL", "DenseTargets"],
    "validate": ["flatten", "validate_cfg"],
}


def module_of(name: str) -> str:
    return f"retinanet_ext.{name}" if name else "retinanet_ext"


def uses(code: str) -> Iterator[str]:
    """Names below ``retinanet_ext`` that Python code imports or mentions, dotted."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute):
            yield ast.unparse(node)


def used_names() -> list[tuple[str, str]]:
    """Each (file, name) of the pages' Python blocks and prose, and of the scripts."""
    found = set()
    for page in PAGES:
        text = page.read_text()
        for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
            found.update((page.name, name) for name in uses(block))
        found.update((page.name, name) for name in re.findall(r"`(retinanet_ext[\w.]+)`", text))
    for script in SCRIPTS:
        found.update((script.name, name) for name in uses(script.read_text()))
    ours = re.compile(r"retinanet_ext(\.\w+)*$")
    return sorted((where, name) for where, name in found if ours.match(name))


def resolve(name: str) -> object:
    """What a dotted name stands for: the longest module in it, then attributes."""
    module, _, rest = name.partition(".")
    value: object = importlib.import_module(module)
    for part in filter(None, rest.split(".")):
        module += f".{part}"
        try:
            value = getattr(value, part)
        except AttributeError:
            value = importlib.import_module(module)
    return value


def test_pages_and_scripts_use_the_package():
    names = {name for _, name in used_names()}
    assert len(names) > 30
    assert {"retinanet_ext.get_cfg", "retinanet_ext.registry.CLS_LOSS_REGISTRY"} <= names


@pytest.mark.parametrize(("where", "name"), used_names(), ids=lambda part: part)
def test_a_name_that_a_page_or_script_uses_exists(where: str, name: str):
    resolve(name)


@pytest.mark.parametrize("module", PROMISED)
def test_a_promised_import_works(module: str):
    loaded = importlib.import_module(module_of(module))
    for name in PROMISED[module]:
        assert hasattr(loaded, name), name


@pytest.mark.parametrize(("old", "new"), OLD_PLACES.items())
def test_an_old_place_hands_on_what_is_now_elsewhere(old: str, new: str):
    old_module, new_module = (importlib.import_module(module_of(x)) for x in (old, new))
    assert old_module.__all__
    for name in old_module.__all__:
        assert getattr(old_module, name) is getattr(new_module, name)
    assert module_of(new) in (old_module.__doc__ or "")


def test_each_public_name_is_there_and_documented():
    for name in retinanet_ext.__all__:
        assert getattr(retinanet_ext, name) is not None
        assert name in dir(retinanet_ext)
        if not name.startswith("_"):
            assert f"``{name}``" in (retinanet_ext.__doc__ or ""), name
            assert getattr(retinanet_ext, name).__doc__, name


def test_type_checkers_see_the_names_that_are_loaded_lazily():
    code = ast.parse(Path(retinanet_ext.__file__).read_text())
    (block,) = [x for x in code.body if isinstance(x, ast.If)]
    imports = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imports == retinanet_ext._HOME
    assert {*imports, "__version__"} == set(retinanet_ext.__all__)


def test_an_unknown_name_is_an_attribute_error():
    assert not hasattr(retinanet_ext, "RetinaNet")
    with pytest.raises(AttributeError, match="module 'retinanet_ext' has no attribute 'RetinaNet'"):
        _ = retinanet_ext.RetinaNet


def test_the_trainer_is_loaded_when_it_is_first_used():
    script = (
        "import sys, retinanet_ext\n"
        "from detectron2.modeling import META_ARCH_REGISTRY\n"
        "from detectron2.data import DatasetCatalog\n"
        "assert 'RetinaNetExt' in META_ARCH_REGISTRY and 'quickstart_train' in DatasetCatalog\n"
        "late = ('engine', 'evaluation', 'benchmark', 'cli', 'visualization')\n"
        "loaded = [x for x in late if f'retinanet_ext.{x}' in sys.modules]\n"
        "assert loaded == [], loaded\n"
        "first = retinanet_ext.RetinaNetTrainer\n"
        "assert 'retinanet_ext.engine.trainer' in sys.modules\n"
        "assert vars(retinanet_ext)['RetinaNetTrainer'] is first\n"
        "assert retinanet_ext.evaluation.build_evaluator\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
