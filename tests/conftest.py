"""Shared fixtures: a fixed seed for every test, real data sets where there are any, CUDA skips."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
REAL_DATASETS = ("bccd", "dice")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked cuda where there is no CUDA device."""
    marked = [item for item in items if item.get_closest_marker("cuda")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Start every test from the same random state; libraries that are not loaded need none."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


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
