"""Install Detectron2 0.6 where ``import detectron2`` does not work yet. Standard library only.

1. A Detectron2 that already works is used as it is (unless ``--force``).
2. Otherwise the wheel of ``detectron2_wheel.py`` is built, from PyPI alone, into a cache folder
3. and installed with pip, so that ``pip show``, ``pip check`` and ``pip uninstall`` work.

Compiled operators (``detectron2._C``) are missing in that wheel. RetinaNet needs none; rotated
boxes, deformable convolution and the fast COCO evaluation do: the official build has them.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

import detectron2_wheel
from detectron2_wheel import VERSION, WHEEL_NAME, build_wheel
from setup_tools import SetupError, require_python, run_pip, say

# Run with another interpreter: 3 = absent; a folder without __init__.py does not count.
PROBE = """
import importlib.util, sys
spec = importlib.util.find_spec("detectron2")
if spec is None or spec.origin is None:
    sys.exit(3)
import detectron2.engine, detectron2.modeling
print(detectron2.__file__)
"""
LOCATE = """
from importlib.metadata import distribution
print(distribution("detectron2").locate_file("detectron2/__init__.py"))
"""


def default_cache_dir() -> Path:
    """Return ``$XDG_CACHE_HOME/retinanet_ext`` or ``~/.cache/retinanet_ext``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "retinanet_ext"


def cached_wheel(cache_dir: Path) -> Path:
    """Return the wheel from the cache, built first when it is not there yet or damaged.

    The folder's name depends on the building script, so an edit of it never meets an old wheel.
    """
    key = hashlib.sha256(Path(detectron2_wheel.__file__).read_bytes()).hexdigest()[:12]
    path = cache_dir / f"detectron2-{key}" / WHEEL_NAME
    if not path.exists():
        return build_wheel(path.parent)
    try:
        with zipfile.ZipFile(path) as archive:
            intact = archive.testzip() is None
    except zipfile.BadZipFile:
        intact = False
    if not intact:
        return build_wheel(path.parent)
    say(f"using {path}")
    return path


def probe(python: str) -> "tuple[str, str]":
    """Say what ``import detectron2`` does: ("works", file), ("broken", error) or ("absent", "")."""
    command = [python, "-W", "ignore", "-c", PROBE]
    with tempfile.TemporaryDirectory() as neutral:  # no detectron2 folder of the current directory
        result = subprocess.run(
            command,
            cwd=neutral,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
        )
    if result.returncode == 3:
        return "absent", ""
    lines = (result.stdout if result.returncode == 0 else result.stderr).strip().splitlines()
    return ("works" if result.returncode == 0 else "broken"), (lines or ["no message"])[-1]


def installed_version() -> "str | None":
    """Return the version pip knows for detectron2 in this environment, None if it knows none."""
    from importlib import metadata

    try:
        return metadata.version("detectron2")
    except metadata.PackageNotFoundError:
        return None


def remove_orphan() -> None:
    """Remove a detectron2 folder in site-packages that belongs to no installed distribution."""
    folder = Path(sysconfig.get_paths()["purelib"]) / "detectron2"
    if installed_version() is not None or not (folder.is_symlink() or folder.exists()):
        return
    say(f"removing {folder}, which no installed package owns")
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder)


def install(wheel: Path, force: bool) -> None:
    """Install the wheel and its requirements with pip, then import it once."""
    if force:
        remove_orphan()
        reinstall = ["install", "--force-reinstall", "--no-deps", str(wheel)]
        run_pip(sys.executable, reinstall, "installing Detectron2")
    say("installing Detectron2 with its requirements")
    run_pip(sys.executable, ["install", str(wheel)], "installing Detectron2")
    state, detail = probe(sys.executable)
    if state != "works":
        raise SetupError(f"Detectron2 was installed but cannot be imported ({detail})")
    located = subprocess.check_output([sys.executable, "-c", LOCATE], universal_newlines=True)
    if Path(located.strip()).resolve() != Path(detail).resolve():
        raise SetupError(
            f"Detectron2 was installed as {located.strip()}, but `import detectron2` finds "
            f"{detail} first; take that folder off PYTHONPATH or uninstall it"
        )
    say(f"Detectron2 {VERSION} is installed ({detail})")


def needs_install(force: bool) -> bool:
    """Decide from what is there; SetupError for someone else's Detectron2 that is broken."""
    state, detail = probe(sys.executable)
    if force or state == "absent":
        return True
    if state == "works":
        say(f"`import detectron2` works already ({detail}); it is used as it is")
        return False
    if installed_version() == VERSION:
        return True  # ours, damaged: repairing it is safe
    raise SetupError(
        f"detectron2 is here but cannot be imported ({detail}); repair it, "
        f"or replace it with `{sys.executable} {sys.argv[0]} --force`"
    )


def require_torch() -> None:
    """Raise SetupError unless ``import torch`` works, which Detectron2 does not install itself."""
    if subprocess.run([sys.executable, "-c", "import torch"], stderr=subprocess.PIPE).returncode:
        raise SetupError(
            "PyTorch is missing in this environment, and Detectron2 needs it; "
            f"run `{sys.executable} -m pip install torch torchvision` first"
        )


def parse_arguments(argv: "list[str] | None") -> argparse.Namespace:
    """Read the command line."""
    summary = "Install Detectron2 0.6 (pure Python) from PyPI, unless it works already."
    parser = argparse.ArgumentParser(description=summary)
    parser.add_argument("--force", action="store_true", help="replace what is installed")
    parser.add_argument("--wheel-dir", type=Path, metavar="DIR", help="only build the wheel there")
    parser.add_argument(
        "--cache-dir",
        type=Path,
        default=default_cache_dir(),
        metavar="DIR",
        help="where the wheel is kept (default: %(default)s)",
    )
    return parser.parse_args(argv)


def main(argv: "list[str] | None" = None) -> int:
    """Run the script; the exit status is 1 after an error, which is one sentence on stderr."""
    arguments = parse_arguments(argv)
    try:
        require_python()
        if arguments.wheel_dir is not None:
            build_wheel(arguments.wheel_dir)
        elif needs_install(arguments.force):
            require_torch()
            install(cached_wheel(arguments.cache_dir), arguments.force)
    except SetupError as error:
        print(f"[setup] error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"[setup] error: {error}; repair that and try again", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
