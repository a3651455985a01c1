"""A stand-in for the wheel that carries Detectron2, so that the tests stay offline."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import detectron2_wheel
import pytest

CARRIED = {
    "LabGym/__init__.py": b"import LabGym.detectron2\n",
    "LabGym/detectron2/__init__.py": b"",
    "LabGym/detectron2/engine/__init__.py": b"",
    "LabGym/detectron2/modeling/__init__.py": b'from LabGym.detectron2 import x\n"\xc3\xa9"\n',
    "LabGym/detectron2/model_zoo/configs/a.yaml": b'T: "LabGym.detectron2.y"\nN: detectron2\n',
    "labgym-3.1.2.dist-info/METADATA": b"Name: LabGym\n",
}


@pytest.fixture
def carrier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny carrier wheel whose hash is the expected one, handed out in place of a download."""
    path = tmp_path / "labgym-3.1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in CARRIED.items():
            archive.writestr(name, content)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(detectron2_wheel, "CARRIER_SHA256", digest)

    def fake_pip(python: str, arguments: list[str], what: str) -> None:
        assert arguments[:2] == ["download", "LabGym==3.1.2"], "the tests stay offline"
        assert {"--no-deps", "--ignore-requires-python"} <= set(arguments)
        (Path(arguments[-1]) / path.name).write_bytes(path.read_bytes())

    monkeypatch.setattr(detectron2_wheel, "run_pip", fake_pip)
    return path
