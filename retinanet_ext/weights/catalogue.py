"""Weights of RetinaNet trained on COCO that can be had: where from, how large, how good.

Detectron2's files go to the place where its ``detectron2://`` and ``https://`` addresses look for
them, so a config that names one finds it without internet once it was fetched or brought. The AP is
that of their authors on COCO's val2017. A checksum is known only where the file's name holds its
start; of all others the SHA-256 is written beside the file when it arrives, to tell later damage.
"""

from __future__ import annotations

import hashlib
import os
import urllib.request
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import urlparse

from iopath.common.file_io import get_cache_dir

from ..errors import ConfigError, InputError, did_you_mean, one_line
from ..files import find_damage, write_checked
from ..untrusted import check_regular
from .reading import WeightsError

__all__ = ["CATALOGUE", "Entry", "entry_of", "fetch", "has_copy", "place_of"]

_CHUNK = 1 << 20
_TIMEOUT = 60  # seconds without a byte


@dataclass(frozen=True)
class Entry:
    """A file of weights.

    Attributes:
        name: in the catalogue.
        url: where it is.
        megabytes: its size, in 10^6 bytes; with ``about``, that of the parameters in it.
        about: whether the size is not published.
        ap: box AP on COCO val2017 as published, in percent.
        sha256: its start as far as it is known, "" if not at all.
        config: the shipped config that it is for, or "" where it is first converted.
        source: of ``retinanet-ext convert --from``, "" where there is nothing to convert.
    """

    name: str
    url: str
    megabytes: float
    ap: float
    about: bool = False
    sha256: str = ""
    config: str = ""
    source: str = ""

    @property
    def file_name(self) -> str:
        return os.path.basename(urlparse(self.url).path)

    @property
    def use(self) -> str:
        """What to write to use it."""
        if self.source:
            return f"retinanet-ext convert FILE OUT --from {self.source}"
        return f"--config-file {self.config} MODEL.WEIGHTS {self.url}"


def _detectron2(name: str, path: str, megabytes: float, ap: float) -> Entry:
    url = f"https://dl.fbaipublicfiles.com/detectron2/COCO-Detection/{name}/{path}"
    return Entry(name, url, megabytes, ap, about=True, config=f"{name}.yaml")


def _torchvision(name: str, file: str, megabytes: float, ap: float) -> Entry:
    url = f"https://download.pytorch.org/models/{file}"
    start = os.path.splitext(file)[0].rpartition("-")[2]
    return Entry(f"torchvision_{name}", url, megabytes, ap, sha256=start, source="torchvision")


CATALOGUE = {
    entry.name: entry
    for entry in (
        _detectron2("retinanet_R_50_FPN_1x", "190397773/model_final_bfca0b.pkl", 152, 37.4),
        _detectron2("retinanet_R_50_FPN_3x", "190397829/model_final_5bd44e.pkl", 152, 38.7),
        _detectron2("retinanet_R_101_FPN_3x", "190397697/model_final_971ab9.pkl", 228, 40.4),
        # Sizes of torchvision's own tables are in 2^20 bytes.
        _torchvision(
            "retinanet_resnet50_fpn", "retinanet_resnet50_fpn_coco-eeacb38b.pth", 136.6, 36.4
        ),
        _torchvision(
            "retinanet_resnet50_fpn_v2",
            "retinanet_resnet50_fpn_v2_coco-5905b1c5.pth",
            153.1,
            41.5,
        ),
        Entry(
            "mmdet_retinanet_r50_fpn_1x",
            "https://download.openmmlab.com/mmdetection/v2.0/retinanet/retinanet_r50_fpn_1x_coco/"
            "retinanet_r50_fpn_1x_coco_20200130-c2398f9e.pth",
            152,
            36.5,
            about=True,
            sha256="c2398f9e",
            source="mmdet",
        ),
    )
}


def entry_of(name: str) -> Entry:
    """
    Raises:
        ConfigError: the catalogue has nothing of that name.
    """
    if name not in CATALOGUE:
        raise ConfigError(
            f"there are no weights '{name}' in the catalogue.{did_you_mean(name, CATALOGUE)} "
            f"Known: {', '.join(CATALOGUE)}"
        )
    return CATALOGUE[name]


def place_of(entry: Entry) -> str:
    """Path at which the file is, or will be, on this machine: in the cache of Detectron2's files.

    ``$FVCORE_CACHE`` sets that folder.
    """
    path = urlparse(entry.url).path.lstrip("/")
    return os.path.join(get_cache_dir(None), *path.split("/"))


def fetch(entry: Entry, source: str = "") -> str:
    """Bring a file to its place, from the internet or from a copy.

    Args:
        entry: of the catalogue.
        source: a file that somebody carried over; "" is the internet.

    Returns:
        Its path. What is there already and not damaged stays.

    Raises:
        InputError: ``source`` is no file, or another one.
        WeightsError: it cannot be fetched, or arrives with another checksum; says which file to
            bring.
    """
    place = place_of(entry)
    if not source and os.path.isfile(place) and not find_damage(place):
        return place
    os.makedirs(os.path.dirname(place), exist_ok=True)
    if source:
        check_regular(source)
        with open(source, "rb") as file:
            write_checked(place, lambda new: _copy(file, new, entry, source))
        return place
    try:
        with urllib.request.urlopen(entry.url, timeout=_TIMEOUT) as answer:
            write_checked(place, lambda new: _copy(answer, new, entry, entry.url))
    except OSError as error:
        raise WeightsError(
            f"{entry.url} cannot be fetched ({one_line(error)[:100]}); download {entry.file_name} "
            f"elsewhere, bring it here and run: retinanet-ext weights fetch {entry.name} --from "
            f"{entry.file_name}"
        ) from error
    return place


def _copy(source: BinaryIO, new: BinaryIO, entry: Entry, where: str) -> None:
    """Copy it, and refuse what is not that file before it gets its name."""
    digest, size = hashlib.sha256(), 0
    while chunk := source.read(_CHUNK):
        digest.update(chunk)
        size += len(chunk)
        new.write(chunk)
    if entry.sha256 and not digest.hexdigest().startswith(entry.sha256):
        raise InputError(
            f"{where} is not {entry.file_name}, or damaged: its SHA-256 begins with "
            f"{digest.hexdigest()[:8]}, not {entry.sha256}; download {entry.url} again"
        )
    tolerance = 2.0 if entry.about else 1.1
    if not 1 / tolerance < size / (entry.megabytes * 1e6) < tolerance:
        raise InputError(
            f"{where} has {size / 1e6:.1f} MB, but {entry.file_name} has about "
            f"{entry.megabytes:.0f}; download {entry.url} again"
        )


def has_copy(entry: Entry) -> bool:
    """Whether the file is on this machine; its content is not looked at."""
    return os.path.isfile(place_of(entry))
