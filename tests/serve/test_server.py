"""The server over real sockets: what it answers, whom it refuses, what it bears."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from retinanet_ext.serve import DetectionServer, Limits
from retinanet_ext.visualization.draw import class_color
from tests.helpers.served import QUICK, StubModel, picture, post, raw, request, serving

TOKEN = "a-token-of-16-ch"


@pytest.fixture(scope="module")
def server() -> Iterator[DetectionServer]:
    with serving() as server:
        yield server


def head(server: DetectionServer, *lines: str, first: str = "POST /predict HTTP/1.1") -> bytes:
    """The head of a request, with the right Host."""
    host = f"Host: 127.0.0.1:{server.access.port}"
    return "\r\n".join([first, host, *lines, "", ""]).encode()


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


# Limits


def test_a_file_above_the_limit_is_refused_with_a_sentence(server):
    reply = post(server, bytes(30_000_000))
    assert reply.status == 413
    assert "30.0 MB" in reply.error and "20 MB (--max-mb)" in reply.error


def test_a_file_above_the_limit_is_not_asked_for(server):
    lines = "Content-Length: 30000000", "Content-Type: image/png", "Expect: 100-continue"
    answered = raw(server, head(server, *lines))
    assert answered.startswith(b"HTTP/1.1 413 ") and b"100 Continue" not in answered


def test_a_file_is_asked_for_where_the_client_waits_for_that(server):
    lines = f"Content-Length: {len(picture())}", "Content-Type: image/png", "Expect: 100-continue"
    answered = raw(server, head(server, *lines) + picture())
    assert answered.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")


def test_fifty_at_once_are_all_answered_one_by_one():
    model = StubModel(seconds=0.01)
    barrier = threading.Barrier(50)

    def one(_: int) -> int:
        barrier.wait()
        return post(server, picture()).status

    with serving(model) as server, ThreadPoolExecutor(50) as pool:
        statuses = Counter(pool.map(one, range(50)))
        assert post(server, picture()).status == 200  # none holds its place for ever
    assert set(statuses) <= {200, 429} and statuses.total() == 50
    assert statuses[200] >= 9  # one in work and eight that wait
    assert (model.most_at_once, model.num_calls) == (1, statuses[200] + 1)


def test_the_tenth_is_told_to_come_back():
    release = threading.Event()
    with serving(StubModel(waits_for=release)) as server, ThreadPoolExecutor(9) as pool:
        nine = [pool.submit(post, server, picture()) for _ in range(9)]
        deadline = time.monotonic() + 20
        while server.turns._taken < 9 and time.monotonic() < deadline:
            time.sleep(0.01)
        tenth = post(server, picture())
        assert request(server, "GET", "/classes").status == 200  # others are not held up
        release.set()
        assert [x.result().status for x in nine] == [200] * 9
    assert tenth.status == 429 and "8 pictures wait already" in tenth.error
    assert tenth.headers["Retry-After"] == "1"


def test_a_slow_client_is_given_up_and_holds_up_nobody():
    limits = Limits(head_seconds=0.3, body_seconds=0.3, slowest_bytes_per_second=1e6)
    with serving(limits=limits) as server:
        address = "127.0.0.1", server.access.port
        with socket.create_connection(address) as body, socket.create_connection(address) as start:
            body.sendall(head(server, "Content-Length: 1000", "Content-Type: image/png"))
            assert post(server, picture()).status == 200
            for connection in (body, start):  # a byte now and then resets no clock
                connection.settimeout(20)
            end = time.monotonic() + 20
            answers = [b"", b""]
            while time.monotonic() < end:
                try:
                    body.sendall(b"x")
                    start.sendall(b"G")
                except OSError:
                    break
                time.sleep(0.05)
            answers[0] = b"".join(iter(lambda: _received(body), b""))
            assert _received(start) == b""
        assert answers[0].startswith(b"HTTP/1.1 408 ") and b"did not arrive in time" in answers[0]
        assert server.turns.wait_until_idle(5)


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except ConnectionError:
        return b""


def test_a_client_that_does_nothing_is_let_go():
    with serving(limits=Limits(head_seconds=0.2)) as server:
        assert raw(server, b"", ends=False) == b""


def test_connections_are_counted():
    with serving(limits=Limits(head_seconds=5, most_connections=2)) as server:
        address = "127.0.0.1", server.access.port
        with socket.create_connection(address), socket.create_connection(address):
            assert raw(server, b"", ends=False).startswith(b"HTTP/1.1 503 ")
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:  # until it has seen that they are gone
            if request(server, "GET", "/health").status == 200:
                return
    pytest.fail("connections are not given back")


def test_a_picture_that_breaks_off_is_named(server):
    lines = f"Content-Length: {len(picture()) + 9}", "Content-Type: image/png"
    answered = raw(server, head(server, *lines) + picture())
    assert answered.startswith(b"HTTP/1.1 400 ")
    assert f"{len(picture())} of {len(picture()) + 9} bytes" in answered.decode()
    assert post(server, picture()).status == 200


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["Content-Type: image/png"], 411),
        (["Content-Type: image/png", "Transfer-Encoding: chunked"], 411),
        (["Content-Type: image/png", "Content-Length: -1"], 400),
        (["Content-Type: image/png", "Content-Length: 1e3"], 400),
        (["Content-Type: image/png", "Content-Length: ²"], 400),
        (["Content-Type: image/png", "Content-Length: 5", "Content-Length: 6"], 400),
        (["Content-Type: image/png", "Content-Length: " + "9" * 40], 413),
        (["Content-Type: image/png", "Content-Length: 0"], 415),
        (["Content-Length: 5"], 415),
    ],
)
def test_sizes_that_are_none_are_refused(server, lines, status):
    answered = raw(server, head(server, *lines))
    assert answered.startswith(f"HTTP/1.1 {status} ".encode())
    body = answered.partition(b"\r\n\r\n")[2]
    assert json.loads(body)["error"]
    assert answered.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 505),
        (b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 70000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.0\r\n\r\n", 403),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    ],
    ids=["nonsense", "version", "long path", "many headers", "long header", "old", "tls"],
)
def test_what_is_no_request_is_refused_in_json(server, data, status):
    answered = raw(server, data)
    assert f" {status} ".encode() in answered.partition(b"\r\n")[0]
    assert json.loads(answered.rpartition(b"\r\n\r\n")[2])["error"]
    assert b"<" not in answered


# Who may ask


@pytest.mark.parametrize(
    "host",
    [
        *(
            "evil.example",
            "evil.example:{port}",
            "127.0.0.1",
            "127.0.0.1:1",
            "",
            "192.168.0.1:{port}",
        ),
        *("localhost.evil:{port}", "127.0.0.1:{port}@evil", "[::2]:{port}", "localhost:{port}, x"),
    ],
)
@pytest.mark.parametrize("path", ["/", "/classes", "/health"])
def test_a_foreign_host_is_refused(server, host, path):
    reply = request(server, "GET", path, headers={"Host": host.format(port=server.access.port)})
    assert reply.status == 403
    assert f"http://127.0.0.1:{server.access.port}/" in reply.error


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LocalHost", "[::1]"])
def test_names_of_this_machine_are_its_own(server, host):
    headers = {"Host": f"{host}:{server.access.port}"}
    assert request(server, "GET", "/", headers=headers).status == 200


def test_two_hosts_are_none(server):
    line = f"Host: 127.0.0.1:{server.access.port}"
    assert raw(server, head(server, line, first="GET / HTTP/1.1")).startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://localhost:{port}"},  # a name of ours, but of another page
        {"Origin": "http://127.0.0.1:{port}.evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
    ],
)
def test_other_pages_are_refused(server, headers):
    filled = {k: v.format(port=server.access.port) for k, v in headers.items()}
    reply = post(server, picture(), filled)
    assert reply.status == 403 and "only the server's own page" in reply.error
    assert request(server, "GET", "/classes", headers=filled).status == 403


def test_the_page_itself_and_links_to_it_are_let_in(server):
    own = {"Origin": f"http://127.0.0.1:{server.access.port}", "Sec-Fetch-Site": "same-origin"}
    assert post(server, picture(), own).status == 200
    link = {
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Dest": "document",
    }
    assert request(server, "GET", "/", headers=link).status == 200


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", ""],
)
def test_what_forms_of_other_pages_can_send_is_no_picture(server, content_type):
    reply = post(server, picture(), {"Content-Type": content_type})
    assert reply.status == 415 and "image/*" in reply.error


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (f"Bearer {TOKEN}", 200),
        (f"bearer  {TOKEN} ", 200),
        (f"Bearer {TOKEN[:-1]}", 401),
        (f"Bearer {TOKEN}x", 401),
        ("Bearer \xe9", 401),
        (f"Basic {TOKEN}", 401),
        ("Bearer ", 401),
        (None, 401),
    ],
)
def test_the_token_opens_the_model_and_nothing_else_does(authorization, status):
    headers = {} if authorization is None else {"Authorization": authorization}
    with serving(token=TOKEN) as server:
        reply = post(server, picture(), headers)
        assert reply.status == status
        assert request(server, "GET", "/classes", headers=headers).status == status
        if status == 401:
            assert reply.headers["WWW-Authenticate"] == "Bearer" and "token" in reply.error
            assert TOKEN not in reply.body.decode()
        # The page asks for it; that the server lives is no secret.
        assert request(server, "GET", "/").status == request(server, "GET", "/health").status == 200


def test_where_others_reach_the_server_there_is_a_token():
    with serving(host="0.0.0.0") as server:
        assert len(server.access.token) >= 20
        assert post(server, picture()).status == 401
        headers = {"Authorization": f"Bearer {server.access.token}"}
        assert post(server, picture(), headers).status == 200
        for host, status in (("10.1.2.3", 200), (socket.gethostname(), 200), ("evil.example", 403)):
            named = headers | {"Host": f"{host}:{server.access.port}"}
            assert request(server, "GET", "/classes", headers=named).status == status


# Pictures


def test_a_text_file_is_refused_with_a_sentence(server):
    reply = post(server, b"just some text\n", {"Content-Type": "application/octet-stream"})
    assert reply.status == 415
    assert reply.error == "this is not a JPEG, PNG, WebP, BMP, TIFF or GIF; choose a picture"


def test_a_picture_of_too_many_pixels_is_refused_unread():
    with serving(limits=Limits(max_pixels=10_000)) as server:
        assert post(server, picture(100, 100)).status == 200
        reply = post(server, picture(101, 100))
    assert reply.status == 413 and "101 x 100" in reply.error and "10,000 pixels" in reply.error


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


def test_quick_limits_are_those_of_the_package_but_for_the_times():
    assert (QUICK.max_bytes, QUICK.most_waiting) == (Limits().max_bytes, Limits().most_waiting)
