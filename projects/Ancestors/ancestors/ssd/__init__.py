"""SSD (Liu et al., arXiv 1512.02325) on ResNet features: default boxes, matching, head, network.

Softmax, 1:3 mining and the augmentations are the package's own: MODEL.RETINANET.CLASSIFIER, the
loss OHEM, and RandomZoomOut and MinIoURandomCrop of INPUT.AUG.
"""

from .assigner import BipartiteAssigner
from .backbone import SSDBackbone, build_ssd_resnet_backbone
from .boxes import SSDBoxGenerator, default_scales
from .head import SSDHead

__all__ = [
    "BipartiteAssigner",
    "SSDBackbone",
    "SSDBoxGenerator",
    "SSDHead",
    "build_ssd_resnet_backbone",
    "default_scales",
]
