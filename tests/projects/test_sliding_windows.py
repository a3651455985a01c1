"""The cascade and OverFeat: what a feature, a stage, a map and a merge are."""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

import numpy as np
import pytest
import torch
from ancestors import overfeat, viola_jones
from ancestors.overfeat import OverFeat
from ancestors.samples import random_crop
from ancestors.scanning import Found, Picture, background, merge, pyramid
from ancestors.viola_jones import Features, ViolaJones

pytestmark = pytest.mark.usefixtures("ancestors")

SHAPES = ((1, 2), (2, 1), (1, 3), (3, 1), (2, 2))


def test_numbers_of_haar_features_in_a_window():
    counts = [viola_jones.num_features(*shape) for shape in SHAPES]
    assert counts == [43200, 43200, 27600, 27600, 20736]
    assert sum(counts) == 162336


def test_sum_of_a_rectangle_by_the_integral_image():
    sums = viola_jones.integral(np.arange(1, 17).reshape(4, 4))
    assert sums[3, 3] - sums[1, 3] - sums[3, 1] + sums[1, 1] == 34


def test_what_ten_stages_keep():
    assert pytest.approx(0.9044, abs=1e-4) == viola_jones.KEPT**10
    assert pytest.approx(5.9e-6, abs=1e-7) == 0.3**10


