"""The GPU check: what runs beside what, how results are told, and that a failure is one."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

DEV = Path(__file__).resolve().parents[2] / "dev"
REPORT = """<testsuites><testsuite>
<testcase classname="tests.a" name="test_right" time="0.5"/>
<testcase classname="tests.a" name="test_wrong" time="1"><failure message="1 is
not 2">long</failure></testcase>
<testcase classname="tests.a" name="test_skipped"><skipped message="needs CUDA"/></testcase>
</testsuite></testsuites>"""


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(str(DEV))
    before = set(sys.modules)

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield load
    for name in set(sys.modules) - before:
        if name.startswith("gpu_check"):
            del sys.modules[name]


def told(capsys, prefix: str) -> list[dict]:
    lines = capsys.readouterr().out.splitlines()
    return [json.loads(line.removeprefix(prefix)) for line in lines if line.startswith(prefix)]


def test_what_is_timed_runs_after_all_else(load):
    together, alone = load("gpu_check").jobs_of(("correct", "fast", "whole"), "cuda")
    assert set(alone) == {"training", "inference", "parts", "loader"}
    assert set(together.values()) == {"correct", "fast", "whole"}
    assert alone.keys() == load("gpu_check").SHARES.keys()


def test_a_section_can_be_asked_for_by_itself(load):
    together, alone = load("gpu_check").jobs_of(("correct",), "cpu")
    assert set(together.values()) == {"correct"} and not alone


def test_groups_are_folders_of_tests(load):
    for names in load("gpu_checks.correct").GROUPS.values():
        for name in names:
            assert (DEV.parent / "tests" / name).is_dir(), name


def test_an_error_in_a_job_is_a_result_and_the_job_continues(load, capsys):
    report = load("gpu_checks.report")
    job = report.Job("fast", "cpu", True, 60)
    with job.guarded("division"):
        1 / 0  # noqa: B018
    job.tell("later", "ok", "fine", seconds=1.5)
    first, second = told(capsys, report.PREFIX)
    assert (first["status"], first["text"]) == ("FAIL", "ZeroDivisionError: division by zero")
    assert second["figures"] == {"seconds": 1.5}


def test_without_time_left_a_case_is_named_as_skipped(load, capsys):
    report = load("gpu_checks.report")
    job = report.Job("fast", "cpu", True, -1)
    assert not job.has_time("batch 16")
    (result,) = told(capsys, report.PREFIX)
    assert (result["name"], result["status"]) == ("batch 16", "skipped")


def test_results_of_tests_name_each_failure(load, capsys, tmp_path):
    report, correct = load("gpu_checks.report"), load("gpu_checks.correct")
    (tmp_path / "r.xml").write_text(REPORT)
    correct._tell(report.Job("correct", "cpu", True, 60), "losses", tmp_path / "r.xml")
    wrong, summary = told(capsys, report.PREFIX)
    assert (wrong["name"], wrong["text"]) == ("a.test_wrong", "1 is not 2")
    assert summary["status"] == "FAIL"
    assert summary["text"] == "1 passed, 1 failed in 2 s; 1 skipped: needs CUDA"


def test_results_are_in_the_json_as_soon_as_they_are_known(load, tmp_path, capsys):
    report = load("gpu_checks.report")
    results = report.Results(tmp_path / "gpu.json")
    results.facts = {"card": "none"}
    results.add(report.Result("fast", "loss", text="2x faster"))
    assert json.loads((tmp_path / "gpu.json").read_text())["results"][0]["name"] == "loss"
    results.add(report.Result("whole", "resume", "FAIL", "3 differ"))
    assert [row.name for row in results.failed] == ["resume"]
    assert results.table().splitlines()[-1].startswith("== card none; 1 failed")


def test_without_a_gpu_one_sentence_tells_what_to_do(load, capsys, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert load("gpu_check").main([]) == 2
    assert "--device cpu --tiny tries the script" in capsys.readouterr().out
