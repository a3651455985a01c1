"""A cache folder of each test's own, and catalogs as they were before it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog


@pytest.fixture
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where annotations are cached by default."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "retinanet_ext"


@pytest.fixture
def clean_catalogs() -> Iterator[None]:
    """Undo what a test does to Detectron2's global catalogs."""
    before = dict(DatasetCatalog), dict(MetadataCatalog)
    yield
    for catalog, entries in zip((DatasetCatalog, MetadataCatalog), before, strict=True):
        catalog.clear()
        catalog.update(entries)
