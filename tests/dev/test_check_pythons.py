"""The check of all Pythons finds what one of them cannot read or import, and says what it tried."""

from __future__ import annotations

import sys
from pathlib import Path

import check_pythons
import pytest


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A package of two modules, one of them of the losses."""
    losses = tmp_path / "retinanet_ext" / "losses"
    losses.mkdir(parents=True)
    for path in (losses.parent / "__init__.py", losses / "__init__.py"):
        path.write_text("")
    (losses / "focal.py").write_text("x: int = 1\n")
    (losses.parent / "__main__.py").write_text("raise SystemExit(3)\n")
    return tmp_path


def test_this_checkout_can_be_read_by_the_oldest_python():
    oldest = check_pythons.minimum()
    files = check_pythons.source_files()
    assert len(files) > 250
    assert check_pythons.check_by_grammar(files, oldest) == []


def test_the_oldest_version_is_that_of_the_package(tmp_path):
    path = tmp_path / "pyproject.toml"
    path.write_text('[project]\nrequires-python = ">=3.12"\n')
    assert check_pythons.minimum(path) == 12
    path.write_text("[project]\n")
    with pytest.raises(SystemExit, match="no requires-python"):
        check_pythons.minimum(path)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="does not know that syntax itself")
def test_syntax_of_a_newer_python_is_found(checkout):
    file = checkout / "retinanet_ext" / "losses" / "focal.py"
    file.write_text("try:\n    pass\nexcept* ValueError:\n    pass\n")
    (error,) = check_pythons.check_by_grammar([file], 10)
    assert "focal.py:" in error and "3.11" in error
    assert check_pythons.check_by_grammar([file], 11) == []


def test_all_modules_are_named_but_those_that_run(checkout):
    assert check_pythons.module_names(checkout) == [
        "retinanet_ext",
        "retinanet_ext.losses",
        "retinanet_ext.losses.focal",
    ]


def test_an_interpreter_compiles_and_imports(checkout):
    tried, errors = check_pythons.check_by_interpreter(Path(sys.executable), checkout)
    assert errors == [] and tried.endswith("4 files compiled; 3 modules imported")
    assert str(sys.executable) in tried
    file = checkout / "retinanet_ext" / "losses" / "focal.py"
    file.write_text("import nowhere\n")
    (error,) = check_pythons.check_by_interpreter(Path(sys.executable), checkout)[1]
    assert error.startswith("import retinanet_ext.losses.focal: ModuleNotFoundError")
    file.write_text("def f(:\n")
    (error,) = check_pythons.check_by_interpreter(Path(sys.executable), checkout)[1]
    assert "focal.py:1: " in error


def test_a_module_for_a_package_that_may_be_missing_is_told_and_no_failure(checkout, monkeypatch):
    file = checkout / "retinanet_ext" / "losses" / "focal.py"
    file.write_text("import nowhere\n")
    monkeypatch.setattr(check_pythons, "OPTIONAL", ("nowhere",))
    tried, errors = check_pythons.check_by_interpreter(Path(sys.executable), checkout)
    assert errors == []
    assert tried.endswith("2 modules imported, retinanet_ext.losses.focal has no nowhere")


def test_something_that_is_no_interpreter_is_a_failure(checkout, tmp_path):
    _, (error,) = check_pythons.check_by_interpreter(tmp_path / "none", checkout)
    assert "gave no answer" in error


def test_pythons_are_found_on_the_path_and_in_pyenv(tmp_path, monkeypatch):
    minors = {"python3.12": 12, "python3.13": None}
    for name in minors:
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    of_pyenv = tmp_path / "pyenv" / "versions" / "3.10.4" / "bin" / "python"
    of_pyenv.parent.mkdir(parents=True)
    of_pyenv.touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setattr(
        check_pythons, "_minor_of", lambda path: {"python": 10, **minors}.get(path.name)
    )
    found = check_pythons.find_pythons(10, 13)
    assert found.pop(sys.version_info.minor, Path(sys.executable)) == Path(sys.executable)
    rest = {10: of_pyenv, 12: tmp_path / "python3.12"}  # 3.13 does not run
    assert found == {k: v for k, v in rest.items() if k != sys.version_info.minor}


def test_it_says_what_it_tried_and_fails_where_something_did(monkeypatch, capsys):
    monkeypatch.setattr(
        check_pythons, "find_pythons", lambda oldest: {10: Path("a"), 11: Path("b")}
    )
    answers = {"a": ("3.10.1 (a): 9 files", []), "b": ("3.11.2 (b): 9 files", ["x.py:1: bad"])}
    monkeypatch.setattr(check_pythons, "check_by_interpreter", lambda path: answers[str(path)])
    monkeypatch.setattr(check_pythons, "NEWEST", sys.version_info.minor + 1)
    assert check_pythons.main([]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "3.10.1 (a): 9 files: fine",
        "3.11.2 (b): 9 files: FAILED",
        "    x.py:1: bad",
    ]
    assert lines[-1] == f"3.{sys.version_info.minor + 1}: not tried, no interpreter here"
    answers["b"] = ("3.11.2 (b): 9 files", [])
    assert check_pythons.main([]) == 0
