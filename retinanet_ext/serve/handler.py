"""One connection: reads requests within their limits, and answers each exactly once."""

from __future__ import annotations

import io
import sys
import time
import traceback
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

from ..errors import UserError, one_line
from .answers import Answer, Refused, json_answer
from .page import page, page_policy
from .sockets import DeadlineReader, close_gently
from .uploads import check_content_type

if TYPE_CHECKING:
    from .server import DetectionServer

__all__ = ["Handler"]

PATHS = {"/": "GET", "/classes": "GET", "/health": "GET", "/predict": "POST"}
NEEDS_TOKEN = ("/classes", "/predict")

SAFE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}
NO_CONTENT_POLICY = "default-src 'none'; frame-ancestors 'none'; sandbox"


class Handler(BaseHTTPRequestHandler):
    """Answers the page, what the model is, and what it finds in a posted picture."""

    protocol_version = "HTTP/1.1"
    server: DetectionServer

    def setup(self) -> None:
        """Let no client hold a connection for longer than the limits say."""
        super().setup()
        self._reader = DeadlineReader(self.connection)
        self.rfile.close()
        self.rfile = io.BufferedReader(self._reader)
        self._unread = 0  # bytes of a body that the client may still send

    def handle_one_request(self) -> None:
        """As of the base class, with a deadline for the head of the request."""
        self._unread, self._expects_continue = 0, False
        self._started = 0.0
        self._reader.allow(self.server.limits.head_seconds)
        try:
            super().handle_one_request()
        except ConnectionError:  # the client is gone
            self.close_connection = True

    def handle_expect_100(self) -> bool:
        """Ask for a body only once it is known that it is wanted."""
        self._expects_continue = True
        return True

    def do_GET(self) -> None:
        self._respond()

    # Paths say which methods they have: see _answer.
    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = do_GET

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Faults that the base class finds, as sentences in json like all others."""
        status = HTTPStatus(code)
        self.close_connection = True
        self.request_version = self.protocol_version  # if none was understood, too
        self._unread = self.server.limits.max_bytes
        self._send(Refused(status, f"bad request: {message or status.phrase}").answer())

    def version_string(self) -> str:
        """The header ``Server``, without the version of Python."""
        return "retinanet_ext"

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing: :meth:`_send` writes its own line."""

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: what the base class says of timeouts helps nobody."""

    def _respond(self) -> None:
        self._started = time.perf_counter()
        try:
            self._unread = self._announced_length()
            answer = self._answer()
        except Refused as refused:
            answer = refused.answer()
        except (ConnectionError, TimeoutError):
            raise
        except Exception:  # a bug: to be seen here, and nothing of it there
            traceback.print_exc()
            answer = Refused(
                HTTPStatus.INTERNAL_SERVER_ERROR,
                "the server failed at this picture; its console shows why",
            ).answer()
        self._send(answer)

    def _answer(self) -> Answer:
        path, _, query = self.path.partition("?")
        self.server.access.check(self.headers, path in NEEDS_TOKEN)
        method = PATHS.get(path)
        if method is None:
            raise Refused(
                HTTPStatus.NOT_FOUND,
                f"there is no {path[:80]!a} here; there are {', '.join(PATHS)}",
            )
        allowed = ("GET", "HEAD") if method == "GET" else (method,)
        if self.command not in allowed:
            raise Refused(
                HTTPStatus.METHOD_NOT_ALLOWED,
                f"{path} takes {' and '.join(allowed)}, not {self.command}",
                {"Allow": ", ".join(allowed)},
            )
        if path == "/predict":
            if query:
                raise Refused(
                    HTTPStatus.BAD_REQUEST,
                    f"/predict takes no parameters such as {query[:80]!a}; choose among the "
                    "detections of the answer by their score and class",
                )
            return self._predict()
        if self._unread:
            raise Refused(HTTPStatus.BAD_REQUEST, f"{self.command} {path} takes no body")
        if path == "/":
            headers = {"Content-Security-Policy": page_policy()}
            return Answer(HTTPStatus.OK, page(), "text/html; charset=utf-8", headers)
        return json_answer(self.server.about if path == "/classes" else {"status": "ok"})

    def _predict(self) -> Answer:
        limits = self.server.limits
        check_content_type(self.headers.get("Content-Type", ""))
        if not self.headers.get("Content-Length"):
            raise Refused(
                HTTPStatus.LENGTH_REQUIRED, "send the picture with its size in Content-Length"
            )
        if self._unread > limits.max_bytes:
            raise Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the file has {self._unread / 1e6:.1f} MB, and this server takes "
                f"{limits.max_bytes / 1e6:g} MB (--max-mb); make the picture smaller",
            )
        with self.server.turns.place():
            body = self._read_body()
            try:
                return json_answer(self.server.predict(body))
            except UserError as error:  # of the picture, as the reader of all commands finds it
                raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, one_line(error)) from error

    def _announced_length(self) -> int:
        """Bytes of the body, by the head of the request."""
        if self.headers.get("Transfer-Encoding"):
            self._unread = self.server.limits.max_bytes
            raise Refused(
                HTTPStatus.LENGTH_REQUIRED,
                "bodies in chunks are not taken; send the size in Content-Length",
            )
        lengths = self.headers.get_all("Content-Length", ["0"])
        if len(lengths) > 1 or not (lengths[0].isascii() and lengths[0].isdigit()):
            self._unread = self.server.limits.max_bytes
            raise Refused(HTTPStatus.BAD_REQUEST, "Content-Length is not one whole number")
        return int(lengths[0][:18])

    def _read_body(self) -> bytes:
        length, limits = self._unread, self.server.limits
        if self._expects_continue:
            self.send_response_only(HTTPStatus.CONTINUE)
            self.end_headers()
        self._reader.allow(limits.body_seconds + length / limits.slowest_bytes_per_second)
        try:
            body = self.rfile.read(length)
        except TimeoutError:
            raise Refused(
                HTTPStatus.REQUEST_TIMEOUT, "the picture did not arrive in time; send it again"
            ) from None
        if len(body) < length:
            self._unread = 0
            raise Refused(
                HTTPStatus.BAD_REQUEST,
                f"the picture broke off: {len(body)} of {length} bytes arrived; send it again",
            )
        self._unread = 0
        return body

    def _send(self, answer: Answer) -> None:
        if self._unread:
            self.close_connection = True
        self.send_response(answer.status)
        headers = SAFE_HEADERS | {"Content-Security-Policy": NO_CONTENT_POLICY}
        headers |= answer.headers
        headers |= {"Content-Type": answer.content_type, "Content-Length": str(len(answer.body))}
        if self.close_connection:
            headers["Connection"] = "close"
        for name, value in headers.items():
            self.send_header(name, value)
        self.connection.settimeout(self.server.limits.send_seconds)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)
        self._log(answer)
        if self._unread:
            limits = self.server.limits
            close_gently(self.connection, 4 * limits.max_bytes, limits.drain_seconds)

    def _log(self, answer: Answer) -> None:
        if not self._started:  # it was not understood
            what, took = "bad request", ""
        else:
            path = self.path.partition("?")[0]
            if path != "/predict" and answer.status < HTTPStatus.BAD_REQUEST:
                return
            what = ascii(f"{self.command} {path[:80]}")[1:-1]
            took = f" {(time.perf_counter() - self._started) * 1e3:.0f} ms"
        line = f"{time.strftime('%H:%M:%S')} {self.client_address[0]} {what}"
        print(f"{line} {answer.status.value}{took}", file=sys.stderr, flush=True)
