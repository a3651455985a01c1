"""Every private name of PyTorch, Detectron2 and fvcore that this package relies on.

A release of theirs may change them without notice; ``tests/test_compat.py`` then says which one.
Detectron2 is imported inside the functions: the losses work without it.
"""

from __future__ import annotations

import contextlib
import importlib
import types
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental import _config as shape_config
from torch.nn.modules import module as _of_all_modules

# The common bases of batch norms, of batch and instance norms, and of dropouts have no public name.
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.nn.modules.batchnorm import _NormBase as NormBase
from torch.nn.modules.dropout import _DropoutNd as Dropout

__all__ = [
    "INHERITED",
    "BatchNorm",
    "Dropout",
    "NormBase",
    "any_size",
    "end_workers",
    "evaluate_box_proposals",
    "forget_metadata",
    "forget_process_groups",
    "graph_is_kept",
    "has_hooks",
    "is_compiled",
    "is_handled_address",
    "lerp_each",
    "nnpack_convolution",
    "norm_of_all",
    "replace_entry",
    "tensor_maker",
    "version_of",
    "with_globals",
]

INHERITED = {
    # How files are read, how weights are put into the model, and what an interrupted load leaves.
    "detectron2.checkpoint.DetectionCheckpointer": (
        "_load_file",
        "_load_model",
        "_parsed_url_during_load",
    ),
    # Where annotations of crowds are dropped.
    "detectron2.data.DatasetMapper": ("_transform_annotations",),
    # Anchors in a form that TorchScript compiles.
    "detectron2.modeling.anchor_generator.DefaultAnchorGenerator": ("_grid_anchors",),
    # The ground truth and the predictions of an evaluation.
    "detectron2.evaluation.COCOEvaluator": (
        "_coco_api",
        "_distributed",
        "_do_evaluation",
        "_output_dir",
        "_predictions",
    ),
    # The step within a trainer; Detectron2's own hooks and train scripts read it too.
    "detectron2.engine.DefaultTrainer": ("_hooks", "_last_eval_results", "_trainer"),
    "detectron2.engine.SimpleTrainer": ("_data_loader_iter",),
    # What was written last, and the file, which is opened when it is first asked for.
    "detectron2.utils.events.TensorboardXWriter": ("_last_write", "_writer"),
    "fvcore.common.registry.Registry": ("_name", "_obj_map"),
    # Called for .to() and the like, and for each module's part of a checkpoint.
    "torch.nn.Module": ("_apply", "_load_from_state_dict"),
}
"""Class -> its private methods and attributes that a subclass or hook of this package uses."""

nnpack_convolution: Any = getattr(torch, "_nnpack_spatial_convolution", None)
"""``(input, weight, bias, padding)``; None in a PyTorch without NNPACK."""


def graph_is_kept() -> bool:
    """Whether backward runs with ``retain_graph=True``; True where PyTorch does not tell."""
    query = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return True if query is None else bool(query())


def lerp_each(tensors: Sequence[Tensor], others: Sequence[Tensor], weight: float) -> None:
    """``Tensor.lerp_`` of each pair, in a few kernels for all of them."""
    torch._foreach_lerp_(list(tensors), list(others), weight)


def norm_of_all(tensors: Sequence[Tensor]) -> Tensor:
    """The L2 norm of all elements of some tensors together, a scalar, in a few kernels for all."""
    return torch.stack(torch._foreach_norm(list(tensors))).norm()


def version_of(tensor: Tensor) -> int:
    """How many times the tensor was changed in place."""
    return tensor._version


def has_hooks(module: nn.Module) -> bool:
    """Whether someone listens to inputs, outputs or gradients of this, or of any, module."""
    return any(
        (
            module._forward_hooks,
            module._forward_pre_hooks,
            module._backward_hooks,
            module._backward_pre_hooks,
            _of_all_modules._global_forward_hooks,
            _of_all_modules._global_forward_pre_hooks,
            _of_all_modules._global_backward_hooks,
            _of_all_modules._global_backward_pre_hooks,
        )
    )


def is_compiled(module: nn.Module) -> bool:
    """Whether calls of the module run what ``module.compile`` made of it."""
    return module._compiled_call_impl is not None


def replace_entry(registry: Any, name: str, entry: Any) -> None:
    """Put another object under a name of one of fvcore's registries, which only ever add."""
    registry._obj_map[name] = entry


def tensor_maker(name: str) -> Any:
    """The function of that name by which a pickle makes a tensor or parameter again."""
    return getattr(torch._utils, name)


def with_globals(function: Any, **names: Any) -> Any:
    """A function that finds other objects under some global names of its module.

    Nothing is changed for anybody else. ``DatasetMapper.__call__`` reads files by the global
    ``utils``, and has no other place to put a reader.

    Raises:
        NameError: the function does not use one of the names.
    """
    unused = set(names) - set(function.__code__.co_names)
    if unused:
        raise NameError(f"{function.__qualname__} has no global {', '.join(sorted(unused))}")
    return types.FunctionType(
        function.__code__,
        {**function.__globals__, **names},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )


def end_workers(batches: Any) -> None:
    """End the worker processes of an iterator of a DataLoader, if it has some.

    PyTorch does so when the last reference is gone, which may take until a garbage collection.
    """
    shut_down = getattr(batches, "_shutdown_workers", None)
    if shut_down is not None:
        shut_down()


def evaluate_box_proposals(
    predictions: Sequence[dict[str, Any]], coco_gt: Any, *, area: str, limit: int
) -> dict[str, Any]:
    """Detectron2's recall of proposals; ``ar`` is a tensor, a fraction."""
    module: Any = importlib.import_module("detectron2.evaluation.coco_evaluation")
    return module._evaluate_box_proposals(predictions, coco_gt, area=area, limit=limit)


def forget_metadata(metadata: Any, key: str) -> None:
    """Remove a key of a dataset's metadata, if it is there: they refuse to change a value."""
    metadata.__dict__.pop(key, None)


def is_handled_address(path: str) -> bool:
    """Whether someone has told Detectron2's ``PathManager`` how to write to an address."""
    files: Any = importlib.import_module("detectron2.utils.file_io")
    return any(path.startswith(prefix) for prefix in files.PathManager._path_handlers)


def any_size() -> contextlib.AbstractContextManager[Any]:
    """Within the block, ``torch.export`` makes programs that take sizes of 1, too.

    Otherwise it concludes of its example that the smallest maps of a pyramid are larger than that.
    """
    return shape_config.patch(backed_size_oblivious=True)  # type: ignore[attr-defined]


def forget_process_groups() -> None:
    """Let go of the process groups that ``detectron2.utils.comm`` holds."""
    comm: Any = importlib.import_module("detectron2.utils.comm")
    comm._LOCAL_PROCESS_GROUP = None
    for cached in (comm._get_global_gloo_group, comm.create_local_process_group):
        cached.cache_clear()
