"""Checkpoints of other toolkits: their tensors and plain values, without what else is in them.

mmdet's files hold objects of its own beside the tensors, so PyTorch's safe reader refuses them
whole. Here PyTorch's unpickler meets a table of what makes tensors; whatever else a file asks for
becomes an empty object that does nothing, is never called and is left out.
"""

from __future__ import annotations

import collections
import os
import pickle
import types
from typing import Any

import torch
from torch import Tensor

from ..compat import tensor_maker
from .checks import refuse_absurd
from .reading import WeightsError, read_safetensors, read_torch

__all__ = ["read_foreign"]

_TENSOR_MAKERS = {
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_tensor"),
    ("torch._utils", "_rebuild_parameter"),
}
_CONTAINERS = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("builtins", "dict"): dict,
    ("builtins", "list"): list,
    ("builtins", "tuple"): tuple,
    ("builtins", "set"): set,
}


class _Nothing:
    """In the place of an object of another package: takes any state, and has none."""

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        pass

    def extend(self, items: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def __hash__(self) -> int:
        return 0


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _CONTAINERS:
            return _CONTAINERS[module, name]
        if (module, name) in _TENSOR_MAKERS:
            return tensor_maker(name)
        is_storage = module == "torch" and name.endswith("Storage")
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        return getattr(torch, name) if is_storage or is_dtype else _Nothing


def _load(file: Any, **options: Any) -> Any:
    return _Unpickler(file, **options).load()


# What torch.load asks of the module `pickle`.
_PICKLE: Any = types.ModuleType("pickle_without_objects")
_PICKLE.Unpickler = _Unpickler
_PICKLE.load = _load
_PICKLE.UnpicklingError = pickle.UnpicklingError


def read_foreign(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint of PyTorch's or safetensors' format, whatever toolkit wrote it.

    Returns:
        Its dict, of tensors, numbers, text and containers of these; other values are None.

    Raises:
        WeightsError: it is no such file.
        ImportError: it ends with .safetensors and that package is not installed.
        OSError: it cannot be opened.
    """
    path = os.fspath(path)
    if path.endswith(".safetensors"):
        return read_safetensors(path)
    try:
        return read_torch(path)
    except WeightsError as error:
        if "asks for the Python object" not in str(error):
            raise
    try:
        content = torch.load(path, map_location="cpu", pickle_module=_PICKLE, weights_only=False)
    except OSError:
        raise
    except Exception as error:
        raise WeightsError(
            f"'{path}' is no checkpoint of PyTorch, or broken; download it again"
        ) from error
    if not isinstance(content, dict):
        raise WeightsError(f"'{path}' holds no tensors by name")
    plain = _plain(content)
    refuse_absurd(path, plain)
    return dict(plain)


def _plain(value: Any) -> Any:
    if isinstance(value, (Tensor, str, int, float, bool)) or value is None:
        return value
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items() if isinstance(k, (str, int))}
    if isinstance(value, (list, tuple)):
        return [_plain(x) for x in value]
    return None
