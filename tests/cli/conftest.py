"""What tests of the commands share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.predicting import write_photos
from tests.helpers.run_folder import write_run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OUTPUT_DIR of a training of a tiny model; not to be changed."""
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures in the folder ``photos`` of the current folder."""
    monkeypatch.chdir(tmp_path)
    return write_photos(tmp_path / "photos")
