"""Who may ask: names of the server, its own page, the token."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from retinanet_ext.serve import DetectionServer
from tests.helpers.served import head, picture, post, raw, request, serving

TOKEN = "a-token-of-16-ch"


@pytest.fixture(scope="module")
def server() -> Iterator[DetectionServer]:
    with serving() as server:
        yield server


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
