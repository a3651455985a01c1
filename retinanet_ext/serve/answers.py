"""What the server sends back, as values: an answer, or the reason why there is none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

__all__ = ["Answer", "Refused", "json_answer"]

JSON = "application/json; charset=utf-8"


@dataclass(frozen=True)
class Answer:
    """One response.

    Attributes:
        status: of HTTP.
        body: all of it.
        content_type: of the body.
        headers: besides those that every response has.
    """

    status: HTTPStatus
    body: bytes
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


class Refused(Exception):
    """A request that is not carried out.

    Args:
        status: of HTTP, from 400.
        text: one sentence for a person: what is wrong, and the fix.
        headers: that belong to the status.
    """

    def __init__(self, status: HTTPStatus, text: str, headers: Mapping[str, str] | None = None):
        super().__init__(text)
        self.status = status
        self.headers = dict(headers or {})

    def answer(self) -> Answer:
        """The response that says so: ``{"error": text}``."""
        return json_answer({"error": str(self)}, self.status, self.headers)


def json_answer(
    value: Any, status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] | None = None
) -> Answer:
    """``value`` as json, in ASCII."""
    body = json.dumps(value, allow_nan=False).encode("ascii")
    return Answer(status, body, headers=dict(headers or {}))
