"""Clients that send too much, too slowly, too many at once or nothing that makes sense."""

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
from tests.helpers.served import QUICK, StubModel, head, picture, post, raw, request, serving


@pytest.fixture(scope="module")
def server() -> Iterator[DetectionServer]:
    with serving() as server:
        yield server


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


def test_parameters_are_not_ignored(server):
    reply = request(server, "POST", "/predict?score=0.5", picture(), {"Content-Type": "image/png"})
    assert reply.status == 400 and "no parameters such as 'score=0.5'" in reply.error
    assert request(server, "GET", "/health?now").status == 200


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


def test_a_picture_of_too_many_pixels_is_refused_unread():
    with serving(limits=Limits(max_pixels=10_000)) as server:
        assert post(server, picture(100, 100)).status == 200
        reply = post(server, picture(101, 100))
    assert reply.status == 413 and "101 x 100" in reply.error and "10,000 pixels" in reply.error


def test_quick_limits_are_those_of_the_package_but_for_the_times():
    assert (QUICK.max_bytes, QUICK.most_waiting) == (Limits().max_bytes, Limits().most_waiting)
