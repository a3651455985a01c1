"""The server over real sockets: what it answers, to what."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from retinanet_ext.serve import DetectionServer
from retinanet_ext.visualization.draw import class_color
from tests.helpers.served import StubModel, head, picture, post, raw, request, serving


@pytest.fixture(scope="module")
def server() -> Iterator[DetectionServer]:
    with serving() as server:
        yield server


def test_a_picture_is_answered_with_its_detections(server):
    reply = post(server, picture(60, 40))
    assert reply.status == 200
    assert reply.headers["Content-Type"].startswith("application/json")
    found = reply.json
    assert (found["width"], found["height"]) == (60, 40)
    assert found["detections"][0] == {
        "class": "cat",
        "class_id": 0,
        "score": 0.9,
        "box": [0.0, 8.0, 16.0, 36.0],
    }
    assert [x["class"] for x in found["detections"]] == ["cat", "dog", "bird"]
    assert found["ms"] == {"read": 0.1, "model": 12.3}


def test_detections_below_the_lowest_score_are_not_sent():
    with serving(StubModel(scores=(0.9, 0.06, 0.04))) as server:
        scores = [x["score"] for x in post(server, picture()).json["detections"]]
    assert scores == [0.9, 0.06]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
@pytest.mark.parametrize("content_type", ["image/jpeg", "application/octet-stream", "IMAGE/X; q=1"])
def test_every_format_is_known_by_its_bytes(server, format, content_type):
    reply = post(server, picture(format=format), {"Content-Type": content_type})
    assert reply.status == 200 and reply.json["width"] == 60


def test_classes_have_the_colours_of_drawn_pictures(server):
    about = request(server, "GET", "/classes").json
    assert about["model"] == "stub"
    assert [x["name"] for x in about["classes"]] == ["cat", "dog", "bird"]
    colors = [bytes.fromhex(x["color"][1:]) for x in about["classes"]]
    assert [tuple(x) for x in colors] == [class_color(i) for i in range(3)]
    assert (about["lowest_score"], about["max_bytes"]) == (0.05, 20_000_000)


@pytest.mark.parametrize("path", ["/", "/classes", "/health", "/?a=b"])
def test_head_is_get_without_the_body(server, path):
    got, headed = request(server, "GET", path), request(server, "HEAD", path)
    assert (got.status, headed.status, headed.body) == (200, 200, b"")
    assert headed.headers["Content-Length"] == got.headers["Content-Length"] == str(len(got.body))


def test_one_connection_serves_many_requests(server):
    answered = raw(
        server,
        head(server, first="GET /health HTTP/1.1") * 2
        + head(server, f"Content-Length: {len(picture())}", "Content-Type: image/png")
        + picture()
        + head(server, first="GET /health HTTP/1.1"),
    )
    assert answered.count(b"HTTP/1.1 200 OK") == 4
    assert answered.count(b'{"status": "ok"}') == 3


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/nothing", 404, None),
        ("GET", "//evil/predict", 404, None),
        ("GET", "http://127.0.0.1/", 403, None),
        ("GET", "/../etc/passwd", 404, None),
        ("GET", "/predict", 405, "POST"),
        ("HEAD", "/predict", 405, "POST"),
        ("POST", "/", 405, "GET, HEAD"),
        ("PUT", "/predict", 405, "POST"),
        ("DELETE", "/classes", 405, "GET, HEAD"),
        ("OPTIONS", "/predict", 405, "POST"),
        ("TRACE", "/", 405, "GET, HEAD"),
        ("PATCH", "/health", 405, "GET, HEAD"),
        ("BREW", "/", 501, None),
    ],
)
def test_other_methods_and_paths_are_refused(server, method, path, status, allow):
    reply = request(server, method, path)
    assert reply.status == status
    assert reply.headers.get("Allow") == allow
    if method != "HEAD":
        assert reply.error
    assert reply.headers["Content-Length"] == str(len(reply.body)) or method == "HEAD"
    assert "Access-Control-Allow-Origin" not in reply.headers


@pytest.mark.parametrize("path", ["/", "/classes", "/nothing"])
def test_every_answer_has_the_headers_of_safety(server, path):
    headers = request(server, "GET", path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Cache-Control"] == "no-store"
    assert "Python" not in headers["Server"]


def test_a_text_file_is_refused_with_a_sentence(server):
    reply = post(server, b"just some text\n", {"Content-Type": "application/octet-stream"})
    assert reply.status == 415
    assert reply.error == "this is not a JPEG, PNG, WebP, BMP, TIFF or GIF; choose a picture"


def test_a_bug_is_shown_here_and_not_there(capsys):
    def model(source):
        raise RuntimeError("a secret of the machine")

    model.class_names = ["a"]
    with serving(model) as server:
        reply = post(server, picture())
        assert reply.status == 500 and "secret" not in reply.body.decode()
        assert "a secret of the machine" in capsys.readouterr().err
        assert request(server, "GET", "/health").status == 200


def test_requests_are_logged_without_what_strangers_wrote_into_them(server, capsys):
    raw(server, head(server, first="GET /\x1b[31mred HTTP/1.1"))
    post(server, picture())
    deadline = time.monotonic() + 10
    logged = ""
    while "POST /predict 200" not in logged and time.monotonic() < deadline:
        logged += capsys.readouterr().err
    assert "\x1b" not in logged and "\\x1b[31mred 404" in logged
