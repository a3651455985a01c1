"""The quickstart datasets: generated scenes of five kinds of shapes, as COCO json plus PNG.

``ensure_quickstart`` writes one once, in a few seconds, and later only looks that it is there.
The images follow only from (name, seed, split, index): any number of processes and any platform
give the same pixels. The folder's name carries the version of the drawing code.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from iopath.common.file_io import file_lock
from portalocker.exceptions import LockException

from ...console import SHOWN
from ...errors import FileError
from ...files import write_text
from ..parallel import map_in_processes
from .coco_json import VERSION, coco_json, describe_scene, json_path
from .raster import encode_png, require_opencv
from .scenes import Scene, SceneStyle, draw_scene
from .shapes import CLASS_NAMES

__all__ = ["CLASS_NAMES", "STYLES", "ensure_quickstart", "folder_of", "render_scene"]

STYLES = {
    "quickstart": SceneStyle(),
    # Few small objects among many things that look like them: background is most of what there is
    # to learn, and some of it is hard.
    "quickstart_hard": SceneStyle(objects=(1, 3), sizes=(12.0, 60.0), lookalikes=(6, 14)),
}
SPLITS = ("train", "val")
NUM_TRAIN, NUM_VAL = 600, 120
EMPTY_EVERY = 25  # one image in this many shows no object
HEIGHT, WIDTH, WIDE = 256, 256, 320  # px

NO_MASKS = "it was made before its annotations had masks"
Job = tuple[str, str, int, int, str]  # folder, split, index, seed, dataset

logger = logging.getLogger(__name__)


def folder_of(name: str) -> str:
    """Name of the folder of the dataset ``name``."""
    return f"{name}_v{VERSION}"


def ensure_quickstart(
    root: str | os.PathLike[str],
    num_train: int = NUM_TRAIN,
    num_val: int = NUM_VAL,
    seed: int = 0,
    name: str = "quickstart",
) -> Path:
    """Generate a quickstart dataset below ``root`` unless it is there and complete.

    The layout is ``annotations/instances_{train,val}.json`` and ``{train,val}/*.png``. The folder
    appears in one step when everything in it is written, so that a reader never meets half of it;
    several processes may call this at once. A folder with files missing, or with other counts or
    another seed than asked for, is replaced; one without masks gets them, its images stay.

    Args:
        root: folder to hold the dataset's folder; created when missing.
        num_train, num_val: images in each split.
        seed: another seed gives other scenes.
        name: one of STYLES.

    Returns:
        The dataset's folder, such as ``<root>/quickstart_v1``, as an absolute path.

    Raises:
        OSError: the folder cannot be written; the message says what to do.
        ImportError: OpenCV, which draws the images, is not installed.
    """
    target = Path(os.path.abspath(os.path.expanduser(root))) / folder_of(name)
    counts = dict(zip(SPLITS, (num_train, num_val), strict=True))
    problem = _find_problem(target, counts, seed)
    if problem is None:
        return target
    try:
        require_opencv()
        target.parent.mkdir(parents=True, exist_ok=True)
        with _lock(target):
            problem = _find_problem(target, counts, seed)  # another process may have been faster
            if problem == NO_MASKS:
                logger.info(
                    "Adding masks to the %s dataset in %s: %s.", name, target, problem, extra=SHOWN
                )
                _add_masks(target, counts, seed, name)
            elif problem is not None:
                logger.info(
                    "Generating the %s dataset in %s (%s).", name, target, problem, extra=SHOWN
                )
                _generate(target, counts, seed, name)
    except (OSError, ImportError) as error:
        if problem == NO_MASKS:  # as good as ever for detectors without masks
            logger.warning(
                "The %s dataset in %s has no masks, and they cannot be added (%s): detectors with "
                "masks need a folder of DETECTRON2_DATASETS that can be written.",
                *(name, target, error),
            )
            return target
        if not isinstance(error, OSError):
            raise
        raise FileError(
            error.errno,
            f"cannot write the {name} dataset to {target}: {error.strerror or error}. Make "
            "room there, or set DETECTRON2_DATASETS (or --data-root) to a folder that can be "
            "written",
        ) from error
    return target


def render_scene(split: str, index: int, seed: int = 0, name: str = "quickstart") -> Scene:
    """Draw image ``index`` (from 0) of ``split`` ("train" or "val") of a dataset of STYLES."""
    style = STYLES[name]
    entropy = np.random.SeedSequence([seed, SPLITS.index(split), index])
    rng = np.random.Generator(np.random.PCG64(entropy))
    # Few wide ones: variety, at little cost where batches are padded to the largest image.
    width = WIDE if rng.random() < 0.12 else WIDTH
    count = int(rng.integers(style.objects[0], style.objects[1] + 1))
    return draw_scene(rng, HEIGHT, width, 0 if (index + 1) % EMPTY_EVERY == 0 else count, style)


@contextmanager
def _lock(target: Path) -> Iterator[None]:
    """Let one process work on ``target`` while others wait; clear what a killed one left."""
    with ExitStack() as stack:
        try:
            stack.enter_context(file_lock(str(target)))
        except LockException as error:
            # Some network file systems have no locks. The work is then done twice, not wrongly.
            logger.info("Going on without a lock on %s: %s", target, error)
        else:
            for leftover in target.parent.glob(f"{target.name}.tmp-*"):
                shutil.rmtree(leftover, ignore_errors=True)
        yield


def _generate(target: Path, counts: dict[str, int], seed: int, name: str) -> None:
    """Write the dataset beside ``target``, then move it there."""
    temporary = target.with_name(f"{target.name}.tmp-{uuid.uuid4().hex}")
    try:
        for split in SPLITS:
            (temporary / split).mkdir(parents=True)
        (temporary / "annotations").mkdir()
        jobs = _jobs(temporary, counts, seed, name)
        _write_annotations(temporary, map_in_processes(_write_image, jobs, f"{name} images"), jobs)
        _move_into_place(temporary, target, counts, seed)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _add_masks(target: Path, counts: dict[str, int], seed: int, name: str) -> None:
    """Write the annotations of a complete dataset again; its images stay as they are."""
    jobs = _jobs(target, counts, seed, name)
    _write_annotations(target, map_in_processes(_describe_image, jobs, f"{name} masks"), jobs)


def _jobs(folder: Path, counts: dict[str, int], seed: int, name: str) -> list[Job]:
    return [(str(folder), s, i, seed, name) for s in SPLITS for i in range(counts[s])]


def _write_annotations(folder: Path, images: list[dict], jobs: list[Job]) -> None:
    *_, seed, name = jobs[0]
    for split in SPLITS:
        of_split = [x for x, job in zip(images, jobs, strict=True) if job[1] == split]
        content = json.dumps(coco_json(name, split, of_split, seed))
        write_text(str(json_path(folder, split)), content)


def _move_into_place(temporary: Path, target: Path, counts: dict[str, int], seed: int) -> None:
    """Rename ``temporary`` to ``target``; what lies there incomplete goes away."""
    if target.exists() and _find_problem(target, counts, seed) is not None:
        old = target.with_name(f"{target.name}.tmp-{uuid.uuid4().hex}")
        os.replace(target, old)
        shutil.rmtree(old, ignore_errors=True)
    try:
        os.replace(temporary, target)
    except OSError:
        # Without locks another process may have put its own copy there meanwhile.
        if _find_problem(target, counts, seed) is not None:
            raise


def _write_image(job: Job) -> dict:
    """Draw and write one image; returns what the annotations say about it."""
    folder, split, index, seed, dataset = job
    scene = render_scene(split, index, seed, dataset)
    described = describe_scene(scene, index)
    (Path(folder) / split / described["file_name"]).write_bytes(encode_png(scene.image))
    return described


def _describe_image(job: Job) -> dict:
    """What :func:`_write_image` returns, without writing it."""
    _, split, index, seed, dataset = job
    return describe_scene(render_scene(split, index, seed, dataset), index)


def _find_problem(folder: Path, counts: dict[str, int], seed: int) -> str | None:
    """What keeps ``folder`` from being the dataset asked for, or None."""
    masks = True
    for split, count in counts.items():
        path = json_path(folder, split)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            made_with = content["info"]["version"], content["info"]["seed"]
            sizes = [(folder / split / i["file_name"]).stat().st_size for i in content["images"]]
            masks = masks and all("segmentation" in x for x in content["annotations"])
        except FileNotFoundError as error:
            return f"{error.filename} is missing"
        except (OSError, ValueError, KeyError, TypeError) as error:
            return f"{path} is not readable: {error!r}"
        if made_with != (str(VERSION), seed) or len(sizes) != count or not all(sizes):
            return f"{path} is from another version, seed or size, or has empty images"
    return None if masks else NO_MASKS
