"""Packaging of retinanet_ext. Detectron2 is not listed: it is not on PyPI (see README)."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def read_version() -> str:
    """Return ``__version__`` as text; importing the package here would need PyTorch."""
    text = (ROOT / "retinanet_ext" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__\s*(?::\s*\w+\s*)?=\s*"([^"]+)"', text, re.MULTILINE)
    if match is None:
        raise RuntimeError('retinanet_ext/__init__.py holds no line `__version__ = "..."`')
    return match.group(1)


FAST_EVAL = ["faster-coco-eval>=1.6"]
# Detectron2's Visualizer imports cv2. Not a hard requirement, because opencv-python and its
# headless, contrib and distribution builds overwrite each other: whoever has one keeps it.
DRAW = ["opencv-python-headless"]
SAFETENSORS = ["safetensors"]
ANCHORS = ["scipy"]

setup(
    name="retinanet_ext",
    version=read_version(),
    description="RetinaNet as a Detectron2 extension package",
    license="Apache-2.0",
    packages=find_packages(include=["retinanet_ext", "retinanet_ext.*"]),
    package_data={"retinanet_ext": ["py.typed", "**/*.yaml"]},
    python_requires=">=3.10",
    install_requires=[
        "torch>=2.4",
        "torchvision",
        "numpy",
        "Pillow",
        "fvcore",
        "iopath",
        "portalocker",
        "pycocotools>=2.0.2,!=2.0.9,!=2.0.10",  # these two fail on a json without "info"
        "PyYAML",
        "tabulate",
        "termcolor",
        "tqdm",
        "yacs",
    ],
    extras_require={
        "draw": DRAW,
        "fast-eval": FAST_EVAL,
        "safetensors": SAFETENSORS,
        "anchors": ANCHORS,
        "dev": [
            *DRAW,
            *FAST_EVAL,
            *SAFETENSORS,
            *ANCHORS,
            "pytest>=8",
            "pytest-xdist",
            "ruff==0.17.5",
            "mypy==2.4.1",
        ],
    },
    entry_points={"console_scripts": ["retinanet-ext = retinanet_ext.cli:main"]},
)
