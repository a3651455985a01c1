"""The page: one html file, and the policy that lets a browser run only what is in it."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from pathlib import Path

__all__ = ["page", "page_policy"]

FILE = Path(__file__).with_name("page.html")


@functools.cache
def page() -> bytes:
    """The html file. It holds nothing of the model, which it asks the server for."""
    return FILE.read_bytes()


@functools.cache
def page_policy() -> str:
    """``Content-Security-Policy`` of the page.

    Nothing is loaded from anywhere; the one script and the one style of the file are named by
    their hashes, so that text which gets into the page, such as the name of a class, never runs.
    """
    text = page().decode()
    script, style = (_hash_of(text, tag) for tag in ("script", "style"))
    rules = {
        "default-src": "'none'",
        "script-src": script,
        "style-src": style,
        "img-src": "blob: data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _hash_of(text: str, tag: str) -> str:
    """The source expression of the element ``<tag>...</tag>``, of which there is one."""
    (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
