"""A ``predict`` that was ended continues where it was, and mixes no two models or settings."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from retinanet_ext.cli import main
from retinanet_ext.inference.outputs import read_lines
from tests.helpers.predicting import predict, without_times
from tests.helpers.run_folder import write_run

pytestmark = pytest.mark.usefixtures("clean_catalogs")
ROOT = Path(__file__).resolve().parents[2]
LINES = Path("out/predictions.jsonl")


def said(capsys, *words) -> str:
    assert main(["predict", *map(str, words), "--output", "out"]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("torn", [b"", b'{"file": "photos/1.p', b'{"file": "photos/1.png"}'])
def test_a_torn_end_is_cut_and_the_rest_is_done(run, photos, torn):
    words = [run, "photos", "--format", "csv", "--batch-size", "1"]
    expected = without_times(predict(*words))
    rows = Path("out/predictions.csv").read_text()
    whole = LINES.read_bytes().splitlines(keepends=True)
    LINES.write_bytes(whole[0] + torn)
    found = without_times(predict(*words, "--resume"))
    assert found == expected
    assert Path("out/predictions.csv").read_text() == rows


def test_nothing_is_left_to_do(run, photos, capsys):
    expected = predict(run, "photos")
    assert predict(run, "photos", "--resume") == expected
    assert "0 images, 0 detections" in capsys.readouterr().out


def test_results_are_not_replaced_unasked(run, photos, capsys):
    expected = predict(run, "photos")
    assert "holds results of this model already; --resume continues" in said(capsys, run, "photos")
    assert list(read_lines(str(LINES))) == expected


@pytest.mark.parametrize("mode", [[], ["--resume"]])
def test_results_of_other_settings_or_models_are_not_mixed(mode, run, photos, tmp_path, capsys):
    predict(run, "photos", "--draw")
    assert "other settings (classes)" in said(
        capsys, run, "photos", "--draw", "--classes", "RBC", *mode
    )
    other = write_run(tmp_path / "other", seed=1)
    assert "holds results of another model" in said(capsys, other, "photos", "--draw", *mode)
    assert len(predict(other, "photos", "--overwrite")) == 4
    assert not Path("out/drawn").exists()


def test_overwrite_leaves_what_is_not_of_a_run(run, photos):
    Path("out/drawn").mkdir(parents=True)
    Path("out/drawn/mine.jpg").touch()
    predict(run, "photos", "--overwrite")
    assert Path("out/drawn/mine.jpg").exists()


def test_what_predict_did_not_write_is_not_written_over(run, photos, capsys):
    """The labels of a dataset, the results of an evaluation."""
    others = ["labels/0.txt", "drawn/0.jpg", "crops/0.jpg", "coco_instances_results.json"]
    for name in [f"out/{x}" for x in others]:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("mine")
    for words in (["--format", "csv,yolo"], ["--draw"], ["--crops"], ["--format", "coco"]):
        for mode in ([], ["--overwrite"]):
            assert "there already and not by predict" in said(capsys, run, "photos", *words, *mode)
    predict(run, "photos", "--format", "csv")
    assert "labels would be written" in said(
        capsys, run, "photos", "--format", "yolo", "--overwrite"
    )
    predict(run, "photos", "--overwrite")
    assert not Path("out/predictions.csv").exists()
    assert {Path("out", x).read_text() for x in others} == {"mine"}


def test_a_full_disk_is_said_with_what_to_do(run, photos, capsys, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as during:
        during.setattr("retinanet_ext.inference.outputs.lines.Lines.add", full)
        message = said(capsys, run, "photos")
    assert "--output is 'out', and 0 images are done, but then: No space left" in message
    assert "make room, and pass --resume" in message
    assert len(predict(run, "photos", "--resume")) == 4


def test_damage_within_is_said(run, photos, capsys):
    predict(run, "photos")
    lines = LINES.read_text().splitlines(keepends=True)
    LINES.write_text("".join([lines[0], "broken\n", *lines[2:]]))
    assert "is damaged in line 2" in said(capsys, run, "photos", "--resume")


def started(*words) -> subprocess.Popen:
    command = [sys.executable, "-W", "ignore", "-m", "retinanet_ext", "predict", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment.pop("DISPLAY", None)
    return subprocess.Popen(
        [*command, "--output", "out"],
        env=environment,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.slow
@pytest.mark.parametrize("ended_by", [signal.SIGKILL, signal.SIGINT])
def test_an_ended_run_and_its_rest_are_an_uninterrupted_one(run, photos, ended_by):
    words = [run, "photos", "--format", "csv", "--draw", "--batch-size", "1"]
    expected = without_times(predict(*words))
    rows = Path("out/predictions.csv").read_text()
    assert main(["predict", *map(str, words), "--output", "out", "--overwrite"]) == 0
    # The pictures come one by one through a pipe, so that it is in the middle for certain.
    feed = ["-", *map(str, words[2:])]
    process = started(run, *feed, "--overwrite", "--workers", "0")
    process.stdin.write(b"photos/0.png\nphotos/1.png\n")
    process.stdin.flush()
    until = time.monotonic() + 120
    while not LINES.exists() or LINES.read_bytes().count(b"\n") != 2:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(ended_by)
    assert process.wait(60) == (130 if ended_by == signal.SIGINT else -signal.SIGKILL)
    if ended_by == signal.SIGINT:
        assert b"--resume continues" in process.stderr.read()
        assert len(Path("out/predictions.csv").read_text().splitlines()) > 2
    process.stderr.close()
    process = started(run, *feed, "--resume")
    process.communicate("".join(f"photos/{i}.png\n" for i in range(4)).encode(), timeout=120)
    assert process.returncode == 0
    assert without_times(list(read_lines(str(LINES)))) == expected
    assert Path("out/predictions.csv").read_text() == rows
