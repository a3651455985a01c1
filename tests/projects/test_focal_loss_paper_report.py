# ruff: noqa: RUF001 (the paper's symbols in the labels)
"""Tables, figures and the loss distribution, from made-up results."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from focal_loss_paper import report, style
from focal_loss_paper.loss_distribution import (
    AnchorSamples,
    collect_samples,
    cumulative_loss,
    loss_curves,
)
from focal_loss_paper.rows import load_tables
from focal_loss_paper.tables import summarize, tables_markdown
from PIL import Image

from retinanet_ext.data.datasets.register import register_builtin_datasets
from tests.helpers.made_up_results import put_result
from tests.helpers.tiny import tiny_cfg, write_dataset

TABLES = load_tables()


# Tables


def table_line(text: str, table: str, start: str) -> str:
    section = text.split(f"## Table {table}:")[1].split("## Table")[0]
    return next(line for line in section.splitlines() if line.startswith(f"| {start}"))


def test_tables_lay_ours_beside_the_papers(filled):
    text = tables_markdown(TABLES, summarize(TABLES, filled))
    # The sample standard deviation of 60 and 62 is sqrt(2).
    gamma2 = "**61.0 ± 1.4** | **81.0 ± 1.4** | **66.0 ± 1.4** | 2 | **34.0** | **52.5** | **36.5**"
    assert table_line(text, "1b", "FL, γ = 2") == f"| FL, γ = 2, α = .25 | {gamma2} |"
    assert "| 58.0 (1 of 2 diverged) | 78.0 | 63.0 | 2 | 31.1 |" in table_line(
        text, "1b", "FL, γ = 0,"
    )
    assert table_line(text, "1b", "FL, γ = 5").count("| - ") == 4
    assert "| diverged | - | - | 1 | diverged | - | - |" in table_line(text, "1a", "CE, π = .5")
    # Of these one row was run, or none.
    assert "Not run: table 1c, 1d" in text and "## Table 1d" not in text
    deep = table_line(text, "1e", "ResNet-101, 600 px")
    assert (
        "(here ResNet-34, 256 px) | **63.0** " in deep and "| 35.0 |" in deep and "| 122 |" in deep
    )
    assert "490 iterations on `quickstart_train`" in text


def test_results_json_holds_every_seed(filled, tmp_path):
    report.write_tables(TABLES, filled, tmp_path)
    content = json.loads((tmp_path / "results.json").read_text())
    row = next(row for row in content["tables"]["1b"] if row["config"] == "1b_gamma2")
    assert [seed["metrics"]["AP"] for seed in row["seeds"]] == [60.0, 62.0]
    assert row["mean"]["AP"] == 61.0 and row["paper"]["AP"] == 34.0


# Figures


def colors(path: Path) -> int:
    return len(Image.open(path).convert("RGB").getcolors(1 << 20))


def shows(path: Path, color: str) -> bool:
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return bool((np.abs(pixels - wanted).max(axis=2) < 8).sum() > 20)


def test_figures_show_what_was_run(filled, tmp_path):
    folder = tmp_path / "figures"
    put_result(filled, "1e_R50_400", 1, 50.0, ms=15)
    tables = {name: TABLES[name] for name in ("1b", "1e")}
    summary = summarize(tables, filled)
    report.write_figures(tables, summary, folder)
    names = {"figure1_focal_loss.png", "table_1b.png", "table_1e.png", "table_1e_time.png"}
    assert {path.name for path in folder.glob("*.png")} == names
    for path in folder.glob("*.png"):
        assert colors(path) > 20, f"{path.name} is blank"
        assert shows(path, style.BLUE) and shows(path, style.ORANGE), path.name
        path.unlink()
    report.write_figures(tables, summary, folder, before=summary)
    assert not list(folder.glob("*.png")), "nothing changed, nothing to draw"


def test_tables_without_results_have_no_figure(book, tmp_path):
    put_result(book, "1a_ce", 1, None)
    tables = {name: TABLES[name] for name in ("1a", "1b", "1e")}
    report.write_figures(tables, summarize(tables, book), tmp_path / "figures")
    found = {path.name for path in (tmp_path / "figures").glob("*")}
    assert found == {"figure1_focal_loss.png", "table_1a.png"}


def test_missing_matplotlib_names_the_way_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        style.new_figure(1, 1)


# Loss distribution


def test_cumulative_loss_is_the_share_of_the_easiest():
    curve = cumulative_loss(torch.tensor([3.0, 0.0, 1.0, 6.0]), points=5)
    assert curve == pytest.approx([0.0, 0.0, 0.1, 0.4, 1.0])


def test_gamma_moves_the_loss_to_the_hard_anchors():
    generator = torch.Generator().manual_seed(0)
    foreground = torch.randn(500, 3, generator=generator)
    background = torch.randn(2000, 3, generator=generator) * 1.5 - 4
    labels = torch.randint(0, 3, (500,), generator=generator)
    curves = loss_curves(AnchorSamples(foreground, labels, background))
    for kind in ("foreground", "background"):
        middle = [values[100] for values in curves[kind].values()]
        assert middle == sorted(middle, reverse=True) and middle[0] > 1.5 * middle[-1]
    # Independent: cross entropy of the background in float64 with numpy.
    loss = np.sort(np.log1p(np.exp(background.double().numpy())).sum(axis=1))
    easiest = loss[:1000].sum() / loss.sum()
    assert curves["background"]["0"][100] == pytest.approx(easiest, rel=1e-6)


def test_samples_are_the_anchors_of_the_validation_images(tmp_path):
    register_builtin_datasets(write_dataset(tmp_path))
    cfg = tiny_cfg(tmp_path)
    weights = build_model(cfg).state_dict()
    weights["head.cls_score.weight"].zero_()
    weights["head.cls_score.bias"].fill_(-3.0)
    torch.save({"model": weights}, tmp_path / "model.pth")
    samples = collect_samples(cfg, tmp_path / "model.pth", "bccd_val")
    assert len(samples.foreground) == len(samples.labels) > 0
    assert samples.background.shape[1] == 3
    # 64 px: (8^2 + 4^2 + 2^2 + 1 + 1) cells of 3 anchors in each of 3 images, less the ignored.
    assert 600 < len(samples.background) <= 3 * 3 * 86 - len(samples.foreground)
    assert (samples.background == -3.0).all() and (samples.foreground == -3.0).all()
    curves = loss_curves(samples)
    report.draw_loss_distribution(tmp_path / "f.png", curves, "bccd")
    assert colors(tmp_path / "f.png") > 20


def test_publish_copies_tables_and_figures(filled, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "PROJECT", tmp_path / "project")
    with pytest.raises(FileNotFoundError, match=r"tables\.md"):
        report.publish(tmp_path / "empty", "quickstart")
    report.Report({"1b": TABLES["1b"]}, filled, tmp_path).update()
    target = report.publish(tmp_path, "quickstart")
    assert target == tmp_path / "project" / "results" / "quickstart"
    assert {"tables.md", "results.json", "table_1b.png"} <= {p.name for p in target.iterdir()}
