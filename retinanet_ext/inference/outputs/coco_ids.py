"""Ids of images and categories for results in COCO's format: of an annotation file, or our own."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ...errors import InputError, MissingFileError, did_you_mean

__all__ = ["CocoIds"]


class CocoIds:
    """Ids of an annotation file, by file name and class name; without one, 1 and so on.

    Attributes:
        category_ids: (K,) of the model's classes.
        unknown: pictures asked for that the file does not hold.
    """

    def __init__(self, class_names: Sequence[str], annotations: str = ""):
        """
        Args:
            class_names: (K,) of the model.
            annotations: a COCO json, or "".

        Raises:
            UserError: it cannot be read, or lacks a class of the model.
        """
        self.unknown = 0
        self.categories: list[dict[str, Any]] = [
            {"id": i, "name": name} for i, name in enumerate(class_names, start=1)
        ]
        self._by_path: dict[str, int] | None = None
        if annotations:
            self._read(annotations, class_names)
        self.category_ids = [int(x["id"]) for x in self.categories]

    def _read(self, path: str, class_names: Sequence[str]) -> None:
        if not os.path.isfile(path):
            raise MissingFileError(f"--annotations is '{path}', and there is no such file")
        try:
            with open(path, encoding="utf-8") as file:
                content = json.load(file)
            images = {str(x["file_name"]): int(x["id"]) for x in content["images"]}
            known = {str(x["name"]): int(x["id"]) for x in content["categories"]}
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"--annotations is '{path}', which is no COCO json with images and categories"
            ) from error
        for name in class_names:
            if name not in known:
                raise InputError(
                    f"--annotations '{path}' has no category '{name}', a class of the model."
                    f"{did_you_mean(name, known)}"
                )
        self.categories = [{"id": known[name], "name": name} for name in class_names]
        # A path also counts by its ends, as far as these are unique: the annotations may begin in
        # another folder than the command.
        self._by_path = images
        ends = Counter(os.path.basename(name) for name in images)
        self._by_name = {
            os.path.basename(name): i
            for name, i in images.items()
            if ends[os.path.basename(name)] == 1
        }

    def image_id(self, file: str, number: int) -> int | None:
        """Of a picture; None if the annotations do not hold it.

        Args:
            file: its path.
            number: of its line in the results, which is its id where there are no annotations.
        """
        if self._by_path is None:
            return number
        parts = os.path.normpath(file).split(os.sep)
        for i in range(len(parts)):
            found = self._by_path.get("/".join(parts[i:]))
            if found is not None:
                return found
        found = self._by_name.get(parts[-1])
        self.unknown += found is None
        return found
