"""Entries as pictures for the Predictor, each with what its results are to say."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from ...errors import UserError, one_line
from ..pictures import Picture
from .camera import Camera
from .files import Entry
from .video import Video

__all__ = ["Item", "Items", "VideoOptions"]


@dataclass(frozen=True)
class Item:
    """Where a picture comes from.

    Attributes:
        file: path of the picture or the video.
        index: in the order of all sources, from 0; the same in every run over the same sources.
        stem: relative path of its outputs without their suffix; no other picture has it.
        frame: of a video, from 0; None of a picture.
        seconds: time of the frame.
    """

    file: str
    index: int
    stem: str
    frame: int | None = None
    seconds: float | None = None

    @property
    def key(self) -> tuple[str, int | None]:
        """What tells it from every other."""
        return self.file, self.frame


@dataclass(frozen=True)
class VideoOptions:
    """Which frames are taken.

    Attributes:
        every: each so many.
        start, end: seconds; None is the beginning, or the end.
    """

    every: int = 1
    start: float | None = None
    end: float | None = None


class Items:
    """Pictures for ``Predictor.stream``, with an :class:`Item` as their ``extra``."""

    def __init__(
        self,
        entries: Iterable[Entry],
        options: VideoOptions | None = None,
        done: Collection[tuple[str, int | None]] = (),
        failed: Callable[[str, str], None] | None = None,
        noted: Callable[[str], None] | None = None,
    ):
        """
        Args:
            entries: what to read.
            options: for videos.
            done: keys of items that are left out.
            failed: is told the name and the reason of a video that cannot be read; by default the
                error is raised.
            noted: is told, in a sentence, what is odd about a video that was read.
        """
        self._entries = entries
        self._options = options or VideoOptions()
        self._done = done
        self._failed = failed
        self._noted = noted
        self._stems = Stems()

    def __iter__(self) -> Iterator[Picture]:
        index = 0
        for entry in self._entries:
            stem = self._stems.of(entry.place)
            if entry.kind == "picture":
                item = Item(entry.path, index, stem)
                index += 1
                if item.key not in self._done:
                    yield Picture(entry.path, name=entry.path, extra=item)
                continue
            for picture in self._frames(entry, stem, index):
                index = picture.extra.index + 1
                yield picture

    def _frames(self, entry: Entry, stem: str, index: int) -> Iterator[Picture]:
        live = entry.kind == "camera"
        options = self._options
        try:
            with Camera(entry.path) if live else Video(entry.path) as opened:
                frames = opened.frames(options.every, options.start, options.end)
                for at, (frame, seconds, pixels) in enumerate(frames, index):
                    item = Item(entry.path, at, f"{stem}_frame_{frame:06d}", frame, seconds)
                    if item.key not in self._done:
                        yield Picture(pixels(), "BGR", f"{entry.path} frame {frame}", item)
                if self._noted is not None and isinstance(opened, Video) and opened.cut_off:
                    self._noted(opened.cut_off)
        except UserError as error:
            if self._failed is None or live or isinstance(error, ImportError):
                raise
            self._failed(entry.path, one_line(error))


class Stems:
    """Paths for outputs without suffix, no two the same; the same ones for the same order."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def of(self, place: str) -> str:
        """``a/x`` of ``a/x.jpg``; ``a/x.png`` of ``a/x.png`` if that is taken."""
        choices = [os.path.splitext(place)[0], place]
        number = 2
        while choices[0] in self._taken:
            choices = choices[1:] or [f"{place}~{number}"]
            number += len(choices[0]) > len(place)
        self._taken.add(choices[0])
        return choices[0]
