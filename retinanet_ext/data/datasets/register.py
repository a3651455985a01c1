"""Dataset names in Detectron2's catalogs: a user's COCO json, and the built-in ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json
from detectron2.utils.file_io import PathManager

from ...errors import InputError, MissingFileError, UserError, one_line
from ...protocols import LazyDataset
from ..formats import Source, read_cached
from ..formats.plain_text import read_json
from ..quickstart.dataset import CLASS_NAMES, SPLITS, STYLES, ensure_quickstart, folder_of
from .usable import keep_usable_boxes

__all__ = [
    "class_names_of",
    "load_class_names",
    "register_builtin_datasets",
    "register_coco_dataset",
]

EXTERNAL = ("bccd", "dice")  # built-in names whose files the user brings
ELSEWHERE = "set DETECTRON2_DATASETS (or --data-root) to the folder that holds '{folder}/'"


@dataclass(frozen=True)
class CocoDataset:
    """Loads one COCO json into Detectron2's dicts; what ``DatasetCatalog`` holds for a name.

    Attributes:
        name: the registered name.
        json_file, image_root: paths that ``PathManager`` can open.
        hint: what the user can do when a file is missing.
        prepare: called first; may generate the files.
        origin: who registered it: "user", or "builtin" where ``register_builtin_datasets`` may move
            the name to another root.
    """

    name: str
    json_file: str
    image_root: str
    hint: str = "check the paths it was registered with"
    prepare: Callable[[], object] | None = None
    origin: str = "user"

    def __call__(self) -> list[dict]:
        self.require_files()
        try:
            dicts = load_coco_json(self.json_file, self.image_root, self.name)
        except MemoryError:  # not the file's fault
            raise
        except Exception as error:  # what it raises for a json depends on what is wrong with it
            raise self._not_readable(error) from error
        return keep_usable_boxes(self.name, dicts)

    def class_names(self) -> list[str]:
        """Names of the categories in the order of their ids, as ``load_coco_json`` has them."""
        self.require_files()
        try:
            categories = read_json(self.json_file)["categories"]
            return [c["name"] for c in sorted(categories, key=lambda c: c["id"])]
        except UserError as error:
            raise InputError(f"dataset '{self.name}': {error}") from error
        except (KeyError, TypeError, ValueError) as error:
            raise self._not_readable(error) from error

    def require_files(self) -> None:
        """Generate what can be generated; raise FileNotFoundError for what is missing."""
        if self.prepare is not None:
            self.prepare()
        for path, exists in (
            (self.json_file, PathManager.isfile),
            (self.image_root, PathManager.isdir),
        ):
            if not exists(path):
                raise MissingFileError(
                    f"dataset '{self.name}' is not there: no {path}; {self.hint}"
                )

    def _not_readable(self, error: Exception) -> InputError:
        """In the words of the own reader, which names the place, if it finds the fault, too."""
        try:
            read_cached(Source(self.json_file, self.image_root, "coco"), "")
        except UserError as known:
            return InputError(f"dataset '{self.name}': {known}")
        kind, reason = type(error).__name__, one_line(error)
        return InputError(f"dataset '{self.name}': cannot use {self.json_file}: {kind}: {reason}")


def register_coco_dataset(
    name: str, json_file: str | os.PathLike, image_root: str | os.PathLike, **metadata: Any
) -> None:
    """Make a COCO json known to Detectron2 under ``name``, for boxes and COCO evaluation.

    The same call again (a notebook cell run twice, a module loaded again) changes nothing.

    Args:
        name: what goes into ``DATASETS.TRAIN`` or ``DATASETS.TEST``.
        json_file: annotations in COCO's instances format; need not exist yet. A relative path is
            taken from the current folder.
        image_root: folder that the json's file names start from.
        **metadata: further entries of the dataset's ``MetadataCatalog`` entry.

    Raises:
        ValueError: ``name`` is taken by other files or has other metadata.
    """
    if "thing_classes" in metadata:
        metadata["thing_classes"] = list(metadata["thing_classes"])  # as load_coco_json sets it
    _register(CocoDataset(name, _absolute(json_file), _absolute(image_root)), metadata)


def register_builtin_datasets(root: str | os.PathLike | None = None) -> None:
    """Register ``{quickstart,quickstart_hard,bccd,dice}_{train,val}`` below ``root``.

    The quickstart datasets are generated when first loaded; the others are looked for in
    ``<root>/<dataset>/annotations/instances_<split>.json`` and ``<root>/<dataset>/<split>/``.
    Called again with another root, the names move there and what was set in their metadata is
    dropped. A name that someone else registered before is not changed.

    Args:
        root: default: the environment variable DETECTRON2_DATASETS, or else ``./datasets``.
    """
    root = _absolute(root or os.environ.get("DETECTRON2_DATASETS") or "datasets")
    for split in SPLITS:
        for name in STYLES:
            generate = partial(ensure_quickstart, root, name=name)
            _register_builtin(root, name, folder_of(name), split, generate)
        for folder in EXTERNAL:
            _register_builtin(root, folder, folder, split, None)


def load_class_names(name: str) -> list[str] | None:
    """Class names of a registered dataset, read from its files only if nothing else has them.

    Returns:
        The names in the order of their ids, or None for a dataset that declares none.

    Raises:
        KeyError: ``name`` is not registered.
        FileNotFoundError, ValueError: the dataset's files are missing or broken.
    """
    known = MetadataCatalog.get(name).get("thing_classes") if name in MetadataCatalog else None
    if known is not None:
        return list(known)
    source = DatasetCatalog[name]
    if isinstance(source, LazyDataset):
        return source.class_names()
    DatasetCatalog.get(name)
    known = MetadataCatalog.get(name).get("thing_classes")
    return None if known is None else list(known)


def class_names_of(datasets: Sequence[str]) -> Sequence[str]:
    """Class names of a run's datasets, which agree; () where there are no datasets or no names.

    Raises:
        KeyError, FileNotFoundError, ValueError: see :func:`load_class_names`.
    """
    return (load_class_names(datasets[0]) if datasets else None) or ()


def _register(dataset: CocoDataset, metadata: dict[str, Any]) -> None:
    metadata = {
        "json_file": dataset.json_file,
        "image_root": dataset.image_root,
        "evaluator_type": "coco",
        **metadata,
    }
    name = dataset.name
    known = MetadataCatalog.get(name).as_dict()
    if name not in DatasetCatalog:
        if any(known.get(key, value) != value for key, value in metadata.items()):
            MetadataCatalog.pop(name)  # of an entry that was removed; its values cannot be changed
        DatasetCatalog.register(name, dataset)
        MetadataCatalog.get(name).set(**metadata)
        return
    for key, value in metadata.items():
        if known.get(key) != value:
            raise InputError(
                f"dataset '{name}' is already registered with {key}={known.get(key)!r}, now with "
                f"{value!r}; choose another name, or call DatasetCatalog.remove('{name}') before"
            )


def _register_builtin(
    root: str, dataset: str, folder: str, split: str, prepare: Callable[[], object] | None
) -> None:
    name, base = f"{dataset}_{split}", os.path.join(root, folder)
    if name in DatasetCatalog and getattr(DatasetCatalog[name], "origin", "") != "builtin":
        return
    entry = CocoDataset(
        name,
        os.path.join(base, "annotations", f"instances_{split}.json"),
        os.path.join(base, split),
        hint=ELSEWHERE.format(folder=folder),
        prepare=prepare,
        origin="builtin",
    )
    if name in DatasetCatalog and DatasetCatalog[name].json_file != entry.json_file:
        DatasetCatalog.pop(name)
    _register(entry, {"thing_classes": list(CLASS_NAMES)} if prepare else {})


def _absolute(path: str | os.PathLike) -> str:
    """Absolute path, so that a change of the current folder does no harm; URLs as they are."""
    path = os.fspath(path)
    return path if "://" in path else os.path.abspath(os.path.expanduser(path))
