"""thresholds.yaml is read as it was written, and refused in one sentence where it is not one."""

from __future__ import annotations

import math

import pytest

from retinanet_ext.errors import UserError
from retinanet_ext.evaluation.analysis.classes import ClassRow
from retinanet_ext.evaluation.analysis.thresholds import read_thresholds, write_thresholds

NAN = float("nan")
NAMES = ["cat", "no", "17", "1e-5", "</script>: {a}", "- x #", "\x1b[31m", "\ud800"]
NAMES += ["caf\u00e9 \U0001f431"]


def rows(names=NAMES) -> list[ClassRow]:
    return [
        ClassRow(name, NAN, 50, 40, 60, 10 * k, 7, 1 / (3 + 1e4 * k), 1 / 3, NAN, 0.5)
        for k, name in enumerate(names)
    ]


def test_every_threshold_comes_back_to_the_last_bit_under_its_name(tmp_path):
    path = str(tmp_path / "thresholds.yaml")
    write_thresholds(path, rows(), 0.5, "val.json", "ab12")
    found = read_thresholds(path)
    assert found.of_class == {row.name: row.threshold for row in rows()}
    assert (found.iou, found.dataset, found.weights_sha256) == (0.5, "val.json", "ab12")
    text = (tmp_path / "thresholds.yaml").read_text()
    assert "recall: null" in text and text.count("uncertain: true") == 1
    assert str(tmp_path) not in text


def test_a_file_changed_by_hand_is_read(tmp_path):
    path = tmp_path / "t.yaml"
    path.write_text("classes:\n  cat: 0.5\n  dog: {threshold: 1}\n")
    found = read_thresholds(str(path))
    assert found.in_order(["dog", "cat"]) == [1, 0.5] and math.isclose(found.iou, 0.5)


def test_classes_of_another_model_are_refused(tmp_path):
    path = str(tmp_path / "t.yaml")
    write_thresholds(path, rows(["cat", "dog"]), 0.5, "val.json")
    with pytest.raises(UserError, match=r"they lack cats.* Did you mean 'cat'"):
        read_thresholds(path).in_order(["cats", "dog"])


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "no 'classes'"),
        ("0.5", "no 'classes'"),
        ("classes: {}", "no 'classes'"),
        ("classes: {cat: high}", "class 'cat' is 'high'"),
        ("classes: {cat: 1.5}", "between 0 and 1"),
        ("classes: {cat: .nan}", "between 0 and 1"),
        ("classes: {cat: true}", "class 'cat' is True"),
        ("classes: {cat: {f1: 1}}", "class 'cat' is None"),
        ("classes: {cat: 0.5}\niou: high", "iou is 'high'"),
        ("classes: {cat: [0.5", "is not yaml"),
        ("classes: {[1, 2]: 0.5}", "is not yaml|no file of thresholds"),
        ("classes: !!python/object/apply:os.system ['true']", "is not yaml"),
        ("a: &a [x, x]\n" + "".join(f"b{i}: &b{i} [*a, *a]\n" for i in range(3)), "no 'classes'"),
    ],
)
def test_what_is_no_such_file_is_refused_in_a_sentence(text, said, tmp_path):
    path = tmp_path / "t.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=said) as error:
        read_thresholds(str(path))
    assert "t.yaml" in str(error.value) and "\n\n" not in str(error.value)
