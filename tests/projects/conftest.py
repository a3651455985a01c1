"""Projects are scripts beside the package: their folders are put on the path here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECTS = Path(__file__).resolve().parents[2] / "projects"
PROJECT = PROJECTS / "FocalLossPaper"
for folder in (PROJECT, PROJECTS / "Ancestors"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from focal_loss_paper import runs  # noqa: E402
from focal_loss_paper.rows import Setting, default_base  # noqa: E402

from retinanet_ext.data.datasets.register import register_builtin_datasets  # noqa: E402
from tests.helpers.made_up_results import put_result  # noqa: E402
from tests.helpers.registered_apart import Apart  # noqa: E402

# Before the tests that import from them.
CENTERNET, ANCESTORS = Apart("projects.CenterNet"), Apart("ancestors")
QUICKSTART = Setting("quickstart", default_base("quickstart"), 490)


@pytest.fixture(autouse=True, scope="module")
def registered(tmp_path_factory):
    register_builtin_datasets(tmp_path_factory.mktemp("datasets"))
    yield
    register_builtin_datasets()


@pytest.fixture(scope="session")
def shared_book(tmp_path_factory) -> runs.RunIndex:
    """Merges each row once for all tests that only look at settings."""
    return runs.RunIndex(QUICKSTART, tmp_path_factory.mktemp("shared"))


@pytest.fixture
def book(tmp_path, shared_book) -> runs.RunIndex:
    """Of an empty folder."""
    empty = runs.RunIndex(QUICKSTART, tmp_path)
    empty._settings = shared_book._settings
    return empty


@pytest.fixture
def filled(book) -> runs.RunIndex:
    """Made-up results of a few rows."""
    put_result(book, "1a_ce_pi0.50", 1, None)
    for seed, ap in ((1, 60.0), (2, 62.0)):
        put_result(book, "1b_gamma2", seed, ap)
    put_result(book, "1b_gamma0", 1, 58.0)
    put_result(book, "1b_gamma0", 2, None)
    put_result(book, "1e_R101_600", 1, 63.0, ms=35)
    return book


@pytest.fixture(scope="module")
def centernet() -> Iterator[None]:
    """CenterNet is registered, as ``--import projects.CenterNet`` does it."""
    with CENTERNET.registered():
        yield


@pytest.fixture(scope="module")
def ancestors() -> Iterator[None]:
    """SSD and YOLO are registered, as ``--import ancestors`` does it."""
    with ANCESTORS.registered():
        yield
