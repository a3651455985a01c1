"""``--import``: modules of the user's."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from retinanet_ext.engine.user_modules import import_modules
from retinanet_ext.errors import InputError, MissingPackageError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, which is not on the path yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    return tmp_path


def test_modules_are_imported_in_order_from_the_current_directory(folder, monkeypatch):
    (folder / "users_first.py").write_text("order = ['first']\n")
    (folder / "users_second.py").write_text("import users_first\nusers_first.order.append('2')\n")
    import_modules(["users_first", "users_second"])
    assert sys.modules.pop("users_first").order == ["first", "2"]
    del sys.modules["users_second"]


def test_a_missing_module_is_named(folder):
    with pytest.raises(MissingPackageError, match="--import no_such_module failed"):
        import_modules(["no_such_module"])


def test_what_a_module_misses_is_named(folder):
    (folder / "users_broken.py").write_text("import needed_by_broken\n")
    with pytest.raises(MissingPackageError, match=r"users_broken failed: .*'needed_by_broken'"):
        import_modules(["users_broken"])


def test_a_path_is_answered_with_the_name_to_write(folder):
    with pytest.raises(InputError, match=r"write parts\.losses, not \./parts/losses\.py"):
        import_modules(["./parts/losses.py"])


def test_a_bug_in_a_module_keeps_its_traceback(folder):
    (folder / "users_bug.py").write_text("raise ValueError('a bug here')\n")
    with pytest.raises(ValueError, match="a bug here") as caught:
        import_modules(["users_bug"])
    assert type(caught.value) is ValueError


def test_no_modules_leave_the_path_alone(folder):
    import_modules([])
    assert str(folder) not in sys.path
