"""CenterNet (Zhou et al., *Objects as Points*, arXiv 1904.07850); importing this registers it."""

from .decode import PeakDecoder, box_maps, find_peaks
from .head import CenterNetHead
from .keys import SECTION, check_centernet
from .meta_arch import CenterNet
from .targets import CentrePoints, around, centre_points, draw_heat, gaussian_radius
from .upsampling import UpsamplingBackbone, build_resnet_upsampling_backbone

__all__ = [
    "SECTION",
    "CenterNet",
    "CenterNetHead",
    "CentrePoints",
    "PeakDecoder",
    "UpsamplingBackbone",
    "around",
    "box_maps",
    "build_resnet_upsampling_backbone",
    "centre_points",
    "check_centernet",
    "draw_heat",
    "find_peaks",
    "gaussian_radius",
]
