"""The table says what a reader needs; the json holds everything."""

from __future__ import annotations

import json

import pytest

from retinanet_ext.benchmark import Benchmark, Row, as_json, table
from retinanet_ext.benchmark.report import format_ratio

MIB = 2.0**20
LOGITS = 100 * 2**20
ROWS = [
    Row("loss", "loss", "time", "detectron2", (2.0, 2.2, 2.4), (0.2, 0.2, 0.2), note="a note"),
    Row(
        "loss", "loss: memory", "memory", "detectron2", (1000 * MIB,), (110 * MIB,), 1, 100 * 2**20
    ),
    Row("inference", "inference", "time", "torchvision", (0.001,), (0.002,)),
    Row("inference", "eight", "rate", "detectron2", (4.0,), (2.0,), images=8),
    Row("many", "many: memory", "memory", "detectron2", (), (3 * MIB,)),
]


@pytest.fixture
def bench(settings) -> Benchmark:
    bench = Benchmark(settings)
    bench.rows += ROWS
    bench.agree("loss", {"losses, relative": 2e-7})
    return bench


def columns(text: str, start: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(start))
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_table_has_both_sides_ratio_and_quartiles(bench):
    text = table(bench, "some.yaml")
    assert columns(text, "what") == ["what", "detectron2", "retinanet_ext", "ratio", "quartiles"]
    assert columns(text, "loss ") == ["loss", "2.20 s", "200 ms", "11.0x faster", "10.50-11.50"]
    assert columns(text, "eight") == ["eight", "2.00 images/s", "4.00 images/s", "2.0x faster"]


def test_memory_is_shown_in_multiples_of_the_logits(bench):
    assert columns(table(bench, "c"), "loss: memory") == [
        "loss: memory",
        "1,000 MiB (10.00x logits)",
        "110 MiB (1.10x logits)",
        "0.11x memory",
    ]


def test_lack_of_memory_is_shown(bench):
    assert columns(table(bench, "c"), "many") == ["many: memory", "out of memory", "3.0 MiB", "-"]


def test_cpu_time_has_a_column_where_it_was_taken(bench):
    assert "of CPU time" not in table(bench, "c")
    samples = (2.0, 2.2, 2.4), (1.0, 1.1, 1.2)
    row = Row("a", "a row", "time", "detectron2", *samples, theirs_cpu=(4.0,), ours_cpu=(1.0,))
    bench.rows.append(row)
    text = table(bench, "c")
    assert columns(text, "what")[-1] == "of CPU time" and columns(text, "a row")[-1] == "4.00x"
    assert columns(text, "loss ")[-1] == "10.50-11.50"
    found = as_json(bench, "c", complete=True)["rows"][-1]
    assert found["cpu_ratio"] == 4 and found["ours_cpu"]["samples"] == [1.0]


def test_what_could_not_be_measured_says_why(bench):
    bench.rows.append(Row("a", "a row", "time", "detectron2", (2.0,), (), absent="no onnx here"))
    text = table(bench, "c")
    assert columns(text, "a row") == ["a row", "2.00 s", "absent", "-"]
    assert "a row: not measured: no onnx here" in text


def test_torchvision_stands_under_its_own_header_and_is_explained(bench):
    text = table(bench, "c")
    second = text[text.index("torchvision") :]
    assert columns(second, "inference") == ["inference", "1.00 ms", "2.00 ms", "2.0x slower"]
    assert "other weights" in text


def test_table_tells_notes_agreement_machine_and_versions(bench, settings):
    text = table(bench, "some.yaml")
    for words in (
        "loss: a note",
        "agreement: loss: losses, relative 2.0e-07",
        "some.yaml, 64 x 96, batch 2, 3 classes, 4 gt per image",
        "1 of ",
        "torch ",
        "torchvision ",
        "python ",
    ):
        assert words in text, words


def test_quartiles_of_a_slower_row_are_how_much_slower(settings):
    bench = Benchmark(settings)
    bench.rows.append(Row("t", "w", "time", "detectron2", (1.0, 1.0, 1.0), (2.0, 4.0, 5.0)))
    # Ratios 1/2, 1/4, 1/5 have the quartiles 0.375 and 0.225.
    assert columns(table(bench, "c"), "w ")[-2:] == ["4.0x slower", "2.67-4.44"]


def test_nothing_measured_is_said(settings):
    assert "nothing was measured" in table(Benchmark(settings), "c")


def test_lines_have_no_trailing_blanks(bench):
    assert all(line == line.rstrip() for line in table(bench, "c").splitlines())


@pytest.mark.parametrize(
    "kind,theirs,ours,words",
    [
        ("time", 9.34, 1.0, "9.3x faster"),
        ("time", 1.234, 1.0, "1.23x faster"),
        ("time", 1.0, 1.5, "1.50x slower"),
        ("memory", 100.0, 40.0, "0.40x memory"),
        ("memory", 0.0, 40.0, "-"),
    ],
)
def test_ratio_in_words(kind, theirs, ours, words):
    assert format_ratio(Row("t", "w", kind, "detectron2", (theirs,), (ours,))) == words


def test_json_is_complete(bench):
    content = json.loads(json.dumps(as_json(bench, "some.yaml", complete=True)))
    assert content["complete"] is True and content["config"] == "some.yaml"
    assert content["settings"]["size"] == [64, 96] and content["settings"]["classes"] == 3
    assert content["agreement"] == {"loss": {"losses, relative": 2e-7}}
    names = {"python", "torch", "cuda", "torchvision", "detectron2", "numpy", "retinanet_ext"}
    assert set(content["versions"]) == names
    assert content["machine"]["cpu"] and content["machine"]["cores"] >= 1
    assert len(content["rows"]) == len(ROWS)
    first = content["rows"][0]
    assert first["theirs"] == {"median": 2.2, "quartiles": [2.1, 2.3], "samples": [2.0, 2.2, 2.4]}
    assert first["ratio"] == pytest.approx(11.0) and first["unit"] == "s"
    assert content["rows"][4]["theirs"] is None and content["rows"][4]["ratio"] is None
