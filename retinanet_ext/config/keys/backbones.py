"""The config keys of the networks under the head: the pyramid, and each kind of backbone."""

from __future__ import annotations

from .key import Section

fpn = Section("MODEL.FPN")
# All read only by build_fpn_backbone_p6p7. The backbone under the pyramid: an entry of
# Detectron2's BACKBONE_REGISTRY, such as build_resnet_backbone or build_regnet_backbone.
fpn.add("BOTTOM_UP", "build_resnet_backbone")
# What P6 is computed from: "c5", the last of FPN.IN_FEATURES (the paper), or "p5", its level of
# the pyramid.
fpn.add("TOP_BLOCK_IN", "c5", choices=("c5", "p5"))
# Whether a ReLU stands between P6 and P7 (the paper; mmdet has none).
fpn.add("TOP_BLOCK_RELU", True)

resnets = Section("MODEL.RESNETS")
# Read by build_fpn_backbone_p6p7 over a ResNet: what its batch norms add to the variance (0 in
# torchvision's first RetinaNet).
resnets.add("NORM_EPS", 1e-5, at_least=0, below=1)

# Read by build_regnet_backbone, arXiv 2003.13678, Sec. 3.3; these are RegNetX-4GF.
regnet = Section("MODEL.REGNET")
# Blocks in all; width of the first, slope of the widths, and their ratio between stages.
regnet.add("DEPTH", 23)
regnet.add("W_0", 96)
regnet.add("W_A", 38.65)
regnet.add("W_M", 2.43)
# Channels per group of the 3x3 convolutions.
regnet.add("GROUP_WIDTH", 40)
# Squeeze-and-excitation width as a fraction of the block's: 0 in RegNetX, 0.25 in RegNetY.
regnet.add("SE_RATIO", 0.0)
regnet.add("STEM_WIDTH", 32)
# See MODEL.RESNETS.NORM.
regnet.add("NORM", "FrozenBN")
# Of "stem" (stride 2), "s1" (4), "s2" (8), "s3" (16), "s4" (32).
regnet.add("OUT_FEATURES", ["s2", "s3", "s4"])

# Read by the backbones of EfficientNet-Lite: "FrozenBN" is for pretrained weights, "BN" and its
# kin over several GPUs for random ones, "" is none.
lite = Section("MODEL.EFFICIENTNET_LITE")
lite.add(
    "NORM",
    "FrozenBN",
    choices=("FrozenBN", "BN", "SyncBN", "nnSyncBN", "naiveSyncBN", "naiveSyncBN_N", ""),
)

# Read by build_timm_backbone and build_timm_fpn_p6p7: a network of timm by its name.
timm = Section("MODEL.TIMM")
timm.add("NAME", "")
# Whether timm fetches its weights, or a file of them; either only without MODEL.WEIGHTS.
timm.add("PRETRAINED", False)
timm.add("CHECKPOINT", "")
# timm's numbers of the outputs; [] is all.
timm.add("OUT_INDICES", [])

# Read by build_vit_simple_pyramid; this is ViTDet's ViT-B. All blocks but GLOBAL_BLOCKS attend to
# windows of WINDOW_SIZE x WINDOW_SIZE patches only; IMG_SIZE sizes the relative positions.
vit = Section("MODEL.VIT")
for _name, _default in {
    **{"IMG_SIZE": 1024, "PATCH_SIZE": 16, "EMBED_DIM": 768, "DEPTH": 12, "NUM_HEADS": 12},
    **{"DROP_PATH": 0.1, "WINDOW_SIZE": 14, "GLOBAL_BLOCKS": [2, 5, 8, 11], "REL_POS": True},
}.items():
    vit.add(_name, _default)

# Read by build_swin_backbone; this is Swin-T. Outputs are "p0" (stride 4) to "p3" (32).
swin = Section("MODEL.SWIN")
for _name, _default in {
    **{"EMBED_DIM": 96, "DEPTHS": [2, 2, 6, 2], "NUM_HEADS": [3, 6, 12, 24], "WINDOW_SIZE": 7},
    **{"DROP_PATH": 0.2, "OUT_FEATURES": ["p1", "p2", "p3"]},
}.items():
    swin.add(_name, _default)
