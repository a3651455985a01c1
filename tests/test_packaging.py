"""What is built and installed: contents of sdist and wheel, and training without a checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BUILT_FROM = ("LICENSE", "README.md", "configs", "pyproject.toml", "retinanet_ext", "setup.py")
BUILT_FROM += ("retinanet_ext_command.py",)

pytestmark = pytest.mark.slow


def run(*words: str | Path, cwd: Path, path: Path | None = None) -> str:
    """Run a program that sees nothing of this process's imports; return what it printed.

    Args:
        words: the program and its arguments.
        cwd: the folder it runs in.
        path: folder with programs, in front of PATH.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    environment |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PIP_NO_INPUT": "1"}
    if path is not None:
        environment["PATH"] = f"{path}{os.pathsep}{environment['PATH']}"
    command = [str(word) for word in words]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a package is built from: building leaves files there."""
    checkout = tmp_path_factory.mktemp("checkout")
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in BUILT_FROM:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, checkout / name, symlinks=True, ignore=ignore)
        else:
            shutil.copy(ROOT / name, checkout / name)
    return checkout


@pytest.fixture(scope="module")
def sdist(checkout: Path) -> Path:
    code = "import setuptools.build_meta as b; b.build_sdist('dist')"
    run(sys.executable, "-c", code, cwd=checkout)
    (file,) = (checkout / "dist").glob("*.tar.gz")
    return file


def build_wheel(source: Path, target: Path) -> Path:
    """Build a wheel from a folder or sdist, without network."""
    flags = ("--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir")
    run(sys.executable, "-m", "pip", "wheel", source, *flags, target, cwd=target)
    (file,) = target.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(checkout, tmp_path_factory.mktemp("wheel"))


def expected_files() -> set[str]:
    """The package's sources, configs and page, as paths in the wheel."""
    sources = {path.relative_to(ROOT) for path in (ROOT / "retinanet_ext").rglob("*.py")}
    files = (ROOT / "configs").rglob("*")
    configs = {path.relative_to(ROOT) for path in files if path.suffix in (".yaml", ".py")}
    names = {x.as_posix() for x in sources} | {f"retinanet_ext/{x.as_posix()}" for x in configs}
    names |= {"retinanet_ext/py.typed", "retinanet_ext/serve/page.html"}
    names |= {f"retinanet_ext/demo/{name}" for name in ("config.yaml", "model_final.pth", "NOTICE")}
    names |= {f"retinanet_ext/report/page/page.{kind}" for kind in ("css", "js")}
    return names | {"retinanet_ext_command.py"}


def test_the_wheel_holds_the_package_and_the_configs_and_nothing_else(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    metadata = {name for name in names if ".dist-info/" in name}
    assert names - metadata == expected_files()
    assert {Path(x).name for x in metadata} >= {"METADATA", "entry_points.txt", "LICENSE"}


def test_a_wheel_from_the_sdist_is_the_same(sdist: Path, wheel: Path, tmp_path: Path):
    def contents(file: Path) -> dict[str, bytes]:
        archive = zipfile.ZipFile(file)
        return {x: archive.read(x) for x in archive.namelist() if not x.endswith("RECORD")}

    assert contents(build_wheel(sdist, tmp_path)) == contents(wheel)


def test_the_sdist_has_the_configs_as_files(sdist: Path):
    with tarfile.open(sdist) as archive:
        members = {name.partition("/")[2]: archive.getmember(name) for name in archive.getnames()}
    assert expected_files() <= members.keys()
    assert {"pyproject.toml", "setup.py", "README.md", "LICENSE"} <= members.keys()
    assert all(members[name].isfile() for name in expected_files())


def test_the_metadata_says_what_is_needed(wheel: Path):
    archive = zipfile.ZipFile(wheel)
    (name,) = [x for x in archive.namelist() if x.endswith(".dist-info/METADATA")]
    lines = archive.read(name).decode().partition("\n\n")[0].splitlines()
    fields = [line.partition(": ")[::2] for line in lines]
    values = {key: [v for k, v in fields if k == key] for key, _ in fields}
    assert values["Version"] == [version()]
    assert set(values["Provides-Extra"]) == {
        "anchors",
        "dev",
        "draw",
        "fast-eval",
        "onnx",
        "openvino",
        "pretrained",
        "safetensors",
        "timm",
    }
    needed = [x for x in values["Requires-Dist"] if "extra ==" not in x]
    assert {"torch>=2.4", "torchvision", "yacs", "fvcore"} <= set(needed)
    assert not any("detectron2" in x for x in needed)  # is not on PyPI
    assert any("opencv-python-headless" in x and "draw" in x for x in values["Requires-Dist"])


def version() -> str:
    import retinanet_ext

    return retinanet_ext.__version__


def new_environment(folder: Path) -> Path:
    """An environment that has this one's libraries, but not its retinanet_ext; its programs."""
    venv.create(folder, with_pip=False)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    (packages,) = run(programs / "python", "-c", code, cwd=folder).splitlines()
    # Paths in a .pth are added behind, and .pth files that lie there are not read: no editable
    # installation of the package gets in.
    Path(packages, "libraries.pth").write_text(
        "".join(f"{sysconfig.get_path(name)}\n" for name in ("purelib", "platlib"))
    )
    return programs


def install(programs: Path, *what: str | Path) -> None:
    flags = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet")
    python = ("--python", programs / "python")
    run(sys.executable, "-m", "pip", *python, "install", *flags, *what, cwd=programs)


FIND = "import retinanet_ext as r; print(r.__file__); print(r.find_config('quickstart.yaml'))"


def test_an_editable_installation_has_the_configs(checkout: Path, tmp_path: Path):
    programs = new_environment(tmp_path / "venv")
    install(programs, "--editable", checkout)
    found = run(programs / "python", "-W", "ignore", "-c", FIND, cwd=tmp_path).splitlines()
    assert found == [
        str(checkout / "retinanet_ext" / "__init__.py"),
        str(checkout / "configs" / "quickstart.yaml"),
    ]


def test_the_wheel_trains_the_quickstart_where_there_is_no_checkout(wheel: Path, tmp_path: Path):
    programs = new_environment(tmp_path / "venv")
    install(programs, wheel)
    work = tmp_path / "work"
    work.mkdir()
    module, config = run(programs / "python", "-W", "ignore", "-c", FIND, cwd=work).splitlines()
    assert Path(module).is_relative_to(tmp_path / "venv")
    assert Path(config).is_relative_to(tmp_path / "venv")
    settings = ("SOLVER.MAX_ITER", "2", "SOLVER.IMS_PER_BATCH", "2", "DATALOADER.NUM_WORKERS", "0")
    sizes = ("MODEL.FPN.OUT_CHANNELS", "32", "INPUT.MIN_SIZE_TEST", "64")
    command = ("train", "--config-file", "quickstart.yaml")
    printed = run("retinanet-ext", *command, *settings, *sizes, cwd=work, path=programs)
    output = work / "output" / "quickstart"
    assert (output / "model_final.pth").is_file(), printed
    lines = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    assert any(line.get("total_loss", 0) > 0 for line in lines)
    assert any("bbox/AP" in line for line in lines)
    assert (work / "datasets" / "quickstart_v1").is_dir()