def test_number_of_windows_of_a_picture():
    sizes = [size for _, size in pyramid((240, 320), 24, 1.25)]
    assert sum(((h - 24) // 4 + 1) * ((w - 24) // 4 + 1) for h, w in sizes) == 10147
    whole = ViolaJones()
    assert sum(len(x[2]) for x in whole.scan(np.zeros((240, 320, 3), np.uint8), 4)) == 10147
    assert whole.windows.tolist() == [10147]


def test_features_are_means_of_rectangles():
    rng = np.random.default_rng(1)
    maps = rng.random((viola_jones.CHANNELS, 40, 50))
    drawn = viola_jones.draw_features(rng, 60)
    windows = np.array([[0, 3, 5], [0, 16, 26]])
    values = drawn(viola_jones.integral(maps), windows)
    for row, (_, y, x) in enumerate(windows):
        patch = maps[:, y : y + 24, x : x + 24]
        alone = drawn(viola_jones.integral(patch)[None], np.zeros((1, 3), int))
        np.testing.assert_allclose(alone[0], values[row], atol=1e-4)
    # A plain sum is the mean of its rectangle.
    plain = [i for i in range(60) if (drawn.weight[i] != 0).sum() == 4]
    for i in plain[:5]:
        (y0, y1), (x0, x1) = ((v[:4].min(), v[:4].max()) for v in (drawn.y[i], drawn.x[i]))
        mean = maps[drawn.channel[i], 3 + y0 : 3 + y1, 5 + x0 : 5 + x1].mean()
        assert values[0, i] == pytest.approx(mean, abs=1e-4)
    assert plain


def test_boosting_chooses_the_feature_that_tells_and_goes_on_from_a_margin():
    rng = np.random.default_rng(2)
    truth = np.where(np.arange(200) < 60, 1, -1)
    values = rng.normal(size=(200, 5)).astype(np.float32)
    values[:, 3] -= 3 * truth  # small where there is an object
    margin = np.zeros(200)
    columns, thresholds, weights = viola_jones.boost(values, values.argsort(0), truth, margin, 3)
    assert columns[0] == 3 and weights[0] < 0 and abs(thresholds[0]) < 1.5
    assert (np.sign(margin) == truth).mean() > 0.98
    again = np.zeros(200)
    for length in (1, 2):
        viola_jones.boost(values, values.argsort(0), truth, again, length)
    np.testing.assert_allclose(again, margin)
    constant = np.zeros((200, 1), np.float32)  # no threshold fits, which is no reason to fail
    viola_jones.boost(constant, constant.argsort(0), truth, np.zeros(200), 1)


def test_features_of_rows():
    drawn = viola_jones.draw_features(np.random.default_rng(0), 6)
    some = drawn[np.array([4, 1])]
    assert isinstance(some, Features) and (some.y[0] == drawn.y[4]).all()


@pytest.mark.parametrize("width, height", [(75, 51), (35, 35)])
def test_map_equals_windows(width, height):
    model = OverFeat(3, w=4)
    for _ in range(2):  # batch norm's statistics become other than 0 and 1
        model(torch.randn(2, 3, 67, 67))
    model.eval()
    image = torch.randn(1, 3, height, width)
    with torch.no_grad():
        logits, deltas = model(image)
        rows, cols = (height - 35) // 4 + 1, (width - 35) // 4 + 1
        assert logits.shape == (1, rows * cols, 4) and deltas.shape == (1, rows * cols, 4)
        for cell in range(rows * cols):
            y, x = 4 * (cell // cols), 4 * (cell % cols)
            alone = model(image[:, :, y : y + 35, x : x + 35])
            torch.testing.assert_close(alone[0][0, 0], logits[0, cell], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(alone[1][0, 0], deltas[0, cell], atol=1e-4, rtol=1e-4)


def test_windows_learn_what_lies_in_their_core():
    cores = overfeat.window_cores(9, 9)
    middle = cores[40]
    assert ((middle[:2] + middle[2:]) / 2).tolist() == [16 + 17.5, 16 + 17.5]
    boxes = torch.stack([middle, middle + 300])
    ignored = cores[:1]
    labels, nearest = overfeat.label_windows(cores, boxes, torch.tensor([1, 0]), ignored, 2)
    assert labels[40] == 1 and nearest[40] == 0 and labels[80] == 2
    assert labels[0] == -1  # in a region that is ignored
    empty = torch.zeros(0, 4)
    labels, _ = overfeat.label_windows(cores, empty, torch.zeros(0, dtype=torch.long), empty, 2)
    assert (labels == 2).all()


def test_background_that_offends_most_is_learned_from():
    losses, labels = torch.rand(100), torch.full((100,), 2)
    labels[:2], labels[2:10] = 0, -1
    losses[2:10] = 9.0
    chosen = overfeat.choose_windows(losses, labels, 2)
    others = losses[10:].sort(descending=True)[0]
    assert chosen[:2].all() and not chosen[2:10].any()
    assert sorted(losses[10:][chosen[10:]].tolist(), reverse=True) == others[:8].tolist()


def test_loss_of_a_crop_without_objects_is_finite():
    model = OverFeat(2, w=4)
    empty = torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), torch.zeros(0, 4)
    loss = model.losses(torch.zeros(1, 3, overfeat.CROP, overfeat.CROP), [empty])
    loss.backward()
    assert torch.isfinite(loss) and loss > 0


def test_merge_makes_one_box_of_what_overlaps():
    boxes = np.array([[0, 0, 10, 10], [2, 0, 12, 10], [40, 40, 60, 60], [1, 0, 11, 10]], float)
    found = merge(Found(boxes, np.array([0.5, 0.25, 0.9, 0.25]), np.array([1, 0, 2, 0])))
    assert len(found.boxes) == 2
    assert found.labels.tolist() == [2, 0] or found.labels.tolist() == [2, 1]
    np.testing.assert_allclose(found.boxes[1], [0.75, 0, 10.75, 10])
    assert found.scores[1] == pytest.approx(0.5 / (1 + 1.0))
    nothing = merge(Found(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int)))
    assert nothing.boxes.shape == (0, 4) and len(nothing.scores) == 0


def test_background_is_far_from_objects_and_ignored_regions():
    picture = Picture(
        "", 1, np.array([[0, 0, 10, 10.0]]), np.array([0]), np.array([[50, 50, 60, 60.0]])
    )
    boxes = np.array([[0, 0, 10, 11], [50, 50, 60, 61], [20, 20, 30, 30]], float)
    assert background(boxes, picture).tolist() == [False, False, True]
    empty = Picture("", 1, np.zeros((0, 4)), np.zeros(0, int), np.zeros((0, 4)))
    assert background(boxes, empty).all()


def test_crops_carry_their_objects(tmp_path):
    from PIL import Image

    pixels = np.full((60, 80, 3), 50, np.uint8)
    pixels[20:40, 30:50] = (250, 0, 0)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    boxes = np.array([[30, 20, 50, 40.0]])
    picture = Picture(str(tmp_path / "a.png"), 1, boxes, np.array([1]), np.zeros((0, 4)))
    rng, seen = np.random.default_rng(0), 0
    for _ in range(12):
        image, (moved, labels, _) = random_crop(picture, 1.0, overfeat.WINDOW, overfeat.CROP, rng)
        assert image.shape == (overfeat.CROP, overfeat.CROP, 3) and labels.tolist() == [1]
        x, y = ((moved[0, :2] + moved[0, 2:]) / 2).round().int().tolist()
        if 3 < x < overfeat.CROP - 3 and 3 < y < overfeat.CROP - 3:
            seen += 1
            assert image[y, x, 0] > 200 and image[y, x, 1] < 60
    assert seen > 3


def test_both_together_are_short():
    lines = sum(_code_lines(Path(module.__file__)) for module in (viola_jones, overfeat))
    assert lines <= 250


def _code_lines(path: Path) -> int:
    """Lines that hold code: neither blank, nor a comment or docstring only."""
    text = path.read_text(encoding="utf-8")
    kinds = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    lines = set[int]()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in (*kinds, tokenize.ENDMARKER):
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        first = (
            node.body[0] if getattr(node, "body", None) and isinstance(node.body, list) else None
        )
        if isinstance(first, ast.Expr) and isinstance(getattr(first.value, "value", None), str):
            lines.difference_update(range(first.lineno, (first.end_lineno or 0) + 1))
    return len(lines)
