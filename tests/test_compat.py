"""Private names of PyTorch and Detectron2 that the package relies on are still there."""

from __future__ import annotations

import ast
import inspect
import math
import re
from pathlib import Path

import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.utils import comm
from fvcore.common.registry import Registry
from torch import nn

from retinanet_ext import compat
from retinanet_ext.engine.trainer import RetinaNetTrainer
from retinanet_ext.evaluation import COCODetectionEvaluator

PACKAGE = Path(compat.__file__).parent
INHERITED = [(owner, name) for owner, names in compat.INHERITED.items() for name in names]


def source_of(owner: str) -> str:
    """The text of a class and of the bases that are not PyTorch's or Python's, or of its own."""
    module, _, name = owner.rpartition(".")
    kind = getattr(__import__(module, fromlist=[name]), name)
    bases = [x for x in kind.__mro__ if x.__module__.startswith(module.split(".")[0])]
    return "".join(inspect.getsource(x) for x in bases if not inspect.isbuiltin(x))


@pytest.mark.parametrize(("owner", "name"), INHERITED)
def test_inherited_names_are_there(owner: str, name: str):
    # Many are attributes that an __init__ sets, some as "self.a = x", some by "self.a: T = x".
    pattern = rf"(def {name}\(|\b(self|trainer)\.{name}\b.*=)"
    text = source_of(owner)
    if name == "_last_eval_results":  # what Detectron2's hook leaves on its trainer
        text = inspect.getsource(__import__("detectron2.engine.defaults", fromlist=["x"]))
    assert re.search(pattern, text), f"{owner} has no {name}"


@pytest.mark.parametrize(
    ("base", "kinds"),
    [
        (compat.BatchNorm, (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)),
        (compat.NormBase, (nn.BatchNorm2d, nn.InstanceNorm2d, nn.SyncBatchNorm)),
        (compat.Dropout, (nn.Dropout, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout)),
    ],
)
def test_bases_are_those_of_the_public_classes(base: type, kinds: tuple[type, ...]):
    assert all(issubclass(kind, base) for kind in kinds)
    assert not issubclass(nn.Conv2d, base) and not issubclass(nn.GroupNorm, base)


@pytest.mark.parametrize("kept", [True, False])
def test_backward_tells_whether_the_graph_is_kept(kept: bool):
    assert hasattr(torch._C._autograd, "_get_current_graph_task_keep_graph")
    told = []
    x = torch.ones(1, requires_grad=True)
    y = x * 2
    y.register_hook(lambda _: told.append(compat.graph_is_kept()))
    y.backward(retain_graph=kept)
    assert told == [kept]


def test_each_tensor_moves_towards_its_own():
    tensors = [torch.zeros(2), torch.ones(3)]
    compat.lerp_each(tensors, [torch.ones(2), torch.zeros(3)], 0.25)
    assert tensors[0].tolist() == [0.25, 0.25] and tensors[1].tolist() == [0.75] * 3


def test_the_norm_of_all_tensors_is_that_of_their_elements():
    tensors = [torch.tensor([3.0]), torch.tensor([[0.0, 4.0]]), torch.tensor([12.0])]
    assert compat.norm_of_all(tensors).item() == 13.0
    tensors.append(torch.tensor([math.nan]))
    assert compat.norm_of_all(tensors).isnan()


def test_versions_count_changes_in_place():
    x = torch.zeros(2)
    before = compat.version_of(x)
    x + 1
    assert compat.version_of(x) == before
    x.add_(1)
    assert compat.version_of(x) != before


@pytest.mark.parametrize(
    "register",
    [
        lambda m: m.register_forward_hook(print),
        lambda m: m.register_forward_pre_hook(print),
        lambda m: m.register_full_backward_hook(print),
        lambda m: m.register_full_backward_pre_hook(print),
        lambda m: nn.modules.module.register_module_forward_hook(print),
        lambda m: nn.modules.module.register_module_forward_pre_hook(print),
        lambda m: nn.modules.module.register_module_full_backward_hook(print),
        lambda m: nn.modules.module.register_module_full_backward_pre_hook(print),
    ],
)
def test_hooks_of_each_kind_are_seen_until_they_are_removed(register):
    module = nn.Linear(1, 1)
    assert not compat.has_hooks(module)
    handle = register(module)
    assert compat.has_hooks(module)
    handle.remove()
    assert not compat.has_hooks(module)


