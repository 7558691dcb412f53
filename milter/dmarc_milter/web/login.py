"""Who may look: anybody on this machine by a loopback name, or whoever has the token."""

from __future__ import annotations

import ipaddress
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from flask import Flask, Response, abort, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

COOKIE = "dmarc-milter-session"
MAX_SESSIONS = 200
IDLE = 12 * 3600.0
"""Seconds without a page after which a session ends."""
LOCAL = re.compile(r"/(?:[!-.0-\[\]-~][!-\[\]-~]{0,2000})?")
"""A page of ours: no other host's (`//host`, `/\\host`), and nothing that a browser drops."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; form-action"
        " 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def is_loopback(host: str) -> bool:
    """Whether a Host header names this machine only: a page elsewhere cannot make a browser send
    one that does (DNS rebinding)."""
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


class LoginGuard:
    """Stands before every page, and puts the headers on every answer. Without a token only this
    machine may look."""

    def __init__(self, app: Flask, token: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._token, self._clock, self._lock = token, clock, threading.Lock()
        self._sessions: OrderedDict[str, float] = OrderedDict()
        """Name -> when it was used last, the longest ago first."""
        app.before_request(self._let_in)
        app.after_request(_harden)
        app.add_url_rule("/login", "login", self._login, methods=["GET", "POST"])

    def _is_token(self, given: str) -> bool:
        return bool(self._token) and secrets.compare_digest(
            given.encode("utf-8", "surrogateescape"), self._token.encode()
        )

    def _let_in(self) -> ResponseReturnValue | None:
        """None lets the request go on."""
        if not request.query_string.isascii():  # RFC 3986 2: no browser sends it
            abort(400)
        if request.method not in ("GET", "HEAD") and request.endpoint != "login":
            abort(405)
        if not self._token:
            return None if is_loopback(request.host) else abort(403)
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if (
            request.endpoint in ("login", "static")
            or self._is_token(bearer)
            or self._is_open(request.cookies.get(COOKIE, ""))
        ):
            return None
        asked = request.full_path.removesuffix("?")
        return redirect(url_for("login", next=asked if asked != "/" else None))

    def _is_open(self, name: str) -> bool:
        with self._lock:
            used = self._sessions.pop(name, None)
            if used is None or self._clock() - used > IDLE:
                return False
            self._sessions[name] = self._clock()
            return True

    def _login(self) -> ResponseReturnValue:
        if request.method == "GET":
            return render_template("login.html", wrong=False)
        if not self._is_token(request.form.get("token", "")):
            return render_template("login.html", wrong=True), 403
        answer = redirect(_page_asked_for() or url_for("overview"))
        answer.set_cookie(
            COOKIE, self._begin(), httponly=True, samesite="Strict", secure=request.is_secure
        )
        return answer

    def _begin(self) -> str:
        """A new session; the oldest goes when there are too many."""
        name = secrets.token_urlsafe(32)
        with self._lock:
            self._sessions[name] = self._clock()
            while len(self._sessions) > MAX_SESSIONS:
                self._sessions.popitem(last=False)
        return name


def _page_asked_for() -> str:
    """Where whoever had to log in was going; "" where that is no page of ours."""
    asked = request.args.get("next", "")
    return asked if LOCAL.fullmatch(asked) else ""


def _harden(answer: Response) -> Response:
    answer.headers.update(HEADERS)
    if request.endpoint == "static":
        answer.headers["Cache-Control"] = "private, max-age=3600"
    return answer
