"""``retinanet-ext serve``: its options, its errors, and how it ends."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from retinanet_ext.cli import _build_parser, main, serve
from retinanet_ext.data.quickstart.dataset import CLASS_NAMES
from retinanet_ext.serve import DetectionServer, Limits
from retinanet_ext.serve.server import LOWEST_SCORE
from tests.helpers.run_folder import write_run
from tests.helpers.served import picture, post, request, serving
from tests.helpers.tiny import CLASSES

pytestmark = pytest.mark.usefixtures("clean_catalogs")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """OUTPUT_DIR of a run whose model finds something everywhere."""
    return write_run(tmp_path_factory.mktemp("runs") / "cells")


@pytest.fixture
def once(monkeypatch) -> list[Any]:
    """Servers answer a few requests of the test and end as by Ctrl-C; what was answered."""
    answered: list[Any] = []

    def serve_forever(self: DetectionServer) -> None:
        self.timeout = 10
        with ThreadPoolExecutor(1) as pool:
            for ask in (lambda: request(self, "GET", "/classes"), lambda: post(self, picture())):
                reply = pool.submit(ask)
                self.handle_request()
                answered.append(reply.result(20))
        raise KeyboardInterrupt

    monkeypatch.setattr(DetectionServer, "serve_forever", serve_forever)
    return answered


def test_a_run_is_served(run, once, capsys):
    assert main(["serve", str(run), "--port", "0"]) == 0
    about, found = (x.json for x in once)
    assert about["model"] == "cells"  # not where it is
    assert [x["name"] for x in about["classes"]] == list(CLASSES)
    assert len(found["detections"]) > 1 and found["ms"]["model"] > 0
    assert all(x["score"] >= 0.05 for x in found["detections"])
    printed = capsys.readouterr().out
    assert re.search(r"^http://127\.0\.0\.1:\d+/$", printed, re.MULTILINE)
    assert printed.endswith("stopped\n")


def test_the_demo_is_served_by_its_name(once, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["serve", "demo", "--port", "0"]) == 0
    about, found = once
    assert about.json["model"] == "demo" and found.status == 200
    assert [x["name"] for x in about.json["classes"]] == list(CLASS_NAMES)


def test_a_config_with_weights_is_served_with_its_keys(run, once):
    words = ["--config-file", str(run / "config.yaml"), "--weights", str(run / "model_final.pth")]
    limit = ["--opts", "TEST.DETECTIONS_PER_IMAGE", "3"]
    assert main(["serve", *words, "--port", "0", "--max-mb", "0.5", *limit]) == 0
    about, found = (x.json for x in once)
    assert (about["model"], about["max_bytes"]) == ("model_final.pth", 500_000)
    assert len(found["detections"]) == 3


def test_tiles_and_views_are_served_and_said(run, once, capsys):
    words = ["--tile", "128", "--tile-full-image", "no", "--tta", "flip"]
    words += ["--opts", "INPUT.MIN_SIZE_TEST", "64"]
    assert main(["serve", str(run), "--port", "0", *words]) == 0
    assert len(once[1].json["detections"]) > 1
    out = capsys.readouterr().out
    assert "tiles of 128 x 128 px" in out and "2 views of each" in out
    assert main(["serve", str(run), "--port", "0", "--tile", "512"]) == 0
    assert "no picture was larger" in capsys.readouterr().err


def test_the_precision_is_that_of_predict(run, once, monkeypatch):
    used = []
    use = DetectionServer.use
    monkeypatch.setattr(
        DetectionServer,
        "use",
        lambda self, predictor, name: used.append(predictor) or use(self, predictor, name),
    )
    for words in (["--precision", "float32"], ["--precision", "bfloat16"]):
        assert main(["serve", str(run), "--port", "0", *words]) == 0
    assert [x.model.speedups.autocast for x in used] == ["", "bfloat16"]
    exact, half = (x.json["detections"] for x in once[1::2])
    assert len(exact) > 1 and len(half) > 1
    assert [x["score"] for x in exact] != [x["score"] for x in half]


def test_where_others_reach_it_a_token_is_printed(run, once, capsys):
    assert main(["serve", str(run), "--host", "0.0.0.0", "--port", "0"]) == 0
    assert [x.status for x in once] == [401, 401]
    printed = capsys.readouterr()
    assert re.search(r"^http://127\.0\.0\.1:\d+/#token=[\w-]{20,}$", printed.out, re.MULTILINE)
    assert "warning: every machine" in printed.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "neither of MODEL and --config-file"),
        (["{run}", "--config-file", "c.yaml"], "both of MODEL and --config-file"),
        (["--config-file", "c.yaml"], "--config-file needs --weights"),
        (["{run}/none"], "none' is no folder"),
        (["{run}", "--weights", "best"], "holds no model_best.pth; there are model_final.pth"),
        (["{run}", "--token", "short"], "--token has 5 characters"),
        (["{run}", "--token", "with some blanks"], "--token may have letters"),
        (["{run}", "--host", "no.such.host.invalid"], "--host is 'no.such.host.invalid'"),
        (["{run}", "--host", "192.0.2.1"], "--host is '192.0.2.1', which is no address"),
        (["{run}", "--device", "toaster"], "--device is 'toaster'"),
    ],
)
def test_mistakes_are_one_sentence(run, words, says, capsys):
    assert main(["serve", "--port", "0", *(x.format(run=run) for x in words)]) == 2
    printed = capsys.readouterr().err
    assert says in printed and printed.startswith("retinanet-ext: error: ")
    assert printed.count("\n") == 1


@pytest.mark.parametrize(
    "words", [["--port", "65536"], ["--port", "x"], ["--max-mb", "0"], ["--max-pixels", "many"]]
)
def test_numbers_are_checked_by_the_parser(run, words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["serve", str(run), *words])
    assert stop.value.code == 2 and words[0] in capsys.readouterr().err


def test_a_port_in_use_is_named_before_the_model_is_loaded(run, capsys, monkeypatch):
    monkeypatch.setattr(serve, "Predictor", lambda cfg: pytest.fail("loaded"))
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["serve", str(run), "--port", str(port)]) == 2
    assert f"127.0.0.1:{port} is in use by another program" in capsys.readouterr().err


PAGE = (ROOT / "docs" / "serve.md").read_text()


def test_the_commands_of_the_docs_are_understood():
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    commands = [shlex.split(x, comments=True)[1:] for x in lines if x.startswith("retinanet-ext ")]
    assert len(commands) >= 4
    for words in commands:
        _build_parser("serve").parse_args(words)


def test_the_python_of_the_docs_gets_its_answer(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    (tmp_path / "photo.jpg").write_bytes(picture(format="JPEG"))
    monkeypatch.chdir(tmp_path)
    with serving() as server:
        exec(code.replace("http://127.0.0.1:8000/", server.access.url), {})
    assert capsys.readouterr().out.splitlines()[0] == "cat 0.9 [0.0, 8.0, 16.0, 36.0]"


def test_the_docs_name_the_limits_there_are():
    limits = Limits()
    assert f"{limits.max_bytes // 10**6} MB" in PAGE
    assert f"{limits.max_pixels // 10**6} megapixels" in PAGE
    assert f"when {limits.most_waiting} wait" in PAGE
    assert f"from {LOWEST_SCORE}" in PAGE


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_with_zero(run, number):
    command = [sys.executable, "-W", "ignore", "-m", "retinanet_ext_command", "serve", str(run)]
    with subprocess.Popen(
        [*command, "--port", "0"],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            url = next(line.strip() for line in process.stdout if line.startswith("http"))
            process.stdout.readline()
            with urllib.request.urlopen(f"{url}health", timeout=20) as response:
                assert response.status == 200
            process.send_signal(number)
            out, error = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, out.strip(), error) == (0, "stopped", "")
