"""What run.json says about code and data, against git and sha256 themselves."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import detectron2
import pytest
from detectron2.data import MetadataCatalog

from retinanet_ext.engine.records import provenance
from retinanet_ext.engine.records.provenance import (
    code_revision,
    dataset_fingerprint,
    detectron2_build,
    machine,
    versions,
)


def git(folder: Path, *args: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *args], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package in a checkout of its own."""
    folder = tmp_path / "checkout" / "package"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    git(folder.parent, "init", "-q")
    git(folder.parent, "add", ".")
    git(folder.parent, "commit", "-q", "-m", "first")
    return folder


def test_revision_and_changes_of_a_checkout(package):
    revision = git(package, "rev-parse", "HEAD")
    assert code_revision(str(package)) == {"revision": revision, "dirty": False}
    (package / "output.txt").write_text("no code")
    assert code_revision(str(package)) == {"revision": revision, "dirty": False}
    (package / "__init__.py").write_text("changed = True")
    assert code_revision(str(package)) == {"revision": revision, "dirty": True}


def test_a_package_installed_inside_of_someone_elses_repository_has_no_revision(package):
    installed = package.parent / ".venv" / "package"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert code_revision(str(installed)) is None


def test_without_git_there_is_no_revision(package, monkeypatch):
    monkeypatch.setenv("PATH", str(package))
    assert code_revision(str(package)) is None


def test_fingerprint_is_the_checksum_of_the_annotations(cfg):
    path = MetadataCatalog.get("tiny_train").json_file
    assert dataset_fingerprint("tiny_train") == {
        "name": "tiny_train",
        "images": 12,
        "annotations": path,
        "sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest(),
    }


def test_images_of_a_large_file_are_not_counted_but_may_be_told(cfg, monkeypatch):
    monkeypatch.setattr(provenance, "COUNTED_BYTES", 10)
    assert dataset_fingerprint("tiny_train")["images"] is None
    assert dataset_fingerprint("tiny_train", 11)["images"] == 11


def test_a_dataset_without_a_readable_file_has_its_name_alone(tmp_path):
    MetadataCatalog.get("summary_folder")
    (tmp_path / "broken.json").write_text('{"images"')
    MetadataCatalog.get("summary_broken").json_file = str(tmp_path / "broken.json")
    folder, broken = dataset_fingerprint("summary_folder"), dataset_fingerprint("summary_broken")
    assert folder == {"name": "summary_folder", "images": None, "annotations": None, "sha256": None}
    assert broken["images"] is None and len(broken["sha256"]) == 64
    for name in ("summary_folder", "summary_broken"):
        MetadataCatalog.remove(name)


def test_versions_and_machine_are_told():
    found = versions()
    assert all(found[name] for name in ("python", "torch", "detectron2", "numpy", "retinanet_ext"))
    assert machine("cpu")["device"] == "cpu" and machine("cpu")["processes"] == 1


def test_the_build_of_detectron2_is_told_beside_its_version():
    assert versions()["detectron2"] == f"{detectron2.__version__} ({detectron2_build()})"


def test_a_checkout_of_detectron2_is_told_by_its_commit(package):
    revision = git(package, "rev-parse", "HEAD")[:12]
    assert detectron2_build(str(package)) == f"git {revision}"
    (package / "__init__.py").write_text("changed = True")
    assert detectron2_build(str(package)) == f"git {revision}, changed"


class Installed:
    """A distribution as importlib.metadata describes it."""

    def __init__(self, folder: Path, version: str, direct_url: str | None = None):
        self.folder, self.version, self.direct_url = folder, version, direct_url

    def locate_file(self, name: str) -> Path:
        return self.folder / name

    def read_text(self, name: str) -> str | None:
        return self.direct_url


def test_an_installed_detectron2_is_told_by_what_pip_knows_of_it(tmp_path, monkeypatch):
    def build(*args: str) -> str:
        monkeypatch.setattr(
            provenance.importlib.metadata, "distribution", lambda _: Installed(tmp_path, *args)
        )
        return detectron2_build(str(folder))

    folder = tmp_path / "detectron2"
    folder.mkdir()
    (folder / "__init__.py").write_text("one")
    by_git = '{"url": "https://example.com", "vcs_info": {"vcs": "git", "commit_id": "%s"}}'
    assert build("0.6", by_git % ("ab" * 20)) == f"git {'ab' * 6}"
    assert build("0.6+cu118") == "0.6+cu118"
    first = build("0.6", '{"url": "file:///a.whl"}')
    assert first.startswith("sources ") and build("0.6") == first
    (folder / "other.py").write_text("")
    assert build("0.6") != first


def test_a_detectron2_on_the_path_is_not_taken_for_the_installed_one(tmp_path, monkeypatch):
    monkeypatch.setattr(
        provenance.importlib.metadata,
        "distribution",
        lambda _: Installed(tmp_path / "site", "0.6+cu118"),
    )
    (tmp_path / "detectron2").mkdir()
    assert detectron2_build(str(tmp_path / "detectron2")).startswith("sources ")
