"""Shared fixtures: seed, catalogs, cache, data sets, training processes, the GPU."""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.helpers.loggers import kept_loggers

if TYPE_CHECKING:
    import torch

    from tests.helpers.exported import Exports
    from tests.helpers.forked_training import TrainingServer

ROOT = Path(__file__).resolve().parent.parent
REAL_DATASETS = ("bccd", "dice")
CUDA_TESTS_ON = "RETINANET_EXT_CUDA_TESTS_ON"
MOST_PROCESSES = 8
"""Each imports everything and may need 2 GiB; more of them than this make nothing faster."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """Processes of ``-n auto``: one for each core of this process; 0, this one, for one core."""
    if os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS"):
        return None
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return min(cores, MOST_PROCESSES) if cores > 1 else 0


def pytest_configure() -> None:
    """Tests of signals need those that `nohup` and a shell's background jobs ignore."""
    for number, usual in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, usual)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked cuda where there is no CUDA device, on which they run.

    With RETINANET_EXT_CUDA_TESTS_ON=cpu they run on the CPU, so that they can be written without a
    GPU; but for those whose marker says what of CUDA they need, ``cuda(needs="...")``.
    """
    marked = [(item, mark) for item in items if (mark := item.get_closest_marker("cuda"))]
    if not marked:
        return
    import torch

    for item, mark in marked:
        needs = mark.kwargs.get("needs")
        if cuda_tests_device().type == "cpu" and needs:
            item.add_marker(pytest.mark.skip(reason=f"needs {needs}"))
        elif cuda_tests_device().type == "cuda" and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def cuda_tests_device() -> torch.device:
    """Where tests marked cuda run."""
    import torch

    return torch.device(os.environ.get(CUDA_TESTS_ON) or "cuda")


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Handlers that a command in this process sets up are not those of the next test."""
    with kept_loggers():
        yield


@pytest.fixture
def gpu() -> Iterator[torch.device]:
    """Device of a test marked cuda; products are computed in float32, not TF32, while it runs."""
    import torch

    places = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [place.allow_tf32 for place in places]
    for place in places:
        place.allow_tf32 = False
    yield cuda_tests_device()
    for place, allowed in zip(places, before, strict=True):
        place.allow_tf32 = allowed


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Start every test from the same random state; libraries that are not loaded need none."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(autouse=True)
def no_workers_left() -> Iterator[None]:
    """End the workers of a test's data loaders with it, also where a cycle keeps the loader."""
    before = multiprocessing.active_children()
    yield
    if any(child not in before for child in multiprocessing.active_children()):
        gc.collect()


@pytest.fixture(scope="session")
def shared_datasets() -> Iterator[Path]:
    """Return the folder that holds the real data sets (``<folder>/bccd/annotations/...``).

    DETECTRON2_DATASETS names it; otherwise a folder beside the repository is looked for.
    A test that asks for it is skipped where there is none.
    """
    named = os.environ.get("DETECTRON2_DATASETS")
    candidates = [Path(named)] if named else []
    candidates.append(ROOT.parent / "shared" / "datasets")
    for folder in candidates:
        if all((folder / name / "annotations").is_dir() for name in REAL_DATASETS):
            yield folder
            return
    pytest.skip(
        f"no real data sets: DETECTRON2_DATASETS names no folder with {' and '.join(REAL_DATASETS)}"
    )


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder for ``--data-root`` with 12 training and 3 validation images."""
    from tests.helpers.tiny import write_dataset

    return write_dataset(tmp_path_factory.mktemp("datasets"))


@pytest.fixture
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where annotations are cached by default, of each test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "retinanet_ext"


@pytest.fixture
def clean_catalogs() -> Iterator[None]:
    """Undo what a test does to Detectron2's global catalogs."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    before = dict(DatasetCatalog), dict(MetadataCatalog)
    yield
    for catalog, entries in zip((DatasetCatalog, MetadataCatalog), before, strict=True):
        catalog.clear()
        catalog.update(entries)


@pytest.fixture(scope="session")
def training_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrainingServer]:
    """Starts training processes at once."""
    from tests.helpers.forked_training import TrainingServer

    server = TrainingServer(tmp_path_factory.mktemp("log") / "console.txt")
    yield server
    server.close()


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exports]:
    """Exports of a tiny run, by head and format; 300 MB, which go with the session."""
    from tests.helpers.exported import Exports

    folder = tmp_path_factory.mktemp("exports")
    yield Exports(folder)
    shutil.rmtree(folder, ignore_errors=True)
