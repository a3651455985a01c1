"""The page's one file: whole in itself, and nothing of it runs but what its policy names."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

from retinanet_ext.serve.page import page, page_policy
from retinanet_ext.serve.uploads import FORMATS
from tests.helpers.served import request, serving

TEXT = page().decode()
OUTSIDE = ("src", "srcset", "action", "formaction", "data", "poster", "ping", "manifest")


class Reader(HTMLParser):
    """Collects the attributes of all elements."""

    def __init__(self) -> None:
        super().__init__()
        self.attributes: list[tuple[str, str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]


def attributes() -> list[tuple[str, str, str]]:
    reader = Reader()
    reader.feed(TEXT)
    assert len(reader.attributes) > 50
    return reader.attributes


def test_nothing_comes_from_outside():
    assert not [x for x in attributes() if x[1] in OUTSIDE]
    assert all(value.startswith("data:") for _, name, value in attributes() if name == "href")
    assert not re.search(r"url\(|@import|import\(|importScripts", TEXT)
    addresses = set(re.findall(r"https?://[^\s'\"`]+", TEXT))
    assert addresses == {"http://www.w3.org/2000/svg"}  # the name of a format, in the icon


def test_the_policy_names_the_script_and_the_style_and_forbids_the_rest():
    rules = dict(rule.split(" ", 1) for rule in page_policy().split("; "))
    assert rules["default-src"] == "'none'" and rules["connect-src"] == "'self'"
    for tag in ("script", "style"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", TEXT, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"
    assert "unsafe" not in page_policy() and "*" not in page_policy()
    # What the policy would block without a word.
    assert not [x for x in attributes() if x[1] == "style" or x[1].startswith("on")]


def test_text_is_never_made_markup():
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", TEXT)


def test_the_file_chooser_offers_what_the_server_reads():
    (offered,) = [value for _, name, value in attributes() if name == "accept" and "," in value]
    assert offered.split(",") == [f"image/{name.lower()}" for name in FORMATS]


def test_the_page_is_sent_with_its_policy():
    with serving() as server:
        reply = request(server, "GET", "/")
    assert reply.body == page()
    assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
    assert reply.headers["Content-Security-Policy"] == page_policy()
