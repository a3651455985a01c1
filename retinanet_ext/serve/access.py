"""Who may ask: the names the server is known by, the pages that may call it, the token.

A server on this machine can be reached by every web page that its user opens. Three checks keep
them out: ``Host`` must be a name of this server (a foreign name that was made to point at it is
none: DNS rebinding), ``Origin`` must be the server's own page, and what is uploaded must have a
content type that a browser sends across sites only after asking, which is never answered.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
import socket
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus

from ..errors import InputError
from .answers import Refused

__all__ = ["Access", "check_token", "is_loopback", "new_token", "url_host"]

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
SHORTEST_TOKEN = 8
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\s:/@\[\]]+)(?::(\d{1,5}))?")


def is_loopback(address: str) -> bool:
    """Whether an IP address is reached from this machine only."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def url_host(host: str) -> str:
    """A host as a URL has it: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host else host


def new_token() -> str:
    """One that nobody guesses."""
    return secrets.token_urlsafe(18)


def check_token(token: str) -> None:
    """Check what ``--token`` gives.

    Raises:
        InputError: too short, or it has characters that a header cannot carry.
    """
    if len(token) < SHORTEST_TOKEN:
        raise InputError(
            f"--token has {len(token)} characters, which can be guessed; give at least "
            f"{SHORTEST_TOKEN}, such as {new_token()}"
        )
    if not re.fullmatch(r"[A-Za-z0-9._~+/=-]+", token):
        raise InputError("--token may have letters, digits and any of -._~+/= only; choose another")


@dataclass(frozen=True)
class Access:
    """The checks that come before anything is done.

    Attributes:
        host: the server listens on, as the user named it.
        port: it listens on.
        loopback: whether only this machine reaches it.
        token: that must be sent along; "" for none.
    """

    host: str
    port: int
    loopback: bool
    token: str = ""

    def check(self, headers: Message, needs_token: bool) -> None:
        """Let a request pass, or not.

        Args:
            headers: of the request.
            needs_token: whether it asks for something of the model.

        Raises:
            Refused: 403 for a foreign ``Host`` or ``Origin``, 401 without the token.
        """
        hosts = headers.get_all("Host", [])
        host = hosts[0].strip().lower() if len(hosts) == 1 else ""
        if not self._is_own(host):
            raise Refused(
                HTTPStatus.FORBIDDEN,
                f"this server is not called {host!a}; open {self.url} (through a tunnel, use "
                "the same port at both of its ends)",
            )
        self._check_origin(headers, host)
        if needs_token and self.token:
            self._check_token(headers)

    @property
    def url(self) -> str:
        """Of the page, as a person on this machine opens it."""
        host = self.host
        if host in ("0.0.0.0", "::", ""):  # all addresses of the machine
            host = "127.0.0.1" if host != "::" else "::1"
        return f"http://{url_host(host)}:{self.port}/"

    def _is_own(self, host: str) -> bool:
        match = _HOST.fullmatch(host)
        if not match or int(match[2] or 80) != self.port:
            return False
        name = match[1]
        if name in LOOPBACK_NAMES or name == url_host(self.host).lower():
            return True
        if self.loopback:
            return False
        # An address cannot be made to point elsewhere, and which ones lead here is not known: a
        # router may translate them. Of names, those of this machine.
        return _is_address(name) or name in _machine_names()

    def _check_origin(self, headers: Message, host: str) -> None:
        origins = headers.get_all("Origin", [])
        own = (f"http://{host}", f"https://{host}")
        foreign = [x for x in origins if x.strip().lower() not in own]
        # Newer browsers also tell where a request without Origin comes from.
        site = headers.get("Sec-Fetch-Site", "none")
        mode = headers.get("Sec-Fetch-Mode", "")
        followed_link = mode == "navigate" and headers.get("Sec-Fetch-Dest") == "document"
        if foreign or (site not in ("none", "same-origin") and not followed_link):
            raise Refused(
                HTTPStatus.FORBIDDEN,
                f"the request comes from {ascii(foreign[0]) if foreign else 'another site'}, and "
                "only the server's own page may call it",
            )

    def _check_token(self, headers: Message) -> None:
        scheme, _, given = headers.get("Authorization", "").strip().partition(" ")
        given = given.strip() if scheme.lower() == "bearer" else ""
        if not hmac.compare_digest(given.encode("utf-8", "replace"), self.token.encode()):
            what = "is wrong" if given else "is missing"
            raise Refused(
                HTTPStatus.UNAUTHORIZED,
                f"the token {what}; the server printed it when it started, and it is sent as "
                "'Authorization: Bearer TOKEN'",
                {"WWW-Authenticate": "Bearer"},
            )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _machine_names() -> set[str]:
    name = socket.gethostname().lower()
    return {name, f"{name}.local"}
