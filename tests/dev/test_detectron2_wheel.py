"""The Detectron2 wheel: names restored exactly, complete metadata, the same bytes every time."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import detectron2_wheel
import pytest
import setup_tools
from setup_tools import SetupError


def read(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_only_the_name_changes_and_only_detectron2_is_taken(carrier: Path) -> None:
    assert detectron2_wheel.restore_names(carrier) == {
        "detectron2/__init__.py": b"",
        "detectron2/engine/__init__.py": b"",
        "detectron2/modeling/__init__.py": b'from detectron2 import x\n"\xc3\xa9"\n',
        "detectron2/model_zoo/configs/a.yaml": b'T: "detectron2.y"\nN: detectron2\n',
    }


def test_carrier_without_detectron2_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other/__init__.py", "")
    with pytest.raises(SetupError, match=r"other\.whl carries no LabGym/detectron2"):
        detectron2_wheel.restore_names(path)


def test_record_lists_every_file_with_its_hash_and_size(carrier: Path, tmp_path: Path) -> None:
    files = read(detectron2_wheel.build_wheel(tmp_path))
    record_name = next(name for name in files if name.endswith("/RECORD"))
    rows = list(csv.reader(io.StringIO(files[record_name].decode())))
    assert sorted(row[0] for row in rows) == sorted(files)
    for name, digest, size in rows:
        if name == record_name:
            assert (digest, size) == ("", "")
            continue
        expected = base64.urlsafe_b64encode(hashlib.sha256(files[name]).digest())
        assert digest == "sha256=" + expected.rstrip(b"=").decode()
        assert int(size) == len(files[name])


def test_metadata_names_licence_version_and_requirements(carrier: Path, tmp_path: Path) -> None:
    files = read(detectron2_wheel.build_wheel(tmp_path))
    info = "detectron2-0.6+py.e9f7e2b.dist-info/"
    metadata = Parser().parsestr(files[info + "METADATA"].decode())
    assert metadata["Name"] == "detectron2"
    assert metadata["Version"] == "0.6+py.e9f7e2b"
    assert metadata["License"] == "Apache-2.0"
    requirements = metadata.get_all("Requires-Dist")
    assert {"fvcore>=0.1.5,<0.1.6", "iopath>=0.1.7,<0.1.10", "setuptools<82"} <= set(requirements)
    # Detectron2 itself lists neither: which build of PyTorch to take is the user's choice.
    assert not [name for name in requirements if name.startswith(("torch", "opencv"))]
    assert b"Apache License" in files[info + "LICENSE"]
    assert files[info + "top_level.txt"] == b"detectron2\n"
    assert b"Root-Is-Purelib: true\nTag: py3-none-any\n" in files[info + "WHEEL"]


def test_same_input_gives_the_same_bytes(carrier: Path, tmp_path: Path) -> None:
    first = detectron2_wheel.build_wheel(tmp_path / "a").read_bytes()
    assert first == detectron2_wheel.build_wheel(tmp_path / "b").read_bytes()
    assert not list(tmp_path.glob("*/*.part"))
    with zipfile.ZipFile(io.BytesIO(first)) as archive:  # both were written in the same second
        assert {entry.date_time for entry in archive.infolist()} == {(2023, 12, 20, 0, 0, 0)}


def test_pip_installs_the_wheel_and_knows_it(carrier: Path, tmp_path: Path) -> None:
    wheel = detectron2_wheel.build_wheel(tmp_path)
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-index", "--quiet", "--target", str(target)]
    subprocess.run([*pip, "install", str(wheel), *options], check=True)
    listed = subprocess.run(
        [*pip, "list", "--path", str(target), "--format", "freeze"], capture_output=True, text=True
    )
    assert listed.stdout.split() == ["detectron2==0.6+py.e9f7e2b"]
    restored = target / "detectron2" / "model_zoo" / "configs" / "a.yaml"
    assert restored.read_bytes() == b'T: "detectron2.y"\nN: detectron2\n'


def test_missing_licence_text_stops_the_build(
    carrier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detectron2_wheel, "LICENSE_FILE", tmp_path / "LICENSE")
    with pytest.raises(SetupError, match="complete copy of the repository"):
        detectron2_wheel.build_wheel(tmp_path)


@pytest.mark.slow
def test_the_real_wheel_equals_what_import_detectron2_was_tested_with(tmp_path: Path) -> None:
    try:
        carrier = detectron2_wheel.download_carrier(tmp_path)
    except SetupError as error:
        if setup_tools.NETWORK in str(error) or "package index" in str(error):
            pytest.skip(str(error))
        raise
    files = detectron2_wheel.restore_names(carrier)
    assert len(files) == 306
    assert not [name for name, content in files.items() if b"LabGym" in content]
    assert len([name for name in files if name.endswith(".yaml")]) == 92
    assert b'__version__ = "0.6"' in files["detectron2/__init__.py"]
