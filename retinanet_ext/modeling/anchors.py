"""Anchors described the way the paper does: octaves, scales per octave, aspect ratios."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.config import get_cfg as get_detectron2_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import ANCHOR_GENERATOR_REGISTRY
from detectron2.modeling.anchor_generator import BufferList, DefaultAnchorGenerator
from detectron2.structures import Boxes
from torch import Tensor

from ..compat import version_of
from ..errors import InputError
from ..registry import register_once, require_keys
from .anchor_sizes import (
    SCALES_PER_OCTAVE,
    check_cell_anchors,
    check_nothing_else,
    chosen_sizes,
    octave_sizes,
)

# Multi-scale training with Detectron2's defaults sees a few times as many sizes, in no order; one
# size of 800 x 1056 takes 2.5 MB.
_SIZES_TO_KEEP = 16


@register_once(ANCHOR_GENERATOR_REGISTRY)
class RetinaNetAnchorGenerator(DefaultAnchorGenerator):
    """Anchors of every size and ratio at each location of each level (Sec. 4, "Anchors").

    With the paper's setting (bases 32 to 512, 3 scales, ratios 1:2, 1:1, 2:1) these are the anchors
    of Detectron2's RetinaNet. Sizes that are no octaves are given as ``SIZES``, with
    OCTAVE_BASE_SIZES []. Any Detectron2 model that builds its anchors from the config can use
    it.

    The anchors of the last sizes are kept and given out again.
    """

    config_keys = ("OCTAVE_BASE_SIZES", "SCALES_PER_OCTAVE", "SCALES_OF_LEVELS", "CELL_ANCHORS")

    @configurable
    def __init__(
        self,
        *,
        octave_base_sizes: Sequence[float] = (),
        scales_per_octave: int | Sequence[int] = SCALES_PER_OCTAVE,
        aspect_ratios: Sequence[Sequence[float]],
        strides: Sequence[int],
        offset: float = 0.5,
        sizes: Sequence[Sequence[float]] = (),
        cell_anchors: Sequence[Sequence[Sequence[float]]] = (),
    ):
        """
        Args:
            octave_base_sizes: smallest anchor size of each level, in pixels of the network's input;
                empty: the ``sizes`` are given.
            scales_per_octave: sizes per level, one number or one for each level; the next level's
                base continues the octave.
            aspect_ratios: height / width; one list for all levels, or one per level.
            strides: of each level, in pixels.
            offset: of the first anchor's centre from the top left corner, in strides, in [0, 1).
            sizes: in the place of octaves, any sizes in pixels; one list for all levels, or one per
                level.
            cell_anchors: in the place of sizes and ratios, for each level a list of XYXY boxes in
                pixels from a location.

        Raises:
            ValueError: if the number of bases, or of lists of sizes or boxes, is not the number of
                levels.
        """
        if cell_anchors:
            check_cell_anchors(cell_anchors, len(strides))
            sizes = [[1.0]]  # of anchors that are replaced below
        for key, given, numbers in (
            ("OCTAVE_BASE_SIZES", octave_base_sizes, (len(strides),)),
            ("SIZES", sizes, (1, len(strides))),
        ):
            if given and len(given) not in numbers:
                raise InputError(
                    f"MODEL.ANCHOR_GENERATOR.{key} has {len(given)} entries {list(given)}, but "
                    f"there are {len(strides)} feature levels with strides {list(strides)}; give "
                    "one per level"
                )
        super().__init__(
            sizes=chosen_sizes(octave_base_sizes, scales_per_octave, sizes),
            aspect_ratios=aspect_ratios,
            strides=strides,
            offset=offset,
        )
        if cell_anchors:
            self.cell_anchors = BufferList([torch.tensor(level).float() for level in cell_anchors])
        self._cache = _TensorCache(_SIZES_TO_KEEP)

    @classmethod
    def check_config(cls, cfg: CfgNode) -> None:
        """Raise InputError for impossible octaves or sizes, and for some that contradict others."""
        node = cfg.MODEL.ANCHOR_GENERATOR
        scales = node.SCALES_OF_LEVELS or node.SCALES_PER_OCTAVE
        if node.CELL_ANCHORS:
            check_nothing_else(node)
            return
        is_set = node.SIZES != get_detectron2_cfg().MODEL.ANCHOR_GENERATOR.SIZES
        if node.OCTAVE_BASE_SIZES or not is_set:
            sizes = octave_sizes(node.OCTAVE_BASE_SIZES, scales)
            if is_set and sizes != node.SIZES:
                raise InputError(
                    f"MODEL.ANCHOR_GENERATOR.SIZES is {node.SIZES}, but {node.NAME} reads "
                    f"OCTAVE_BASE_SIZES {node.OCTAVE_BASE_SIZES} and SCALES_PER_OCTAVE {scales} "
                    "instead; set those, or OCTAVE_BASE_SIZES to []"
                )
            return
        chosen_sizes((), scales, node.SIZES)
        if scales != SCALES_PER_OCTAVE:
            key = "SCALES_OF_LEVELS" if node.SCALES_OF_LEVELS else "SCALES_PER_OCTAVE"
            raise InputError(
                f"MODEL.ANCHOR_GENERATOR.{key} is {scales}, but with OCTAVE_BASE_SIZES [] nothing "
                "reads it: SIZES says all; remove it"
            )

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: list[ShapeSpec]) -> dict[str, Any]:
        require_keys(cfg, "MODEL.ANCHOR_GENERATOR.OCTAVE_BASE_SIZES")
        node = cfg.MODEL.ANCHOR_GENERATOR
        return {
            "octave_base_sizes": node.OCTAVE_BASE_SIZES,
            "scales_per_octave": node.SCALES_OF_LEVELS or node.SCALES_PER_OCTAVE,
            "sizes": () if node.OCTAVE_BASE_SIZES or node.CELL_ANCHORS else node.SIZES,
            "cell_anchors": node.CELL_ANCHORS,
            "aspect_ratios": node.ASPECT_RATIOS,
            "strides": [shape.stride for shape in input_shape],
            "offset": node.OFFSET,
        }

    def forward(self, features: list[Tensor]) -> list[Boxes]:
        """Return L Boxes (Hi*Wi*Ai, 4), absolute XYXY pixels, in the order (Hi, Wi, Ai).

        The Boxes are new, their tensors are shared between calls; changing one in place only makes
        the next call compute its anchors again.

        Args:
            features: L feature maps (N, C, Hi, Wi); only their last two sizes are used.
        """
        if torch.jit.is_scripting():  # only Detectron2's own way is one that TorchScript knows
            grid_sizes = [feature.shape[-2:] for feature in features]
            return [Boxes(x) for x in self._grid_anchors(grid_sizes)]
        return [Boxes(x) for x in self._kept_anchors(features)]

    @torch.jit.unused
    def _kept_anchors(self, features: list[Tensor]) -> list[Tensor]:
        if torch.jit.is_tracing() or torch.compiler.is_compiling():
            return self._all_anchors(features)  # a graph follows any size
        sizes = tuple(tuple(feature.shape[-2:]) for feature in features)
        cells = tuple((cell.device, cell.dtype) for cell in self.cell_anchors)
        return self._cache.get((sizes, cells), lambda: self._all_anchors(features))

    def _all_anchors(self, features: list[Tensor]) -> list[Tensor]:
        levels = zip(features, self.strides, self.cell_anchors, strict=True)
        # Boxes are float32 in any model.
        return [level_anchors(*level, self.offset).to(torch.float32) for level in levels]

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        """What moves or casts the module leaves no anchors of before behind."""
        self._cache.clear()
        return super()._apply(*args, **kwargs)


def level_anchors(feature: Tensor, stride: int, cell_anchors: Tensor, offset: float) -> Tensor:
    """Anchors (Hi*Wi*A, 4) of one level, absolute XYXY pixels, in the order (Hi, Wi, A).

    Args:
        feature: (..., Hi, Wi).
        stride: of the level, in pixels.
        cell_anchors: (A, 4) XYXY around (0, 0).
        offset: of the first anchor's centre from the top left corner, in strides.
    """
    height, width = feature.shape[-2:]
    device, dtype = cell_anchors.device, cell_anchors.dtype
    rows = (torch.arange(height, device=device, dtype=dtype) + offset) * stride
    columns = (torch.arange(width, device=device, dtype=dtype) + offset) * stride
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    centres = torch.stack((x, y, x, y), dim=-1)  # (Hi, Wi, 4)
    return (centres[:, :, None] + cell_anchors).reshape(-1, 4)


class _TensorCache:
    """The tensors of the last few keys; a copy of it, pickled or not, is empty.

    Two threads may use it at once: each operation on the dict is a single one.
    """

    def __init__(self, max_entries: int):
        self._max_entries = max_entries
        self._entries: dict[Hashable, tuple[list[Tensor], list[int]]] = {}

    def get(self, key: Hashable, make: Callable[[], list[Tensor]]) -> list[Tensor]:
        """The tensors of ``key``: the kept ones, or new ones if there are none or were changed."""
        tensors, versions = self._entries.pop(key, ([], []))
        if not tensors or [version_of(x) for x in tensors] != versions:
            # Out of inference mode: tensors that were born in it cannot take part in training.
            with torch.inference_mode(False), torch.no_grad():
                tensors = make()
            if tensors[0].is_cuda and torch.cuda.is_current_stream_capturing():
                return tensors  # they have no values before the graph is replayed
        self._entries[key] = tensors, [version_of(x) for x in tensors]  # the newest key comes last
        for old in list(self._entries)[: -self._max_entries]:
            self._entries.pop(old, None)
        return tensors

    def clear(self) -> None:
        self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)

    def __reduce__(self) -> tuple[type[_TensorCache], tuple[int]]:
        return _TensorCache, (self._max_entries,)
