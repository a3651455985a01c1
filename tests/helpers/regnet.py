"""The smallest network of Detectron2's that tests put under a pyramid."""

from __future__ import annotations

from typing import Any

# Four stages of 1, 1, 2 and 1 blocks and widths 8, 16, 48 and 112.
REGNET: dict[str, Any] = {
    "MODEL.FPN.BOTTOM_UP": "build_regnet_backbone",
    "MODEL.FPN.IN_FEATURES": ["s2", "s3", "s4"],
    "MODEL.REGNET.W_0": 8,
    "MODEL.REGNET.W_A": 18.0,
    "MODEL.REGNET.W_M": 2.4,
    "MODEL.REGNET.DEPTH": 5,
    "MODEL.REGNET.GROUP_WIDTH": 8,
    "MODEL.REGNET.STEM_WIDTH": 8,
    "MODEL.REGNET.NORM": "BN",
}
