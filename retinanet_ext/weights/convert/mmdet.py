"""RetinaNet of mmdetection 2 and 3."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ...errors import InputError
from ..reading import WeightsError
from .common import (
    ANCHORS,
    Converted,
    count_classes,
    network_config,
    permute_anchors,
    renamed,
)
from .network import describe_network, trunk_name

__all__ = ["from_mmdet", "to_mmdet"]

# As in torchvision: the ratios outside and the sizes inside.
ORDER = [ratio * 3 + size for size in range(3) for ratio in range(3)]
MEAN = [123.675, 116.28, 103.53]
STD = [58.395, 57.12, 57.375]


def _name_of(step: int) -> Any:
    """From Detectron2's name, for a head of ``step`` layers per convolution."""

    def name_of(name: str) -> str:
        if name.startswith("backbone.bottom_up."):
            return f"backbone.{trunk_name(name.removeprefix('backbone.bottom_up.'))}"
        found = re.match(r"backbone\.fpn_(lateral|output)(\d)\.(.*)", name)
        if found:
            kind = {"lateral": "lateral_convs", "output": "fpn_convs"}[found[1]]
            return f"neck.{kind}.{int(found[2]) - 3}.conv.{found[3]}"
        found = re.match(r"backbone\.top_block\.p(\d)\.(.*)", name)
        if found:
            return f"neck.fpn_convs.{int(found[1]) - 3}.conv.{found[2]}"
        found = re.match(r"head\.(cls|bbox)_subnet\.(\d+)\.(.*)", name)
        if found:
            kind = {"cls": "cls_convs", "bbox": "reg_convs"}[found[1]]
            conv, layer = divmod(int(found[2]), step)
            return f"bbox_head.{kind}.{conv}.{('conv', 'gn', '')[layer]}.{found[3]}"
        name = name.replace("head.cls_score.", "bbox_head.retina_cls.")
        return name.replace("head.bbox_pred.", "bbox_head.retina_reg.")

    return name_of


def from_mmdet(
    weights: Mapping[str, Tensor],
    classes: Sequence[str] = (),
    meta: Mapping[str, Any] | None = None,
    style: str = "",
    **_: Any,
) -> Converted:
    """A detector from mmdet's state dict.

    Args:
        weights: by mmdet's names.
        classes: names of the classes, in place of those in ``meta``.
        meta: of the checkpoint: names of the classes, and the text of mmdet's config, which says
            the style of the ResNet and what P6 and P7 are computed from.
        style: "pytorch" or "caffe", where the text does not say it.

    Raises:
        WeightsError: it is another network, or the head's norms are not the levels' own.
        InputError: ``style`` is neither.
    """
    meta = meta or {}
    text = next((x for x in (meta.get("cfg"), meta.get("config")) if isinstance(x, str)), "")
    odd = sorted(k for k in weights if re.match(r"bbox_head\.(cls|reg)_convs\.\d+\.(\d|bn)", k))
    if odd:
        raise WeightsError(
            f"its head has batch norms of each level ({odd[0]}: RetinaSepBNHead), which cannot be "
            "converted"
        )
    has_norm = "bbox_head.cls_convs.0.gn.weight" in weights
    name_of = _name_of(3 if has_norm else 2)
    network = describe_network(weights, name_of)
    model, notes = renamed(weights, network, name_of)
    config = network_config(model, network)
    if re.search(r"add_extra_convs\s*=\s*['\"]on_lateral", text):
        raise WeightsError("its P6 is computed from the lateral of C5, which cannot be converted")
    permute_anchors(model, ORDER, config["MODEL.RETINANET.NUM_CLASSES"])
    said = re.search(r"style\s*=\s*['\"](pytorch|caffe)['\"]", text)
    if style not in ("", "pytorch", "caffe"):
        raise InputError(f"--style is '{style}'; give pytorch or caffe")
    if not said and not style:
        notes.append(
            "the file does not say which ResNet it has; pytorch is taken (stride in 3x3, RGB), "
            "give --style caffe for one with BGR pixels"
        )
    caffe = (style or (said[1] if said else "pytorch")) == "caffe"
    config |= {
        "MODEL.FPN.TOP_BLOCK_RELU": bool(re.search(r"relu_before_extra_convs\s*=\s*True", text)),
        "MODEL.RESNETS.STRIDE_IN_1X1": caffe,
        "MODEL.RETINANET.CLIP_BEFORE_NMS": True,
        "MODEL.PIXEL_MEAN": MEAN[::-1] if caffe else MEAN,
        "MODEL.PIXEL_STD": [1.0, 1.0, 1.0] if caffe else STD,
        "INPUT.FORMAT": "BGR" if caffe else "RGB",
    }
    notes.append("mmdet resizes by OpenCV, this package as Pillow does")
    return Converted(model, config, _classes(classes, meta, config), notes)


