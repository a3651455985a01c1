"""The page in a real browser, which reaches nothing but this machine.

Needs playwright and Chromium: ``pip install playwright`` and Debian's ``chromium``.
"""

from __future__ import annotations

import base64
import io
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retinanet_ext.serve import DetectionServer, Limits
from retinanet_ext.visualization.draw import class_color
from tests.helpers.served import StubModel, picture, serving

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
EVIL = "</script><img src=x onerror=alert(1)>"
TIMES = "\u00d7"
TOKEN = "a-token-of-16-ch"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="needs Chromium"),
]

FLAGS = [
    "--no-sandbox",  # which does not work for root
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server() -> Iterator[DetectionServer]:
    with serving(StubModel(["cat", "dog", EVIL])) as server:
        yield server


class Visit:
    """A page that is open, and what went wrong on it."""

    def __init__(self, browser: Any, url: str, **options: Any):
        self.page = browser.new_page(**options)
        self.troubles: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda x: self.troubles.append(x.text))
        self.page.on("pageerror", lambda x: self.troubles.append(str(x)))
        self.page.on("dialog", lambda x: (self.troubles.append("a dialog"), x.dismiss()))
        self.page.on("request", lambda x: self.asked.append(x.url))
        self.page.goto(url)

    def drop(self, path: Path) -> None:
        """Drop a file on the page, as the system does it."""
        session = self.page.context.new_cdp_session(self.page)
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            event = {"type": kind, "x": 300, "y": 300, "data": data}
            session.send("Input.dispatchDragEvent", event)

    def rows(self) -> list[list[str]]:
        return [
            x.locator("td").all_inner_texts() for x in self.page.locator("#rows tbody tr").all()
        ]

    def wait_for(self, selector: str) -> None:
        self.page.wait_for_selector(selector, timeout=15_000)

    def wait_for_result(self) -> None:
        self.wait_for("#save-json:not([disabled])")

    def save(self, button: str) -> Path:
        with self.page.expect_download() as download:
            self.page.locator(button).click()
        return download.value.path()

    def pixels(self) -> np.ndarray:
        """Of the canvas, (H, W, 3)."""
        url = self.page.locator("#canvas").evaluate("x => x.toDataURL()")
        file = io.BytesIO(base64.b64decode(url.partition(",")[2]))
        return np.asarray(Image.open(file).convert("RGB"))


@pytest.fixture
def visit(browser: Any, server: DetectionServer) -> Iterator[Visit]:
    visit = Visit(browser, server.access.url, viewport={"width": 1200, "height": 760})
    visit.wait_for("#model:not(:empty)")
    yield visit
    visit.page.close()
    assert all(x.startswith((server.access.url, "blob:", "data:")) for x in visit.asked)
    assert visit.troubles == []


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my picture #1.png"
    path.write_bytes(picture(300, 200))
    return path


def has_color(pixels: np.ndarray, index: int) -> bool:
    """Whether lines in a class's colour are drawn."""
    near = np.abs(pixels.astype(int) - np.array(class_color(index))).max(axis=2) < 12
    return bool(near.sum() > 100)


def test_a_dropped_picture_shows_its_boxes_which_the_slider_and_the_classes_filter(visit, file):
    assert not visit.page.locator("#canvas").is_visible()
    visit.drop(file)
    visit.wait_for_result()
    # Scores .9 and .6 are above the slider's .5, .3 is not.
    assert visit.rows() == [
        ["cat", "0.90", "0, 40", f"80 {TIMES} 140"],
        ["dog", "0.60", "100, 40", f"80 {TIMES} 140"],
    ]
    assert [has_color(visit.pixels(), i) for i in range(3)] == [True, True, False]
    visit.page.locator("#score").fill("0.2")
    assert [row[0] for row in visit.rows()] == ["cat", "dog", EVIL]  # as text: nothing runs
    assert [has_color(visit.pixels(), i) for i in range(3)] == [True, True, True]
    visit.page.get_by_label("cat").uncheck()
    assert [row[0] for row in visit.rows()] == ["dog", EVIL]
    assert [has_color(visit.pixels(), i) for i in range(3)] == [False, True, True]
    assert visit.page.locator("#count").inner_text() == "2 of 3"
    visit.page.locator("#score").fill("0.95")
    assert visit.rows() == [] and "the best is 0.90" in visit.page.locator("#empty").inner_text()
    assert visit.asked.count(f"{visit.page.url}predict") == 1  # the rest is done here
    assert "12 ms" in visit.page.locator("#facts").inner_text()


def test_a_box_under_the_pointer_is_the_row_that_is_marked(visit, file):
    visit.page.locator("#file").set_input_files(file)
    visit.wait_for_result()
    plain = visit.pixels()
    box = visit.page.locator("#canvas").bounding_box()
    visit.page.mouse.move(box["x"] + box["width"] * 140 / 300, box["y"] + box["height"] / 2)
    assert visit.page.locator("#rows tr.hot td").first.inner_text() == "dog"
    assert not np.array_equal(visit.pixels(), plain)
    visit.page.mouse.move(5, 5)
    assert visit.page.locator("#rows tr.hot").count() == 0
    np.testing.assert_array_equal(visit.pixels(), plain)
    visit.page.locator("#rows tbody tr").first.hover()
    assert visit.page.locator("#rows tr.hot td").first.inner_text() == "cat"


