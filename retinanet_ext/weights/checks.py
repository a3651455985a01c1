"""What the tensors of a file must be before anything computes with them: whole, dense, finite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ..errors import UserError

MAX_EXPANDED = 64 << 20
"""Bytes up to which a tensor may be a few numbers of the file again and again."""
MAX_DEPTH = 50  # of dicts in dicts


class WeightsError(UserError, ValueError):
    """A file of weights that cannot be used; its text is one sentence for a user."""


def refuse_absurd(path: str, value: Any, name: str = "", depth: int = 0) -> None:
    """Refuse tensors that are more than the file holds, before anything computes with them.

    Raises:
        WeightsError: names the first such tensor.
    """
    if isinstance(value, torch.Tensor):
        if value.is_nested or value.layout != torch.strided or value.device.type == "meta":
            kind = "nested" if value.is_nested else str(value.layout).removeprefix("torch.")
            raise WeightsError(
                f"'{path}' holds a tensor of the kind {kind}, '{name}'; weights are dense tensors "
                "with all their numbers in the file"
            )
        size, held = value.numel() * value.element_size(), value.untyped_storage().nbytes()
        if size > max(held, MAX_EXPANDED):
            raise WeightsError(
                f"'{path}' holds the tensor '{name}' of the shape {tuple(value.shape)}, for which "
                f"{size} bytes are needed and {held} are in the file; it is no file of weights"
            )
    elif isinstance(value, (dict, list, tuple)) and depth < MAX_DEPTH:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            refuse_absurd(path, item, f"{name}.{key}" if name else str(key), depth + 1)


def not_finite(tensors: Mapping[str, Any]) -> list[str]:
    """Names of the tensors or arrays that hold a number which is not finite, read at once."""
    found = {k: x for k, v in tensors.items() if (x := _floating(v)) is not None}
    if not found:
        return []
    finite = torch.stack([x.isfinite().all().cpu() for x in found.values()]).tolist()
    return [name for name, good in zip(found, finite, strict=True) if not good]


def _floating(value: Any) -> torch.Tensor | None:
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        value = torch.from_numpy(value)
    is_tensor = isinstance(value, torch.Tensor) and not value.is_sparse
    return value.detach() if is_tensor and value.is_floating_point() else None
