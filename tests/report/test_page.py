"""The page: one file that needs nothing else, shows text as text, and stays small."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.reports import Page, lay_out, pictures, report, scene

HOSTILE = (
    "</script><img src=x onerror=alert(1)>",
    "\" onmouseover='alert(2)",
    "<!--<script>",
    "\x1b[31mred\u202e\u2028end",
    "x" * 300,
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def links(page: Page) -> list[str]:
    return [
        str(attrs[key])
        for _, attrs in page.elements
        for key in ("src", "href", "xlink:href", "action", "data")
        if attrs.get(key)
    ]


def test_nothing_comes_from_elsewhere_and_no_folder_of_the_user_is_told(folder):
    truth, results = scene()
    pictures(truth, folder / "pictures")
    report(truth, results, "--annotations", f"{folder}/val.json:{folder}/pictures")
    page = Page()
    assert not page.unclosed
    assert links(page)
    for link in links(page):
        assert link.startswith(("#", "data:image/jpeg;base64,")), link[:80]
    assert "url(" not in page.source and "@import" not in page.source
    for text in (page.source, Path("report.json").read_text()):
        assert str(folder) not in text and str(folder.parent) not in text
    policy = next(x for x in page.all("meta") if x.get("http-equiv"))["content"]
    digest = base64.b64encode(hashlib.sha256(page.scripts[-1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in str(policy) and "default-src 'none'" in str(policy)


def test_names_of_classes_and_files_are_text(folder):
    truth, results = scene(classes=HOSTILE)
    for i, image in enumerate(truth["images"]):
        if i < 3:
            image["file_name"] = f"{i}<img src=x onerror=alert(3)>.png"
    pictures(truth, folder)
    report(truth, results)
    page = Page()
    assert not page.unclosed
    assert {tag for tag, _ in page.elements} >= {"svg", "table", "img"}
    assert len(page.all("script")) == 2
    for tag, attrs in page.elements:
        assert not [name for name in attrs if name.startswith("on")], (tag, attrs)
        assert tag != "img" or str(attrs["src"]).startswith("data:image/jpeg;base64,")
    assert "</script><img src=x onerror=alert(1)>" in page.text
    assert "<img src=x onerror=alert(3)>" in page.text
    assert "\x1b" not in page.source and "\u202e" not in page.source and "\u2028" not in page.source
    numbers = json.loads(page.scripts[0])
    assert set(numbers["classes"]) == set(HOSTILE)
    assert numbers == json.loads(Path("report.json").read_text())


def test_all_of_it_can_be_seen_without_javascript():
    truth, results = scene()
    content = report(truth, results)
    page = Page()
    assert len(page.all("svg")) >= 3
    cells = [
        x for x in page.all("td") if str(x.get("title", "")).startswith("disc detected as disc")
    ]
    count = content["confusion"]["matrix"][0][0]
    assert cells[0]["title"] == f"disc detected as disc: {count}"
    for name, row in content["classes"].items():
        assert name in page.text and f"{row['AP']:.1f}" in page.text
    assert f"{content['summary']['AP']:.1f}" in page.text
    ids = page.ids()
    for link in links(page):
        assert link[1:] in ids
    wanted = ["classes", "scores", "confusion", "errors", "missed", "shapes", "calibration"]
    assert [x for x in ids if x in wanted] == wanted
    assert "definitions" in ids and "training" not in ids


def test_pictures_are_small_and_without_metadata(folder):
    truth, results = scene()
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "maker of the camera", "SECRET"
    pictures(truth, folder / "img", exif=exif)
    report(truth, results, "--annotations", "val.json:img")
    shown = Page().all("img")
    assert shown
    for attrs in shown:
        data = base64.b64decode(str(attrs["src"]).partition(",")[2])
        assert b"SECRET" not in data and b"Exif" not in data
        with Image.open(io.BytesIO(data)) as image:
            assert image.format == "JPEG" and max(image.size) <= 480
            assert not image.getexif()


def test_pictures_make_room_for_the_size_of_the_page(folder):
    truth, results = scene()
    pictures(truth, folder)
    report(truth, results, "--no-images")
    bare = Path("report.html").stat().st_size
    assert not Page().all("img")
    report(truth, results)
    all_of_them = len(Page().all("img"))
    limit = (bare + Path("report.html").stat().st_size) / 2
    report(truth, results, "--max-mb", str(limit / 1e6))
    assert Path("report.html").stat().st_size <= limit
    assert 0 < len(Page().all("img")) < all_of_them
    report(truth, results, "--num-worst", "2")
    assert 0 < len(Page().all("img")) <= 4


def test_missing_and_broken_pictures_are_left_out(folder):
    truth, results = scene()
    content = report(truth, results)
    assert not Page().all("img") and "pictures are not on this machine" in content["remarks"][0]
    pictures(truth, folder / "img")
    names = sorted((folder / "img").iterdir())
    for path in names[:5]:
        path.unlink()
    for path in names[5:10]:
        path.write_bytes(b"no picture")
    content = report(truth, results, "--annotations", "val.json:img")
    assert f"5 of {len(names)} pictures are missing on disk" in content["remarks"]
    assert len(Page().all("img")) > 0


def test_ten_thousand_classes_make_a_small_page_in_little_memory():
    names = tuple(f"class {i}" for i in range(10_000))
    truth, results = scene(0, classes=names, num_objects=3000)
    content = report(truth, results)
    size = Path("report.html").stat().st_size
    assert size < 20e6
    assert len(content["classes"]) == 10_000 and content["confusion"]["matrix"] is None
    assert len(content["confusion"]["cells"]) > 1000
    page = Page()
    rows = len(page.all("tr"))
    assert rows < 5000
    assert "10\N{NARROW NO-BREAK SPACE}000 classes" in page.text


def test_more_than_forty_classes_fold():
    names = tuple(f"class {i}" for i in range(60))
    truth, results = scene(0, classes=names, num_objects=900)
    content = report(truth, results)
    page = Page()
    assert len(content["confusion"]["matrix"]) == 61
    assert "matrix" not in [x.get("class") for x in page.all("table")]
    assert page.all("details") and "All 60 classes" in page.text
    assert re.search(r"The \d+ most confused pairs", page.text)


def test_few_objects_are_marked_as_uncertain():
    truth, results = scene(0, num_objects=30)
    report(truth, results)
    assert "uncertain" in Page().text
    truth, results = scene(0, num_objects=400)
    report(truth, results)
    assert "uncertain" not in Page().text


def test_with_no_option_the_files_lie_in_the_current_folder(capsys):
    from retinanet_ext.cli import main

    assert main([*lay_out(*scene()), "--bootstrap", "0"]) == 0
    said = capsys.readouterr().out
    for name in ("report.html", "report.json", "thresholds.yaml"):
        assert Path(name).is_file() and said.count(f"{name}: ") == 1
    assert "intervals" not in json.loads(Path("report.json").read_text())
