"""Exact speedups of the network: same parameters, same numbers within float rounding, less time.

Each is a key of MODEL.SPEEDUPS. They change how modules compute, never what they hold: the state
dict, and so every checkpoint, stays the same.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import Conv2d as NormConv2d
from detectron2.layers import FrozenBatchNorm2d
from torch import Tensor, nn

from ...compat import version_of
from ...errors import InputError
from . import pointwise, winograd
from .hooked import is_hooked


@dataclass(frozen=True)
class Speedups:
    """Which speedups a detector uses.

    Attributes:
        fold_frozen_bn: multiply FrozenBatchNorm2d into the convolution before it, at run time.
        winograd: take large 3x3 convolutions on the CPU by :mod:`.winograd`.
        pointwise: take 1x1 convolutions on one thread by :mod:`.pointwise`, where the network is
            kept in channels_last.
        sparse_box_subnet: in training on the CPU, compute the box subnet only where positives
            need it, by :mod:`.sparse_tower`.
        channels_last: where images, features and kernels are kept in the channels_last memory
            format: "all", "backbone" or "none".
        compile: run backbone and head through :func:`torch.compile`, again for each input size.
        compile_mode: of :func:`torch.compile`; "reduce-overhead" uses CUDA graphs.
        autocast: "", "bfloat16" or "float16", in which backbone and head run, on CPU or CUDA;
            losses and boxes are computed in float32 all the same. This one is not exact, and
            float16 is only for inference.
    """

    fold_frozen_bn: bool = True
    winograd: bool = True
    pointwise: bool = True
    sparse_box_subnet: bool = True
    channels_last: str = "none"
    compile: bool = False
    compile_mode: str = "default"
    autocast: str = ""

    def __post_init__(self) -> None:
        for name, known in (
            ("channels_last", ("all", "backbone", "none")),
            ("compile_mode", ("default", "reduce-overhead", "max-autotune")),
            ("autocast", ("", "bfloat16", "float16")),
        ):
            if getattr(self, name) not in known:
                raise InputError(f"{name} is {getattr(self, name)!r}; set it to one of {known}")

    @classmethod
    def from_cfg(cls, cfg: CfgNode) -> Speedups:
        """Read MODEL.SPEEDUPS; CHANNELS_LAST "auto" is :func:`best_channels_last`.

        AUTOCAST "auto" is float32 here, in training and evaluation. Who only wants detections sets
        it to :func:`best_autocast`.
        """
        node = cfg.MODEL.SPEEDUPS
        best = best_channels_last(torch.device(cfg.MODEL.DEVICE))
        return cls(
            fold_frozen_bn=node.FOLD_FROZEN_BN,
            winograd=node.WINOGRAD,
            pointwise=node.WINOGRAD,
            sparse_box_subnet=node.SPARSE_BOX_SUBNET,
            channels_last=best if node.CHANNELS_LAST == "auto" else node.CHANNELS_LAST,
            compile=node.COMPILE,
            compile_mode=node.COMPILE_MODE,
            autocast="" if node.AUTOCAST == "auto" else node.AUTOCAST,
        )

    def apply(self, backbone: nn.Module, head: nn.Module) -> None:
        """Let both compute faster, in place."""
        self.prepare(backbone, self.channels_last != "none")
        self.prepare(head, self.channels_last == "all")

    def prepare(self, network: nn.Module, channels_last: bool = False) -> None:
        """Let ``network`` compute faster, in place."""
        settings = replace(
            self,
            winograd=self.winograd and winograd.is_available(),
            pointwise=self.pointwise and channels_last,
        )
        for module in network.modules():
            # Subclasses may compute something else, so only the two plain classes change.
            if type(module) is nn.Conv2d:
                module.__class__ = FastConv2d
            elif type(module) is NormConv2d:
                module.__class__ = FastNormConv2d
            if isinstance(module, (FastConv2d, FastNormConv2d)):
                module.speedups = settings
        if channels_last:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.compile:
            network.compile(mode=self.compile_mode, dynamic=False)

    def begin_step(self) -> None:
        """Tell CUDA graphs that a new step begins: what the last one put out is done with.

        Backbone and head are a graph each; without this the head's would take the backbone's
        outputs for those of an earlier step, whose memory may be used again.
        """
        if self.compile and self.compile_mode == "reduce-overhead":
            torch.compiler.cudagraph_mark_step_begin()

    def sparse_boxes(self, features: Tensor) -> bool:
        """Whether the box subnet may be computed in parts, given one of its inputs."""
        # On GPUs whole convolutions are fast, and waiting for the positives is not.
        on_cpu = features.device.type == "cpu"
        # Parts are computed in the precision of the features, autocast's or not.
        mixed = self.autocast or torch.is_autocast_enabled(features.device.type)
        return self.sparse_box_subnet and on_cpu and not self.compile and not mixed

    def check_training(self) -> None:
        """Raise InputError where gradients would be lost."""
        if self.autocast == "float16":
            raise InputError(
                "MODEL.SPEEDUPS.AUTOCAST is 'float16', in which small gradients become 0; set it "
                "to bfloat16, or use SOLVER.AMP, which scales them"
            )

    def precision(self, device: torch.device) -> contextlib.AbstractContextManager[Any]:
        """The context that backbone and head run in."""
        if not self.autocast:
            return contextlib.nullcontext()
        return torch.autocast(device.type, getattr(torch, self.autocast))


def best_channels_last(device: torch.device) -> str:
    """The fastest ``channels_last`` on a device, as far as it was measured.

    "backbone" on a CPU. "all" on a GPU with tensor cores for TF32 and bfloat16 (Ampere and later),
    which compute in that format; "none" on others.
    """
    if device.type == "cpu":
        return "backbone"
    if device.type != "cuda" or not torch.cuda.is_available():
        return "none"
    return "all" if torch.cuda.get_device_capability(device) >= (8, 0) else "none"


def best_autocast(device: torch.device) -> str:
    """The fastest ``autocast`` for inference: "bfloat16" where it is computed in hardware, else "".

    On a CPU that is AVX512_BF16 or AMX, on a GPU Ampere or later.
    """
    if device.type == "cuda" and torch.cuda.is_available():
        return "bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) else ""
    if device.type != "cpu":
        return ""
    ask: Any = getattr(torch.cpu, "get_capabilities", dict)  # newer PyTorch
    abilities = ask()
    return "bfloat16" if abilities.get("avx512_bf16") or abilities.get("amx_bf16") else ""


class FastConv2d(nn.Conv2d):
    """:class:`torch.nn.Conv2d` that computes with :func:`convolve`."""

    speedups: Speedups

    def forward(self, x: Tensor) -> Tensor:
        return convolve(self, x, self.weight, self.bias, self.speedups)


class FastNormConv2d(NormConv2d):
    """Detectron2's convolution with norm and activation; a frozen norm goes into the kernel.

    A FrozenBatchNorm2d multiplies and shifts each channel by constants. Doing that to the kernel
    spares two passes over the output forward and one backward. It is done again at each call, since
    a kernel may change at any time; that costs a pass over the parameters. A norm that somebody
    listens to by hooks is called. On a GPU, inference leaves the norm as it is: one kernel launch,
    where folding takes two.
    """

    speedups: Speedups
    _constants: tuple[tuple[Any, ...], tuple[Tensor, Tensor]] | None = None

    def forward(self, x: Tensor) -> Tensor:
        weight, bias, norm = self.weight, self.bias, self.norm
        folds = self.speedups.fold_frozen_bn and isinstance(norm, FrozenBatchNorm2d)
        pays = x.device.type == "cpu" or torch.is_grad_enabled()
        if folds and pays and not is_hooked(norm):
            scale, shift = self._scale_and_shift(norm)
            weight = weight * scale.view(-1, 1, 1, 1)
            bias = shift if bias is None else shift + bias * scale
            norm = None
        x = convolve(self, x, weight, bias, self.speedups)
        if norm is not None:
            x = norm(x)
        return x if self.activation is None else self.activation(x)

    def _scale_and_shift(self, norm: FrozenBatchNorm2d) -> tuple[Tensor, Tensor]:
        """What the norm multiplies channels by and adds to them, each (C,).

        On a GPU they are kept until one of the norm's buffers changes: five kernel launches less.
        """
        buffers = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
        on_cpu = norm.weight.device.type == "cpu"
        if on_cpu or torch.compiler.is_compiling() or any(x.is_inference() for x in buffers):
            return scale_and_shift(norm)
        return self._kept_constants(norm, buffers)

    def _kept_constants(
        self, norm: FrozenBatchNorm2d, buffers: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor]:
        key = (*buffers, norm.eps, *map(version_of, buffers))
        if self._constants is not None and all(map(_same, key, self._constants[0])):
            return self._constants[1]
        # Out of inference mode: tensors that were born in it cannot take part in training.
        with torch.inference_mode(False), torch.no_grad():
            constants = scale_and_shift(norm)
        self._constants = key, constants
        return constants


def _same(left: Any, right: Any) -> bool:
    return left is right if isinstance(left, Tensor) else left == right


def scale_and_shift(norm: FrozenBatchNorm2d) -> tuple[Tensor, Tensor]:
    """What a frozen norm multiplies channels by and adds to them, each (C,)."""
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return scale, norm.bias - norm.running_mean * scale


def convolve(
    conv: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None, speedups: Speedups
) -> Tensor:
    """Convolve with the geometry of ``conv`` by the fastest algorithm that ``speedups`` allows."""
    simple = conv.stride == conv.dilation == (1, 1) and conv.groups == 1
    if simple and conv.padding == (1, 1) and speedups.winograd and winograd.is_faster(x, weight):
        return winograd.conv3x3(x, weight, bias)
    if simple and conv.padding == (0, 0) and speedups.pointwise and pointwise.is_faster(x, weight):
        return pointwise.conv1x1(x, weight, bias)
    return F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)
