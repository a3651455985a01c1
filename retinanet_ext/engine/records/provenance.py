"""What a run was made of: code, packages, machine and data."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import socket
import subprocess
from pathlib import Path
from typing import Any

import detectron2
import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm

from ... import __version__
from ...files import file_sha256

__all__ = ["code_revision", "dataset_fingerprint", "detectron2_build", "machine", "versions"]

COUNTED_BYTES = 64 << 20  # a larger json takes seconds and much memory to read
GIT_SECONDS = 10

_PACKAGE = str(Path(__file__).resolve().parents[2])
_DETECTRON2 = str(Path(detectron2.__file__).resolve().parent)


def versions() -> dict[str, str | None]:
    """Versions of what the numbers depend on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "torchvision": _installed("torchvision"),
        "detectron2": f"{detectron2.__version__} ({detectron2_build()})",
        "numpy": np.__version__,
        "retinanet_ext": __version__,
    }


def detectron2_build(package: str = _DETECTRON2) -> str:
    """Which Detectron2 runs: its newest commits still call themselves 0.6.

    Args:
        package: its folder.

    Returns:
        ``"git 02b5c4e2cf70"`` of a checkout or an installation from git, the full version of an
        installation that has one, such as ``"0.6+py.e9f7e2b"``, or else ``"sources 5f2b3c9d01aa"``,
        a checksum.
    """
    folder = Path(package).resolve()
    revision = code_revision(package)
    if revision is not None:
        return f"git {revision['revision'][:12]}{', changed' if revision['dirty'] else ''}"
    try:
        installed = importlib.metadata.distribution("detectron2")
        # A folder on PYTHONPATH hides what is installed.
        if Path(str(installed.locate_file("detectron2"))).resolve() == folder:
            commit = json.loads(installed.read_text("direct_url.json") or "{}")
            if commit := commit.get("vcs_info", {}).get("commit_id"):
                return f"git {commit[:12]}"
            if installed.version != detectron2.__version__:
                return installed.version
    except (importlib.metadata.PackageNotFoundError, ValueError):
        pass
    checksum = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        checksum.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return f"sources {checksum.hexdigest()[:12]}"


def machine(device: str) -> dict[str, Any]:
    """Where this process runs.

    Args:
        device: ``MODEL.DEVICE``.
    """
    kind = torch.device(device).type
    return {
        "host": socket.gethostname(),
        "system": platform.platform(),
        "device": torch.cuda.get_device_name() if kind == "cuda" else kind,
        "processes": comm.get_world_size(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "cpu": _cpu_name(),
    }


def code_revision(package: str = _PACKAGE) -> dict[str, Any] | None:
    """Git commit of the checkout that a package is part of; None for an installed copy.

    Args:
        package: its folder.

    Returns:
        ``{"revision": 40 hex digits, "dirty": whether a file under git was changed since}``.
    """
    # An installed package may lie in the folder of someone's own repository.
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    revision = _git(package, "rev-parse", "HEAD")
    changes = _git(package, "status", "--porcelain", "--untracked-files=no")
    if revision is None or changes is None:
        return None
    return {"revision": revision, "dirty": bool(changes)}


def dataset_fingerprint(name: str, num_images: int | None = None) -> dict[str, Any]:
    """What identifies the annotations of a registered dataset.

    Args:
        name: an entry of ``DATASETS``.
        num_images: if known.

    Returns:
        ``{"name", "images", "annotations", "sha256"}``: number of images, path of the annotations
        and checksum of that file, or of the boxes where these are in many files. None for what
        there is not, and for the number of images of a file so large that counting would delay the
        run.
    """
    path = MetadataCatalog.get(name).get("json_file")
    own = getattr(dict(DatasetCatalog).get(name), "fingerprint", None)
    if path is None and own is not None:
        return {"name": name, **own()}
    found: dict[str, Any] = {
        "name": name,
        "images": num_images,
        "annotations": path,
        "sha256": None,
    }
    try:
        if path is None or not os.path.isfile(path):
            return found
        found["sha256"] = file_sha256(path)
        if num_images is None and os.path.getsize(path) <= COUNTED_BYTES:
            with open(path, encoding="utf-8") as text:
                found["images"] = len(json.load(text)["images"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # whoever needs the dataset will say what is wrong with it
    return found


def _cpu_name() -> str:
    """Name of the processor; "" if the system does not tell."""
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _git(folder: str, *args: str) -> str | None:
    """Output of a git command; None if it fails, or there is no git."""
    try:
        done = subprocess.run(
            ["git", "-C", folder, *args],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
