"""Check syntax and imports of the package on every Python that is on this machine.

python dev/check_pythons.py              # all of 3.10 to 3.14 that are found
python dev/check_pythons.py PYTHON ...   # these interpreters, such as one of a virtual environment

Each interpreter compiles all source files. Where PyTorch is installed for it, it also imports every
module: all of them with Detectron2, else those of retinanet_ext.losses, which need no more. For a
supported version without an interpreter, this Python reads the files by that version's grammar, as
far as it knows it. What was tried is printed, one line each; exit code 1 if something failed.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NEWEST = 14
"""Minor version of the newest Python that is looked for."""
SECONDS = 600

OPTIONAL = ("triton",)
"""Packages without which one module cannot be imported, and nobody imports it; PyTorch for CPUs
comes without this one."""

# Runs in the interpreter that is checked, without any other file of this checkout on its path.
_CHECK = """
import importlib, importlib.util, json, sys, warnings
warnings.simplefilter("ignore")
root, files, modules, of_torch_only, optional = json.loads(sys.argv[1])
sys.path.insert(0, root)
errors, missing = [], []
for path in files:
    try:
        compile(open(path, encoding="utf-8").read(), path, "exec")
    except SyntaxError as error:
        errors.append("%s:%s: %s" % (path, error.lineno, error.msg))
has = {name: importlib.util.find_spec(name) is not None for name in ("torch", "detectron2")}
wanted = modules if all(has.values()) else of_torch_only if has["torch"] else []
for name in () if errors else wanted:
    try:
        importlib.import_module(name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name in optional:
            missing.append("%s has no %s" % (name, error.name))
            continue
        errors.append("import %s: %s: %s" % (name, type(error).__name__, error))
version, imported = "%d.%d.%d" % sys.version_info[:3], len(wanted) - len(missing)
found = {"version": version, "errors": errors, "imported": imported, "has": has, "missing": missing}
print(json.dumps(found))
"""


def minimum(pyproject: Path = ROOT / "pyproject.toml") -> int:
    """Minor version of the oldest Python that the package supports, by ``requires-python``.

    Raises:
        SystemExit: the file does not say.
    """
    found = re.search(r'requires-python\s*=\s*">=3\.(\d+)', pyproject.read_text())
    if found is None:
        raise SystemExit(f'{pyproject} has no requires-python = ">=3.N"')
    return int(found[1])


def source_files(root: Path = ROOT) -> list[Path]:
    """All sources that users run: the package, its command, and what lies beside it."""
    folders = [root / name for name in ("retinanet_ext", "configs", "projects", "dev")]
    found = [path for folder in folders for path in folder.rglob("*.py")]
    return sorted({*found, *root.glob("*.py")})


def module_names(root: Path = ROOT, package: str = "retinanet_ext") -> list[str]:
    """All modules of the package, but those that run when they are imported."""
    names = []
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if parts[-1] != "__main__" and "configs" not in parts:
            names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


def find_pythons(oldest: int, newest: int = NEWEST) -> dict[int, Path]:
    """Minor version -> an interpreter of it: this one, those on the PATH, those of pyenv."""
    found = {sys.version_info.minor: Path(sys.executable)}
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for minor in range(oldest, newest + 1):
        # Those of pyenv first: its names on the PATH work for the chosen versions only.
        candidates = [*sorted(pyenv.glob(f"3.{minor}.*/bin/python"), reverse=True)]
        if on_path := shutil.which(f"python3.{minor}"):
            candidates.append(Path(on_path))
        for candidate in candidates:
            if minor not in found and _minor_of(candidate) == minor:
                found[minor] = candidate
    return {minor: found[minor] for minor in sorted(found) if oldest <= minor <= newest}


def _minor_of(python: Path) -> int | None:
    try:
        done = subprocess.run(
            [str(python), "-c", "import sys; print(sys.version_info[1])"],
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return int(done.stdout) if done.returncode == 0 else None


def check_by_grammar(files: Iterable[Path], minor: int) -> list[str]:
    """What this Python finds in the files that Python 3.``minor`` cannot read."""
    errors = []
    for path in files:
        try:
            ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=(3, minor))
        except SyntaxError as error:
            errors.append(f"{path}:{error.lineno}: {error.msg}")
    return errors


def check_by_interpreter(python: Path, root: Path = ROOT) -> tuple[str, list[str]]:
    """Compile, and where PyTorch is there import, in another interpreter.

    Returns:
        What was tried, and the errors.
    """
    modules = module_names(root)
    losses = [name for name in modules if name.startswith("retinanet_ext.losses")]
    task = (str(root), [str(path) for path in source_files(root)], modules, losses, OPTIONAL)
    try:
        done = subprocess.run(
            [str(python), "-c", _CHECK, json.dumps(task)],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            cwd=root,
        )
        answer = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError) as error:
        return f"{python}", [f"{python} gave no answer ({type(error).__name__})"]
    has = answer["has"]
    if not has["torch"]:
        imported = "no PyTorch, nothing imported"
    elif not has["detectron2"]:
        imported = f"no Detectron2, {answer['imported']} modules of losses imported"
    else:
        imported = ", ".join([f"{answer['imported']} modules imported", *answer["missing"]])
    tried = f"{answer['version']} ({python}): {len(task[1])} files compiled; {imported}"
    return tried, answer["errors"]


def main(argv: Sequence[str] | None = None) -> int:
    """Check all, print a line each; 1 if something failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("pythons", nargs="*", type=Path, help="interpreters; default: all found")
    given = parser.parse_args(argv).pythons
    oldest = minimum()
    pythons = given or list(find_pythons(oldest).values())
    results = [check_by_interpreter(python) for python in pythons]
    if not given:
        seen = {tried.partition(" ")[0].rpartition(".")[0] for tried, _ in results}
        for minor in range(oldest, NEWEST + 1):
            if f"3.{minor}" in seen:
                continue
            if minor > sys.version_info.minor:
                results.append((f"3.{minor}: not tried, no interpreter here", []))
                continue
            tried = f"3.{minor}: no interpreter; read by its grammar"
            results.append((tried, check_by_grammar(source_files(), minor)))
    for tried, errors in results:
        print(f"{tried}: {'FAILED' if errors else 'fine'}" if "not tried" not in tried else tried)
        for error in errors:
            print(f"    {error}")
    return int(any(errors for _, errors in results))


if __name__ == "__main__":
    sys.exit(main())