def test_what_is_shown_can_be_saved(visit, file):
    visit.drop(file)
    visit.wait_for_result()
    visit.page.get_by_label("cat").uncheck()
    saved = json.loads(visit.save("#save-json").read_text())
    assert (saved["file"], saved["width"], saved["score_thresh"]) == (file.name, 300, 0.5)
    assert [x["class"] for x in saved["detections"]] == ["dog"]
    drawn = np.asarray(Image.open(visit.save("#save-png")).convert("RGB"))
    assert drawn.shape == (800, 1200, 3)  # small pictures four times as large
    assert [has_color(drawn, i) for i in range(3)] == [False, True, False]


def test_the_camera_and_the_clipboard_are_pictures_too(visit):
    visit.page.locator("#camera").click()
    visit.wait_for("#camera-take:not([disabled])")
    visit.page.locator("#camera-take").click()
    visit.wait_for_result()
    assert "camera" in visit.page.locator("#facts").inner_text()
    code = """(_, bytes) => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], "pasted.png", {type: "image/png"}));
        document.dispatchEvent(new ClipboardEvent("paste", {clipboardData: data, bubbles: true}));
    }"""
    visit.page.locator("html").evaluate(code, [*picture(90, 60)])
    visit.wait_for("#facts b:text('pasted.png')")
    visit.wait_for_result()
    assert f"90 {TIMES} 60" in visit.page.locator("#facts").inner_text()


def test_what_the_browser_cannot_show_has_its_boxes_all_the_same(visit, tmp_path):
    (tmp_path / "scan.tif").write_bytes(picture(300, 200, "TIFF"))
    visit.page.locator("#file").set_input_files(tmp_path / "scan.tif")
    visit.wait_for_result()
    assert "cannot show the file" in visit.page.locator("#facts").inner_text()
    assert has_color(visit.pixels(), 0)


def test_a_turned_photo_is_upright_under_its_boxes(visit, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side
    (tmp_path / "photo.jpg").write_bytes(picture(300, 200, "JPEG", exif=exif))
    visit.page.locator("#file").set_input_files(tmp_path / "photo.jpg")
    visit.wait_for_result()
    assert f"200 {TIMES} 300" in visit.page.locator("#facts").inner_text()
    height, width = visit.pixels().shape[:2]
    assert height / width == pytest.approx(1.5, abs=0.02)


def test_errors_are_told_in_words(browser, server, tmp_path):
    visit = Visit(browser, server.access.url)
    visit.wait_for("#model:not(:empty)")
    (tmp_path / "notes.png").write_text("no picture")
    visit.drop(tmp_path / "notes.png")
    visit.wait_for("#message:not([hidden])")
    assert "This is not a JPEG" in visit.page.locator("#message").inner_text()
    assert visit.page.locator("#hint").is_visible()
    (tmp_path / "big.png").write_bytes(bytes(21_000_000))
    visit.page.locator("#file").set_input_files(tmp_path / "big.png")
    visit.wait_for("#message p:text('21.0 MB')")
    visit.page.locator("#dismiss").click()
    assert not visit.page.locator("#message").is_visible()
    visit.page.close()


def test_a_server_that_is_gone_is_named_and_can_be_tried_again(browser, file):
    with serving(limits=Limits(head_seconds=0.5)) as server:
        visit = Visit(browser, server.access.url)
        visit.wait_for("#model:not(:empty)")
    time.sleep(1)  # connections that are open end
    visit.drop(file)
    visit.wait_for("#again:not([hidden])")
    assert "does not answer" in visit.page.locator("#message").inner_text()
    visit.page.close()


def test_the_token_comes_with_the_address_or_is_asked_for(browser, file):
    with serving(token=TOKEN) as server:
        visit = Visit(browser, f"{server.access.url}#token={TOKEN}")
        visit.wait_for("#model:not(:empty)")
        assert visit.page.url == server.access.url  # it is not left in the address
        visit.drop(file)
        visit.wait_for_result()
        assert visit.troubles == []
        visit.page.close()
        visit = Visit(browser, server.access.url)
        visit.wait_for("#token-dialog[open]")
        visit.page.locator("#token-dialog input").fill("not-the-token")
        visit.page.keyboard.press("Enter")
        visit.wait_for("#message p:text('the token is wrong')")
        visit.page.locator("#token-dialog input").fill(TOKEN)
        visit.page.keyboard.press("Enter")
        visit.wait_for("#model:not(:empty)")
        assert not visit.page.locator("#message").is_visible()
        visit.page.close()


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_it_fits_a_phone(browser, server, file, color_scheme):
    visit = Visit(
        browser,
        server.access.url,
        viewport={"width": 360, "height": 740},
        color_scheme=color_scheme,
        is_mobile=True,
        has_touch=True,
        device_scale_factor=2,
    )
    visit.page.locator("#file").set_input_files(file)
    visit.wait_for_result()
    assert visit.page.locator("html").evaluate("x => x.scrollWidth") <= 360
    assert visit.page.locator("#canvas").bounding_box()["width"] > 300
    background = visit.page.locator("body").evaluate("x => getComputedStyle(x).backgroundColor")
    brightness = sum(map(int, background.strip("rgb()").split(","))) / 3
    assert (brightness > 128) == (color_scheme == "light")
    assert visit.troubles == []
    visit.page.close()


def test_another_site_gets_nothing(browser, server, file):
    # A page of another port of this machine: the worst that can be without a foreign network.
    with serving() as other:
        visit = Visit(browser, other.access.url)
        visit.wait_for("#model:not(:empty)")
        status = visit.page.locator("html").evaluate(
            "(_, url) => fetch(url, {method: 'POST', body: 'x'}).then(x => x.status, x => x.name)",
            f"{server.access.url}predict",
        )
    assert status == "TypeError"
    visit.page.close()
