"""What the scripts in dev/ share: progress lines, one-sentence errors, calling pip.

Standard library only, and readable for Python 3.6, so that an old Python gets a sentence.
"""

import os
import shutil
import subprocess
import sys

MIN_PYTHON = (3, 10)

NETWORK = (
    "no package index could be reached; check the network (behind a proxy set HTTPS_PROXY, for a "
    "mirror set PIP_INDEX_URL) and run the same command again"
)
PIP_ADVICE = (  # the first marker found in pip's stderr chooses the sentence
    (
        "no space left on device",
        "the disk is full; free some space (pip also unpacks below TMPDIR, and "
        "`python -m pip cache purge` empties its cache) and run the same command again",
    ),
    (
        "externally-managed-environment",
        "this Python belongs to the system; create an environment with "
        "`python3 -m venv .venv` and use its python",
    ),
    ("no module named pip", "this Python has no pip; run `python -m ensurepip` with it first"),
    ("connection", NETWORK),
    ("timed out", NETWORK),
    ("name resolution", NETWORK),
    ("proxyerror", NETWORK),
    ("sslerror", NETWORK),
    (
        "(from versions: none)",
        "the package index in use offers nothing for this Python and machine; check the network "
        "and pip's settings (PIP_NO_INDEX, PIP_INDEX_URL), or use Python 3.11 to 3.13",
    ),
)


class SetupError(RuntimeError):
    """A failure whose text is one sentence that says what to do."""


def say(text: str) -> None:
    """Print one progress line at once, also into a pipe."""
    print(f"[setup] {text}", flush=True)


def runs(python: str, code: str = "") -> bool:
    """Say whether the command ``python`` exists and runs ``code`` with exit status 0."""
    try:
        return subprocess.call([python, "-c", code], stderr=subprocess.DEVNULL) == 0
    except OSError:
        return False


def is_recent(python: str) -> bool:
    """Say whether the command ``python`` runs and is MIN_PYTHON or newer."""
    return runs(python, f"import sys; sys.exit(sys.version_info[:2] < {MIN_PYTHON})")


def require_python() -> None:
    """Raise SetupError when the running interpreter is older than MIN_PYTHON."""
    if sys.version_info[:2] >= MIN_PYTHON:
        return
    found, wanted = (".".join(map(str, v)) for v in (sys.version_info[:2], MIN_PYTHON))
    names = ["python3.13", "python3.12", "python3.11", "python3.10"]
    recent = [name for name in names if shutil.which(name) and is_recent(name)]
    hint = (
        f"{recent[0]} is on this machine: use it (`make PYTHON={recent[0]} quickstart`)"
        if recent
        else "install a newer one and name it (`make PYTHON=python3.11 quickstart`)"
    )
    raise SetupError(
        f"Python {wanted} or newer is needed, but {sys.executable} is Python {found}; {hint}"
    )


def run_pip(python: str, arguments: "list[str]", what: str) -> None:
    """Run ``python -m pip ARGUMENTS``; SetupError with a hint on failure.

    On a terminal pip draws its progress bars; elsewhere it is quiet. What it writes to stderr
    appears only when it retries or fails: after a success it is of no use to anyone.
    """
    quiet = [] if sys.stdout.isatty() else ["--quiet"]
    command = [python, "-m", "pip", *arguments, *quiet]
    env = dict(os.environ, PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_INPUT="1")
    process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, universal_newlines=True)
    assert process.stderr is not None, "stderr is a pipe"
    messages = []
    for line in process.stderr:
        messages.append(line)
        if "Retrying" in line:
            sys.stderr.write(line)
    if process.wait() != 0:
        sys.stderr.writelines([line for line in messages if "Retrying" not in line][-20:])
        raise SetupError(f"{what} failed: {pip_advice(''.join(messages))}")


def pip_advice(stderr: str) -> str:
    """Return the hint for what pip wrote to stderr."""
    lowered = stderr.lower()
    for marker, advice in PIP_ADVICE:
        if marker in lowered:
            return advice
    return "pip's own message above says why; run the same command again after that is repaired"
