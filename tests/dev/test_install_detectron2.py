"""The Detectron2 helper: refuses other content, reuses its cache, leaves others' work alone."""

from __future__ import annotations

import sys
from pathlib import Path

import detectron2_wheel
import install_detectron2
import pytest
from setup_tools import SetupError


def test_wrong_hash_is_refused_before_anything_is_written(
    carrier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(detectron2_wheel, "CARRIER_SHA256", "0" * 64)
    assert install_detectron2.main(["--wheel-dir", str(tmp_path / "out")]) == 1
    message = capsys.readouterr().err
    assert "instead of 0000" in message and "not installed" in message and "cache purge" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b.replace(b"x", b"y")])
def test_cached_wheel_is_reused_and_a_damaged_one_is_rebuilt(
    carrier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage
) -> None:
    path = install_detectron2.cached_wheel(tmp_path / "cache")
    intact = path.read_bytes()

    path.write_bytes(damage(intact))
    assert path.read_bytes() != intact
    assert install_detectron2.cached_wheel(tmp_path / "cache").read_bytes() == intact

    def no_download(*_: object) -> None:
        raise AssertionError("the wheel in the cache must be used")

    monkeypatch.setattr(detectron2_wheel, "run_pip", no_download)
    assert install_detectron2.cached_wheel(tmp_path / "cache").read_bytes() == intact


def test_cache_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert install_detectron2.default_cache_dir() == tmp_path / "retinanet_ext"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    expected = tmp_path / "home" / ".cache" / "retinanet_ext"
    assert install_detectron2.default_cache_dir() == expected


@pytest.mark.parametrize(
    ("state", "version", "force", "installs"),
    [
        ("absent", None, False, True),
        ("works", None, False, False),  # somebody's own build
        ("works", "0.6+py.e9f7e2b", True, True),
        ("broken", "0.6+py.e9f7e2b", False, True),  # ours, damaged
        ("broken", "0.6", True, True),
    ],
)
def test_a_working_detectron2_is_used_as_it_is_unless_forced(
    monkeypatch: pytest.MonkeyPatch, state: str, version: str | None, force: bool, installs: bool
) -> None:
    monkeypatch.setattr(install_detectron2, "probe", lambda _: (state, "detail"))
    monkeypatch.setattr(install_detectron2, "installed_version", lambda: version)
    assert install_detectron2.needs_install(force) is installs


def test_a_broken_foreign_detectron2_is_not_replaced_silently(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(install_detectron2, "probe", lambda _: ("broken", "ImportError: np.bool"))
    monkeypatch.setattr(install_detectron2, "installed_version", lambda: "0.6")
    with pytest.raises(SetupError, match=r"ImportError: np\.bool.*--force"):
        install_detectron2.needs_install(force=False)


@pytest.mark.parametrize(
    ("files", "state"),
    [
        ({}, "absent"),
        ({"detectron2/readme.txt": ""}, "absent"),  # a mere folder is no package
        ({"detectron2/__init__.py": "raise ImportError('no CUDA here')"}, "broken"),
        (
            {
                "detectron2/__init__.py": "",
                "detectron2/engine.py": "",
                "detectron2/modeling.py": "",
            },
            "works",
        ),
    ],
)
def test_probe_tells_working_broken_and_absent_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], state: str
) -> None:
    for name, content in files.items():
        path = tmp_path / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    # -S hides this environment's own packages, PYTHONPATH shows the made-up ones.
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    found, detail = install_detectron2.probe(str(python))
    assert found == state
    if state == "broken":
        assert detail == "ImportError: no CUDA here"
    if state == "works":
        assert Path(detail) == tmp_path / "site" / "detectron2" / "__init__.py"


@pytest.mark.parametrize(("version", "stays"), [(None, False), ("0.6", True)])
def test_force_removes_only_a_folder_that_no_package_owns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str | None, stays: bool
) -> None:
    (tmp_path / "detectron2").mkdir()
    (tmp_path / "other").mkdir()
    paths = {"purelib": str(tmp_path)}
    monkeypatch.setattr(install_detectron2.sysconfig, "get_paths", lambda: paths)
    monkeypatch.setattr(install_detectron2, "installed_version", lambda: version)
    install_detectron2.remove_orphan()
    assert (tmp_path / "detectron2").exists() is stays
    assert (tmp_path / "other").exists()


def test_force_unlinks_a_linked_checkout_and_keeps_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "detectron2").symlink_to(checkout)
    paths = {"purelib": str(tmp_path / "site")}
    monkeypatch.setattr(install_detectron2.sysconfig, "get_paths", lambda: paths)
    monkeypatch.setattr(install_detectron2, "installed_version", lambda: None)
    install_detectron2.remove_orphan()
    assert checkout.is_dir() and not (tmp_path / "site" / "detectron2").is_symlink()