def _classes(
    classes: Sequence[str], meta: Mapping[str, Any], config: Mapping[str, Any]
) -> list[str]:
    """Names that fit the number of classes: those given, else those in the file.

    Raises:
        WeightsError: the given ones do not.
    """
    count = config["MODEL.RETINANET.NUM_CLASSES"]
    if classes and len(classes) != count:
        raise WeightsError(f"it has {count} classes, but {len(classes)} names are given")
    data = meta.get("dataset_meta")
    places = [meta.get("CLASSES")]
    if isinstance(data, Mapping):
        places += [data.get("classes"), data.get("CLASSES")]
    for names in (classes, *places):
        if isinstance(names, (list, tuple)) and len(names) == count:
            return [str(x) for x in names]
    return []


def to_mmdet(
    model: Mapping[str, Tensor], config: Mapping[str, Any], classes: Sequence[str]
) -> tuple[dict[str, Tensor], list[str]]:
    """mmdet's state dict of a detector; see :func:`.torchvision.to_torchvision`.

    Raises:
        InputError: mmdet has no such network; names the key.
    """
    if config["MODEL.ANCHOR_GENERATOR.CELL_ANCHORS"]:
        raise InputError(
            "MODEL.ANCHOR_GENERATOR.CELL_ANCHORS is set, but mmdet makes its anchors from octaves"
        )
    model = dict(model)
    network = describe_network(model, lambda name: name)
    permute_anchors(model, [ORDER.index(i) for i in range(ANCHORS)], count_classes(model))
    name_of, found = _name_of(3 if network.has_norm else 2), {}
    for name in network.names():
        if name not in model:
            continue
        if network.has_norm and network.may_lack(name) and name.endswith(".bias"):
            if model[name].any():
                raise InputError(f"{name} is not 0, but mmdet has no bias before a norm")
            continue
        found[name_of(name)] = model[name]
    style = "caffe" if config["MODEL.RESNETS.STRIDE_IN_1X1"] else "pytorch"
    source = "on_input" if config["MODEL.FPN.TOP_BLOCK_IN"] == "c5" else "on_output"
    notes = [
        f"its config: backbone depth={config['MODEL.RESNETS.DEPTH']}, style='{style}'; neck "
        f"add_extra_convs='{source}', "
        f"relu_before_extra_convs={config['MODEL.FPN.TOP_BLOCK_RELU']}; "
        f"num_classes={count_classes(dict(model))}; data_preprocessor "
        f"mean={config['MODEL.PIXEL_MEAN']}, std={config['MODEL.PIXEL_STD']}, "
        f"bgr_to_rgb={config['INPUT.FORMAT'] == 'RGB'}",
        "anchors: octave_base_scale=4 and scales_per_octave=3 are expected, the config has "
        f"OCTAVE_BASE_SIZES {config['MODEL.ANCHOR_GENERATOR.OCTAVE_BASE_SIZES']}",
    ]
    if not config["MODEL.RETINANET.CLIP_BEFORE_NMS"]:
        notes.append("mmdet cuts boxes to the image before NMS, this model after it")
    return found, notes
