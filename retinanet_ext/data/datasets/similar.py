"""Which pictures of a set are the same or nearly so, and must not be on both sides of a split."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

__all__ = ["difference_hash", "group_similar"]

SIDE = 16  # of the hash: SIDE * SIDE bits
MOST_BITS = 8  # that differ between two pictures that are nearly the same
COPY = re.compile(r"\.rf\.[0-9a-f]{8,}$")  # Roboflow's name of an augmented copy


def difference_hash(path: str) -> bytes:
    """A perceptual hash of 256 bits: whether each cell of a 16 x 16 grid is brighter than the next.

    It hardly changes with size, compression and brightness.

    Returns:
        32 bytes; b"" for a file that cannot be read.
    """
    try:
        with Image.open(path) as image:
            image.draft("L", (8 * SIDE, 8 * SIDE))  # a JPEG is decoded at a fraction of its size
            small = image.convert("L").resize((SIDE + 1, SIDE), Image.Resampling.BILINEAR)
    except Exception:  # Pillow's decoders raise many kinds; whoever trains on it will say so
        return b""
    pixels = np.asarray(small, dtype=np.int16)
    return np.packbits(pixels[:, 1:] > pixels[:, :-1]).tobytes()


def group_similar(paths: Sequence[str]) -> list[int]:
    """The group of each picture, named by the index of its first member.

    In one group are pictures of which at most 8 of the 256 bits of the hash differ, and what such
    pairs connect; and the copies that Roboflow's export makes of one picture. Where that would put
    more than half of the set into one group, as of scans that are nearly white or of a camera that
    does not move, only equal hashes count; and where these would, too, only names.

    Args:
        paths: of pictures; those that cannot be read are groups of their own.
    """
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # decoding lets others run
        hashes = list(pool.map(difference_hash, paths))
    names = _by_key([COPY.sub("", os.path.splitext(x)[0]) for x in paths])
    for similar in (_pairs_within(hashes, MOST_BITS), _by_key(hashes)):
        groups = _joined(len(paths), [*names, *similar])
        if max(np.bincount(groups), default=0) <= len(paths) / 2:
            return groups
    return _joined(len(paths), names)


def _by_key(keys: Sequence[bytes | str]) -> list[tuple[int, int]]:
    """(first, other) of those that are equal and not empty."""
    first: dict[bytes | str, int] = {}
    return [(first[k], i) for i, k in enumerate(keys) if k and first.setdefault(k, i) != i]


def _pairs_within(hashes: Sequence[bytes], most: int) -> list[tuple[int, int]]:
    """Pairs of indices whose hashes differ in at most ``most`` bits; of equal ones, a chain.

    Of ``most + 1`` parts of a hash, two such hashes have one in common: only those are compared.
    """
    equal = _by_key(hashes)
    seen = {i for _, i in equal}
    rows = [i for i, x in enumerate(hashes) if x and i not in seen]
    if len(rows) < 2:
        return equal
    bits = np.unpackbits(np.frombuffer(b"".join(hashes[i] for i in rows), np.uint8)).reshape(
        len(rows), -1
    )
    near: list[tuple[int, int]] = []
    for part in np.array_split(np.arange(bits.shape[1]), most + 1):
        _, bucket = np.unique(np.packbits(bits[:, part], axis=1), axis=0, return_inverse=True)
        order = np.argsort(bucket.reshape(-1), kind="stable")
        for members in np.split(order, np.flatnonzero(np.diff(bucket.reshape(-1)[order])) + 1):
            for at, one in enumerate(members[:-1]):
                others = members[at + 1 :]
                close = (bits[others] != bits[one]).sum(axis=1) <= most
                near += [(rows[one], rows[other]) for other in others[close]]
    return [*equal, *near]


def _joined(number: int, pairs: Sequence[tuple[int, int]]) -> list[int]:
    """Groups of 0..number-1 that the pairs connect, each named by its smallest member."""
    parent = list(range(number))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    for one, other in pairs:
        low, high = sorted((root(one), root(other)))
        parent[high] = low
    return [root(i) for i in range(number)]
