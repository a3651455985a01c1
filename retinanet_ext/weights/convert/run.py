"""Convert a file: find out whose it is, give Detectron2's names, write what is wanted."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import yaml
from torch import Tensor

from ...errors import InputError
from ...files import write_text, written_whole
from ..foreign import read_foreign
from ..reading import CLASSES_KEY, WeightsError, read_weights, save_weights
from .common import Converted, renamed
from .into_torchvision import to_torchvision
from .mmdet import from_mmdet, to_mmdet
from .network import describe_network
from .odtk import from_odtk
from .torchvision import from_torchvision

__all__ = ["SOURCES", "TARGETS", "convert", "detect_source", "read_source", "write_target"]

SOURCES = ("torchvision", "mmdet", "odtk", "detectron2")
TARGETS = ("detectron2", "torchvision", "mmdet")

# Names, or starts of names, of tensors that only files of that toolkit have.
_SIGNS = {
    "torchvision": ("head.classification_head.",),
    "mmdet": ("bbox_head.",),
    "odtk": ("backbones.",),
    "detectron2": ("head.cls_score.", "head.cls_subnet."),
}
_FROM: dict[str, Callable[..., Converted]] = {
    "torchvision": from_torchvision,
    "mmdet": from_mmdet,
    "odtk": from_odtk,
}
# What old files of Detectron2 hold beside the network.
_NO_WEIGHTS = (r"anchor_generator\.", r"pixel_(mean|std)$", r"loss_normalizer")


def detect_source(names: Sequence[str]) -> str:
    """Whose names those of a state dict are.

    Raises:
        WeightsError: of none, or of several.
    """
    found = [
        source for source, signs in _SIGNS.items() if any(name.startswith(signs) for name in names)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise WeightsError(f"it may be of {' or '.join(found)}; say which with --from")
    raise WeightsError(
        f"it is of none of {', '.join(SOURCES)}, as far as its names tell ("
        f"{', '.join(sorted(names)[:3])}, ...); only RetinaNet can be converted"
    )


def state_of(content: Mapping[str, Any]) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of the network in a checkpoint, without wrappers' prefixes; and notes.

    Raises:
        WeightsError: there are none.
    """
    notes = []
    inner: Any = content
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(content.get(key), Mapping):
            inner = content[key]
            break
    if isinstance(content.get("ema_state_dict"), Mapping):
        notes.append("the averaged weights beside it, 'ema_state_dict', are not converted")
    tensors = {str(k): torch.as_tensor(v) for k, v in inner.items() if _is_numbers(v)}
    averaged = [k for k in tensors if k.startswith("ema_")]
    if averaged:
        notes.append("the averaged weights beside it, 'ema_...', are not converted")
    tensors = {k: v for k, v in tensors.items() if not k.startswith("ema_")}
    for prefix in ("module.", "model.", "_orig_mod."):  # DataParallel, Lightning, torch.compile
        if tensors and all(k.startswith(prefix) for k in tensors):
            tensors = {k.removeprefix(prefix): v for k, v in tensors.items()}
    if not tensors:
        raise WeightsError("it holds no tensors by name")
    return tensors, notes


def _is_numbers(value: Any) -> bool:
    return isinstance(value, Tensor) or type(value).__module__ == "numpy"


def read_source(
    path: str,
    source: str = "auto",
    *,
    classes: Sequence[str] = (),
    config: Mapping[str, Any] | None = None,
    norm_eps: float | None = None,
    style: str = "",
) -> Converted:
    """Read a file of any toolkit as a detector under Detectron2's names.

    Args:
        path: of the file.
        source: one of :data:`SOURCES`, or "auto".
        classes: names of the classes, where the file has none.
        config: for Detectron2's files, all keys by full name.
        norm_eps: of torchvision's batch norms, see :func:`.torchvision.from_torchvision`.
        style: of mmdet's ResNet, see :func:`.mmdet.from_mmdet`.

    Raises:
        WeightsError: the file cannot be converted; names the tensors.
        InputError: Detectron2's file comes without a config.
    """
    content = read_weights(path) if path.endswith((".pkl", ".pyth")) else read_foreign(path)
    try:
        weights, notes = state_of(content)
        source = detect_source(list(weights)) if source == "auto" else source
        if source == "detectron2":
            found = _from_detectron2(weights, content, config, classes)
        else:
            meta = content.get("meta")
            found = _FROM[source](
                weights,
                classes,
                meta=meta if isinstance(meta, Mapping) else {},
                norm_eps=norm_eps,
                style=style,
            )
    except WeightsError as error:
        raise WeightsError(f"'{path}' cannot be converted: {error}") from error
    found.notes[:0] = notes
    return found


def _from_detectron2(
    weights: Mapping[str, Tensor],
    content: Mapping[str, Any],
    config: Mapping[str, Any] | None,
    classes: Sequence[str],
) -> Converted:
    if config is None:
        raise InputError("weights of Detectron2 need their config; give --config-file")
    network = describe_network(weights, lambda name: name)
    model, notes = renamed(weights, network, lambda name: name, _NO_WEIGHTS)
    names = list(classes) or list(content.get(CLASSES_KEY) or ())
    return Converted(model, dict(config), names, notes)


def write_target(found: Converted, path: str, target: str) -> list[str]:
    """Write a detector for a toolkit; for Detectron2 with the config beside it.

    Args:
        found: the detector.
        path: ends with .pth or, for Detectron2, .safetensors.
        target: one of :data:`TARGETS`.

    Returns:
        Notes: what the reader has to know.

    Raises:
        InputError: the toolkit has no such network, or ``path`` ends otherwise.
    """
    stem, ending = os.path.splitext(path)
    endings = (".pth", ".safetensors") if target == "detectron2" else (".pth",)
    if ending not in endings:
        raise InputError(f"cannot write '{path}': its name must end with {' or '.join(endings)}")
    if target == "detectron2":
        save_weights(path, found.model, found.classes)
        write_text(f"{stem}.yaml", config_text({**found.config, "MODEL.WEIGHTS": path}))
        return [f"the config that makes its numbers equal: {stem}.yaml"]
    if target == "torchvision":
        weights, notes = to_torchvision(found.model, found.config, found.classes)
        content: dict[str, Any] = dict(weights)
    else:
        weights, notes = to_mmdet(found.model, found.config, found.classes)
        names = list(found.classes)
        content = {"state_dict": weights, "meta": {"CLASSES": names} if names else {}}
    with written_whole(path) as new:
        torch.save(content, new)
    return notes


def config_text(config: Mapping[str, Any]) -> str:
    """A yaml file of keys by full name."""
    tree: dict[str, Any] = {}
    for name, value in config.items():
        *parents, last = name.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return yaml.safe_dump({**tree, "VERSION": 2}, default_flow_style=None, sort_keys=False)


def convert(
    path: str, out: str, source: str = "auto", target: str = "detectron2", **options: Any
) -> tuple[Converted, list[str]]:
    """Convert a file; see :func:`read_source` and :func:`write_target`.

    Returns:
        The detector, and all notes.
    """
    found = read_source(path, source, **options)
    return found, [*found.notes, *write_target(found, out, target)]
