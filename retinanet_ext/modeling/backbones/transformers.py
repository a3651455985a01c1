"""Detectron2's own vision transformers from the config: Swin, and ViT with ViTDet's pyramid.

Detectron2 has these classes in no registry, and takes two of their layers from timm.
"""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from detectron2.modeling.backbone.swin import SwinTransformer
from detectron2.modeling.backbone.vit import SimpleFeaturePyramid, ViT

from ...errors import InputError
from ...registry import reads, register_once
from .timm_networks import import_timm

SWIN_KEYS = ("EMBED_DIM", "DEPTHS", "NUM_HEADS", "WINDOW_SIZE", "DROP_PATH", "OUT_FEATURES")
SWIN_FEATURES = ("p0", "p1", "p2", "p3")
"""Detectron2's names of its outputs, of strides 4, 8, 16 and 32."""

VIT_KEYS = (
    *("IMG_SIZE", "PATCH_SIZE", "EMBED_DIM", "DEPTH", "NUM_HEADS", "DROP_PATH", "WINDOW_SIZE"),
    *("GLOBAL_BLOCKS", "REL_POS"),
)


def check_swin(cfg: CfgNode) -> None:
    """Raise unless a Swin Transformer can be made of MODEL.SWIN.

    Raises:
        MissingPackageError: timm is not installed.
        InputError: the stages have no heads, or an output is none.
    """
    import_timm("build_swin_backbone")
    node = cfg.MODEL.SWIN
    if len(node.DEPTHS) != len(node.NUM_HEADS) or len(node.DEPTHS) > len(SWIN_FEATURES):
        raise InputError(
            f"MODEL.SWIN.DEPTHS is {list(node.DEPTHS)} and MODEL.SWIN.NUM_HEADS "
            f"{list(node.NUM_HEADS)}; give one number of blocks and one of heads for each of up to "
            f"{len(SWIN_FEATURES)} stages"
        )
    known = SWIN_FEATURES[: len(node.DEPTHS)]
    if not node.OUT_FEATURES or not set(node.OUT_FEATURES) <= set(known):
        raise InputError(
            f"MODEL.SWIN.OUT_FEATURES is {list(node.OUT_FEATURES)}; name some of {', '.join(known)}"
        )


@register_once(BACKBONE_REGISTRY)
@reads(*(f"MODEL.SWIN.{name}" for name in SWIN_KEYS), check_config=check_swin)
def build_swin_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """Swin Transformer (arXiv 2103.14030) of MODEL.SWIN, for MODEL.FPN.BOTTOM_UP.

    Args:
        cfg: the config.
        input_shape: channels of the images.

    Raises:
        MissingPackageError, InputError: see :func:`check_swin`.
    """
    check_swin(cfg)
    node = cfg.MODEL.SWIN
    network: Any = SwinTransformer(
        in_chans=input_shape.channels,
        embed_dim=node.EMBED_DIM,
        depths=list(node.DEPTHS),
        num_heads=list(node.NUM_HEADS),
        window_size=node.WINDOW_SIZE,
        drop_path_rate=node.DROP_PATH,
        out_indices=sorted(SWIN_FEATURES.index(x) for x in node.OUT_FEATURES),
    )
    network._size_divisibility = 32  # Detectron2 sets it under a name that nobody reads
    return network


def check_vit(cfg: CfgNode) -> None:
    """Raise unless a ViT and its pyramid can be made of MODEL.VIT.

    Raises:
        MissingPackageError: timm is not installed.
        InputError: a stride is no power of two, heads do not divide the width, or there is no such
            block.
    """
    import_timm("build_vit_simple_pyramid")
    node = cfg.MODEL.VIT
    if node.PATCH_SIZE < 4 or node.PATCH_SIZE & (node.PATCH_SIZE - 1):
        raise InputError(
            f"MODEL.VIT.PATCH_SIZE is {node.PATCH_SIZE}, and the pyramid needs a power of two of "
            "at least 4; set it to 16"
        )
    if node.EMBED_DIM % node.NUM_HEADS or node.EMBED_DIM % 4:
        raise InputError(
            f"MODEL.VIT.EMBED_DIM is {node.EMBED_DIM}; set it to a multiple of 4 and of "
            f"MODEL.VIT.NUM_HEADS, {node.NUM_HEADS}"
        )
    if bad := [x for x in node.GLOBAL_BLOCKS if not 0 <= x < node.DEPTH]:
        raise InputError(
            f"MODEL.VIT.GLOBAL_BLOCKS has {', '.join(map(str, bad))}, but the blocks are 0 to "
            f"{node.DEPTH - 1} by MODEL.VIT.DEPTH; name some of these"
        )


@register_once(BACKBONE_REGISTRY)
@reads(*(f"MODEL.VIT.{name}" for name in VIT_KEYS), check_config=check_vit)
def build_vit_simple_pyramid(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """ViTDet (arXiv 2203.16527): a plain ViT, and P3 to P7 of its last map only, P6 from P5.

    Of MODEL.FPN, it reads OUT_CHANNELS. With patches of 16 pixels the levels are P3 to P7; of 8
    pixels, P2 to P6. ``FREEZE ["backbone.net"]`` freezes the ViT and trains the pyramid.

    Args:
        cfg: the config.
        input_shape: channels of the images.

    Raises:
        MissingPackageError, InputError: see :func:`check_vit`.
    """
    check_vit(cfg)
    node, channels = cfg.MODEL.VIT, cfg.MODEL.FPN.OUT_CHANNELS
    in_windows = [i for i in range(node.DEPTH) if i not in node.GLOBAL_BLOCKS]
    network: Any = ViT(
        img_size=node.IMG_SIZE,
        patch_size=node.PATCH_SIZE,
        in_chans=input_shape.channels,
        embed_dim=node.EMBED_DIM,
        depth=node.DEPTH,
        num_heads=node.NUM_HEADS,
        drop_path_rate=node.DROP_PATH,
        window_size=node.WINDOW_SIZE,
        window_block_indexes=in_windows,
        use_rel_pos=node.REL_POS,
    )
    coarsest = f"p{(2 * node.PATCH_SIZE).bit_length() - 1}"
    return SimpleFeaturePyramid(
        network,
        in_feature="last_feat",
        out_channels=channels,
        scale_factors=(2.0, 1.0, 0.5),
        top_block=LastLevelP6P7(channels, channels, coarsest),
        norm="LN",
    )
