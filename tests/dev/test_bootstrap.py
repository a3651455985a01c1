"""The set-up: skips what is done, goes on after a failure, and fails with one sentence."""

from __future__ import annotations

import ast
import sys
from collections import namedtuple
from pathlib import Path

import bootstrap
import pytest
from setup_tools import SetupError

DEV = Path(__file__).resolve().parents[2] / "dev"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository with the files that key the stamp and no environment yet."""
    for name in bootstrap.STAMP_INPUTS:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"# {name}\n")
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    monkeypatch.setattr(bootstrap, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(bootstrap, "PYTHON", tmp_path / ".venv" / "bin" / "python")
    monkeypatch.setattr(bootstrap, "STAMP", tmp_path / ".venv" / "setup-stamp")
    return tmp_path


@pytest.fixture
def steps(repository: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The set-up's steps, replaced by fakes that write their names here."""
    called: list[str] = []

    def fake_venv() -> None:
        called.append("create_venv")
        bootstrap.PYTHON.parent.mkdir(parents=True, exist_ok=True)
        bootstrap.PYTHON.touch()

    monkeypatch.setattr(bootstrap, "create_venv", fake_venv)
    for name in ("install_torch", "install_detectron2", "install_package", "install_pretrained"):
        monkeypatch.setattr(bootstrap, name, lambda name=name: called.append(name))
    return called


def test_second_run_does_nothing(steps: list[str], capsys: pytest.CaptureFixture) -> None:
    assert bootstrap.main() == 0
    installed = ["install_torch", "install_detectron2", "install_package", "install_pretrained"]
    assert steps == ["create_venv", *installed]
    steps.clear()
    assert bootstrap.main() == 0
    assert steps == []
    assert "is complete" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize("name", bootstrap.STAMP_INPUTS)
def test_a_changed_set_up_file_sets_up_again(repository: Path, steps: list[str], name: str) -> None:
    bootstrap.main()
    steps.clear()
    (repository / name).write_text("changed\n")
    assert bootstrap.main() == 0
    assert "install_package" in steps


def test_a_moved_repository_is_set_up_again(steps: list[str], monkeypatch, tmp_path: Path) -> None:
    # The editable install points to the old place.
    before = bootstrap.stamp_text()
    moved = tmp_path / "moved"
    for name in bootstrap.STAMP_INPUTS:
        (moved / name).parent.mkdir(parents=True, exist_ok=True)
        (moved / name).write_text((tmp_path / name).read_text())
    monkeypatch.setattr(bootstrap, "ROOT", moved)
    assert bootstrap.stamp_text() != before


def test_a_failed_step_leaves_no_stamp(
    steps: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    bootstrap.main()
    (bootstrap.ROOT / "setup.py").write_text("changed\n")

    def fail() -> None:
        raise SetupError("installing PyTorch failed: check the network")

    monkeypatch.setattr(bootstrap, "install_torch", fail)
    assert bootstrap.main() == 1
    assert not bootstrap.STAMP.exists()
    error = capsys.readouterr().err
    assert error == "[setup] error: installing PyTorch failed: check the network\n"


def test_full_disk_stops_before_the_download(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")(100e9, 95e9, 5e9)
    monkeypatch.setattr(bootstrap.shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(bootstrap, "TORCH_DISK_GB", 8.0)
    monkeypatch.setattr(bootstrap, "imports", lambda *_: False)
    monkeypatch.setattr(bootstrap, "run_pip", lambda *_: pytest.fail("must not download"))
    with pytest.raises(SetupError, match=r"about 8 GB.* 5\.0 GB free; free some space"):
        bootstrap.install_torch()


def test_installed_torch_needs_neither_disk_nor_download(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "imports", lambda *_: True)
    monkeypatch.setattr(bootstrap, "require_disk", lambda *_: pytest.fail("must not look"))
    monkeypatch.setattr(bootstrap, "run_pip", lambda *_: pytest.fail("must not download"))
    bootstrap.install_torch()


def test_the_set_up_does_without_pretrained_weights(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def fail(python: str, arguments: list[str], what: str) -> None:
        assert arguments[-1] == bootstrap.PRETRAINED
        raise SetupError(f"{what} failed: the package index offers nothing")

    monkeypatch.setattr(bootstrap, "imports", lambda *_: False)
    monkeypatch.setattr(bootstrap, "run_pip", fail)
    bootstrap.install_pretrained()
    assert "trains from random weights" in capsys.readouterr().out


def test_someones_environment_with_an_old_python_is_not_cleared(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "runs", lambda *_: True)
    monkeypatch.setattr(bootstrap, "is_recent", lambda _: False)
    monkeypatch.setattr(bootstrap, "run_or_explain", lambda _: pytest.fail("must not clear"))
    with pytest.raises(SetupError, match=r"old Python; remove it \(`rm -r \.venv`\)"):
        bootstrap.create_venv()


def test_failing_venv_module_names_the_missing_package(repository: Path) -> None:
    with pytest.raises(SetupError, match="apt install python3-venv"):
        bootstrap.run_or_explain([sys.executable, "-c", "raise SystemExit(1)"])


@pytest.mark.parametrize("name", [x.partition("/")[2] for x in bootstrap.STAMP_INPUTS if "/" in x])
def test_set_up_files_are_readable_for_an_old_python(name: str) -> None:
    tree = ast.parse((DEV / name).read_text(), feature_version=(3, 6))
    # `from __future__ import annotations` parses, but Python 3.6 refuses to compile it.
    imported = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert "__future__" not in imported
