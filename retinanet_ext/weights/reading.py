"""Files of weights: read without running code that they may hold, and written for others to read.

What is not a dict of numbers and text is refused, by a sentence with the fix.
"""

from __future__ import annotations

import copy
import importlib
import json
import os
import pickle
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch

from ..errors import InputError, MissingPackageError, one_line
from ..files import written_whole
from .checks import WeightsError, refuse_absurd
from .packed import SCALES_KEY, unpack
from .unpickle import UnsafePickleError, read_pickle

CLASSES_KEY = "thing_classes"
"""Where a checkpoint holds the names of its classes, in the order of their rows."""


def read_torch(path: str) -> dict[str, Any]:
    """Read what ``torch.save`` wrote: tensors, numbers and text in Python's containers, to the CPU.

    Tensors of packed weights (:mod:`.packed`) come out as float32.

    Raises:
        WeightsError: the file asks for other Python objects, is broken or holds no dict.
        OSError: it cannot be opened.
    """

    def read() -> Any:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(content, dict) or SCALES_KEY not in content:
            return content
        refuse_absurd(path, content)
        return unpack(content)

    return _read(path, read)


def read_safetensors(path: str) -> dict[str, Any]:
    """Read a .safetensors file: ``{"model": tensors by name}``, with the class names it may have.

    Raises:
        ImportError: the package safetensors is not installed.
        WeightsError: the file is broken.
        OSError: it cannot be opened.
    """
    safetensors = require_safetensors(path)

    def read() -> dict[str, Any]:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            names = (file.metadata() or {}).get(CLASSES_KEY)
            model = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return {"model": model, **({CLASSES_KEY: json.loads(names)} if names else {})}

    return _read(path, read)


def read_zoo_file(path: str) -> dict[str, Any]:
    """Read a .pkl of a model zoo (Detectron2, Detectron, Caffe2) or a .pyth of pycls.

    Returns:
        ``{"model": arrays or tensors by name, ...}``. Where the names are not Detectron2's,
        ``matching_heuristics`` is True, and ``__author__`` tells Detectron2's checkpointer which
        names to expect.

    Raises:
        WeightsError: the file asks for other Python objects, is broken or holds no weights.
        OSError: it cannot be opened.
    """
    if path.endswith(".pyth"):
        content = read_torch(path)
        if "model_state" not in content:
            raise WeightsError(f"'{path}' has no 'model_state', as .pyth files of pycls have")
        weights = content["model_state"]
        # Not in Detectron2's FrozenBatchNorm2d.
        weights = {k: v for k, v in weights.items() if not k.endswith("num_batches_tracked")}
        return {"model": weights, "__author__": "pycls", "matching_heuristics": True}

    def read() -> Any:
        with open(path, "rb") as file:
            return read_pickle(file)

    content = _read(path, read)
    if "model" in content and "__author__" in content:
        return content
    blobs = content.get("blobs", content)  # those of ImageNet have no such level
    weights = {name: blob for name, blob in blobs.items() if not name.endswith("_momentum")}
    return {"model": weights, "__author__": "Caffe2", "matching_heuristics": True}


def read_weights(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read any file of weights: .safetensors, .pkl or .pyth of a zoo, else one of PyTorch.

    Returns:
        ``{"model": arrays or tensors by name, ...}``; ``"thing_classes"`` where the file has them.

    Raises:
        WeightsError, ImportError, OSError: see the reader of each kind.
    """
    path = os.fspath(path)
    if path.endswith((".pkl", ".pyth")):
        return read_zoo_file(path)
    content = read_safetensors(path) if path.endswith(".safetensors") else read_torch(path)
    return content if "model" in content else {"model": content}


def save_weights(
    path: str | os.PathLike[str], weights: Mapping[str, Any], thing_classes: Iterable[str] = ()
) -> None:
    """Write tensors or arrays by name, as ``model.state_dict()`` has them, in one step.

    Args:
        path: ends with .safetensors, or with .pth for PyTorch's format.
        weights: on any device; tensors that share memory are written one by one.
        thing_classes: names of the classes, which fine-tuning and prediction look for.

    Raises:
        ValueError: ``path`` ends otherwise.
        ImportError: the package safetensors is needed and not installed.
    """
    path, names = os.fspath(path), list(thing_classes)
    tensors = {k: torch.as_tensor(v).detach().cpu().clone() for k, v in weights.items()}
    if path.endswith(".pth"):
        with written_whole(path) as new:
            torch.save({"model": tensors, **({CLASSES_KEY: names} if names else {})}, new)
    elif path.endswith(".safetensors"):
        require_safetensors(path)
        metadata = {"format": "pt", **({CLASSES_KEY: json.dumps(names)} if names else {})}
        tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
        with written_whole(path) as new:
            importlib.import_module("safetensors.torch").save_file(tensors, new, metadata)
    else:
        raise InputError(f"cannot write '{path}': its name must end with .safetensors or .pth")


def require_safetensors(path: str) -> Any:
    """Return the package safetensors, or raise ImportError with the way to get it."""
    try:
        return importlib.import_module("safetensors")
    except ImportError as error:
        raise MissingPackageError(
            f"'{path}' needs the package safetensors: pip install safetensors"
        ) from error


def plain_types(value: Any) -> Any:
    """``value`` with Python numbers in place of numpy's, which ``weights_only`` would refuse."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        value = copy.copy(value)  # with the attributes of a state dict, which .copy() leaves out
        value.update({k: plain_types(v) for k, v in value.items()})
        return value
    if type(value) in (list, tuple):
        return type(value)(plain_types(x) for x in value)
    return value


def _read(path: str, read: Callable[[], Any]) -> dict[str, Any]:
    """``read()``, which must be a dict; what is wrong with the file becomes a WeightsError."""
    try:
        content = read()
    except (OSError, ImportError):
        raise
    except Exception as error:
        name = _unsafe_name(error)
        if name is None:
            reason = one_line(error)[:200]
            if reason.startswith("Weights only load failed"):  # and advice to run code in it
                reason = "PyTorch finds no tensors in it"
            raise WeightsError(
                f"'{path}' is no file of weights, or broken: {reason}; download it again"
            ) from error
        raise WeightsError(
            f"'{path}' is not loaded: it asks for the Python object '{name}', which could run "
            "code; a file of weights holds only tensors, numbers and text. If you trust where it "
            "is from, load it in Python (torch.load with weights_only=False, or pickle.load) and "
            "write its tensors with retinanet_ext.weights.reading.save_weights"
        ) from error
    if not isinstance(content, dict):
        raise WeightsError(f"'{path}' holds a {type(content).__name__}, not tensors by name")
    refuse_absurd(path, content)
    return content


def _unsafe_name(error: Exception) -> str | None:
    """The Python object that a reader refused, None if the file failed in another way."""
    if isinstance(error, UnsafePickleError):
        return error.name
    if not isinstance(error, pickle.UnpicklingError):
        return None
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    return found.group(1) if found else None