def test_compiled_modules_are_known():
    module = nn.ReLU()
    assert not compat.is_compiled(module)
    module.compile(backend="eager")
    assert compat.is_compiled(module) and not compat.is_compiled(nn.ReLU())


def test_nnpack_convolves_where_it_is_available():
    assert compat.nnpack_convolution is not None
    if not torch.backends.nnpack.is_available():
        pytest.skip("this machine cannot run NNPACK")
    x, weight = torch.ones(1, 16, 8, 8), torch.ones(16, 16, 3, 3)
    found = compat.nnpack_convolution(x, weight, None, padding=1)
    assert found[0, 0, 4, 4].item() == pytest.approx(9 * 16)


def test_an_entry_of_a_registry_is_replaced():
    registry, new = Registry("thing"), type("A", (), {})
    registry.register(type("A", (), {}))
    compat.replace_entry(registry, "A", new)
    assert registry.get("A") is new


def test_metadata_are_forgotten_and_may_be_set_again(request):
    name = "test_compat_forgets"
    request.addfinalizer(lambda: MetadataCatalog.pop(name))
    metadata = MetadataCatalog.get(name)
    compat.forget_metadata(metadata, "json_file")  # not there, which is fine
    metadata.json_file = "a"
    compat.forget_metadata(metadata, "json_file")
    assert metadata.get("json_file") is None
    metadata.json_file = "b"  # a change would raise
    assert metadata.json_file == "b"


def test_process_groups_are_forgotten(monkeypatch):
    assert hasattr(comm, "_LOCAL_PROCESS_GROUP")  # else the next line would make a new name
    monkeypatch.setattr(comm, "_LOCAL_PROCESS_GROUP", "a group")
    compat.forget_process_groups()
    assert comm._LOCAL_PROCESS_GROUP is None
    assert comm._get_global_gloo_group.cache_info().currsize == 0
    assert comm.create_local_process_group.cache_info().currsize == 0


def private_uses(path: Path) -> list[str]:
    """Private names that a file takes from other modules, or from objects other than ``self``."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [alias.name for alias in node.names]
            found += [x for x in names if x.startswith("_") and node.module != "__future__"]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            module = ast.unparse(node.value).split(".")[0]
            if module in {"torch", "comm", "np", "fvcore", "detectron2"}:
                found.append(node.attr)
    return [x for x in found if x.startswith("_") and not x.startswith("__")]


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_private_names_are_used_here_only(path: Path):
    assert path.name == "compat.py" or private_uses(path) == []


@pytest.mark.parametrize("kind", [RetinaNetTrainer, COCODetectionEvaluator])
def test_no_subclass_uses_a_private_name_that_is_not_listed(kind: type):
    listed = {name for names in compat.INHERITED.values() for name in names}
    foreign = [x for x in kind.__mro__[1:] if x.__module__.startswith("detectron2")]
    defined = set(
        re.findall(r"(?:self\.|def )(_[a-z]\w*)", "".join(map(inspect.getsource, foreign)))
    )
    used = set(re.findall(r"(?:self|super\(\))\.(_[a-z]\w*)", inspect.getsource(kind)))
    assert used & defined <= listed


def test_workers_of_an_iterator_can_be_ended():
    loader = torch.utils.data.DataLoader([1, 2, 3], num_workers=1)
    batches = iter(loader)
    assert next(batches) == 1
    (worker,) = batches._workers
    compat.end_workers(batches)
    assert not worker.is_alive()
    compat.end_workers(batches)
    compat.end_workers(iter(torch.utils.data.DataLoader([1])))  # has none


def test_programs_can_be_made_for_any_size():
    class Halves(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            # A convolution looks at whether its input lies in memory as if a side were 1.
            return torch.nn.functional.conv2d(x, torch.ones(1, 1, 3, 3), stride=2, padding=1)

    with compat.any_size():
        axes = ({0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC},)
        program = torch.export.export(Halves(), (torch.ones(2, 1, 8, 8),), dynamic_shapes=axes)
    assert program.module()(torch.ones(1, 1, 1, 8)).shape == (1, 1, 1, 4)
