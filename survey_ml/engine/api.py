"""The Prefect API over plain HTTP: for what needs a request or two and not a second of imports."""

from __future__ import annotations

import base64
import json
import os
import time
import urllib.error
import urllib.request
from typing import Any

from survey_ml.engine.cluster import EngineError

SECONDS = 30.0
"""Longest wait for an answer, where the caller says nothing else."""

BUSY = frozenset({429, 502, 503})
"""Answers that say come again: Prefect's is 503 when its database is locked, and nothing was done."""

_PAGES_SECONDS = 5.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 4.0


class NotFoundError(EngineError):
    """The API answers, and has no such thing."""


class PrefectAPI:
    """Requests to one Prefect API, with the credentials that Prefect's own client would use.

    A server that says it is busy is asked again, with growing pauses.

    Parameters
    ----------
    url : str
        Its address, ending in ``/api``.
    seconds : float
        Longest wait for an answer, and longest time to go on asking a server that is busy.
    """

    def __init__(self, url: str, *, seconds: float = SECONDS) -> None:
        self.url, self._seconds = url.rstrip("/"), seconds
        self._pages: str | None = None

    @classmethod
    def from_environment(cls, *, seconds: float = SECONDS) -> PrefectAPI:
        """Return the API that ``PREFECT_API_URL`` names.

        Raises
        ------
        EngineError
            When it names none, or nothing answers there.
        """
        url = os.environ.get("PREFECT_API_URL", "").strip()
        if not url:
            raise EngineError(
                "PREFECT_API_URL is not set, so there is no Prefect server to talk to",
                "start one with `prefect server start`, then export PREFECT_API_URL=http://127.0.0.1:4200/api",
            )
        api = cls(url, seconds=seconds)
        api.get("/health")
        return api

    def get(self, path: str) -> Any:
        """Read something."""
        return self._ask("GET", path, None)

    def post(self, path: str, body: Any) -> Any:
        """Create or find something; the body carries a key where twice would not be the same as once."""
        return self._ask("POST", path, body)

    def patch(self, path: str, body: Any) -> Any:
        """Change something."""
        return self._ask("PATCH", path, body)

    def page(self, path: str) -> str:
        """Return the address of a page of the user interface."""
        if self._pages is None:
            self._pages = os.environ.get("PREFECT_UI_URL", "").rstrip("/") or self._find_pages()
        return f"{self._pages}/{path}"

    def _find_pages(self) -> str:
        """Return where the pages are that the server shows by default.

        It has two sets of them, and at the address of the older one a reader who is not logged in is
        told that there is no such page.
        """
        base = self.url.removesuffix("/api")
        try:
            with urllib.request.urlopen(f"{base}/ui-settings", timeout=_PAGES_SECONDS) as answer:  # noqa: S310
                settings = json.loads(answer.read())
            return base + str(settings[f"{settings['default_ui']}_base_url"]).rstrip("/")
        except (OSError, ValueError, KeyError, TypeError):
            return base

    def _ask(self, method: str, path: str, body: Any) -> Any:
        if not self.url.startswith(("http://", "https://")):
            raise EngineError(
                f"PREFECT_API_URL={self.url} is no web address", "it looks like http://HOST:4200/api"
            )
        headers = {"Content-Type": "application/json", **_credentials()}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)  # noqa: S310
        try:
            text = self._insist(request)
        except urllib.error.HTTPError as error:
            raise self._explain(error, path) from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise EngineError(
                f"the Prefect API at {self.url} does not answer: {reason}",
                "start the server, or set PREFECT_API_URL to one that runs",
            ) from None
        try:
            return json.loads(text) if text else None
        except ValueError:
            raise EngineError(
                f"what answers at {self.url} is not a Prefect API", "PREFECT_API_URL must end in /api"
            ) from None

    def _insist(self, request: urllib.request.Request) -> bytes:
        """Return the answer, asking again while the server is busy and there is time."""
        end, pause = time.monotonic() + self._seconds, _FIRST_PAUSE
        while True:
            try:
                with urllib.request.urlopen(request, timeout=self._seconds) as answer:  # noqa: S310
                    return bytes(answer.read())
            except urllib.error.HTTPError as error:
                if error.code not in BUSY or time.monotonic() + pause > end:
                    raise
                error.close()
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _explain(self, error: urllib.error.HTTPError, path: str) -> EngineError:
        with error:
            said = error.read(2000).decode(errors="replace")
        if error.code == 401:
            return EngineError(
                f"the Prefect API at {self.url} wants credentials, or others",
                "export PREFECT_API_AUTH_STRING=USER:PASSWORD, as the server was started with",
            )
        if error.code == 404:
            return NotFoundError(
                f"the Prefect API at {self.url} has no {path}", "PREFECT_API_URL must end in /api"
            )
        return EngineError(
            f"the Prefect API answers {error.code} to {path}: {said}", "see the log of the server"
        )


def _credentials() -> dict[str, str]:
    """Return the header that lets us in, if one is needed."""
    if pair := os.environ.get("PREFECT_API_AUTH_STRING", ""):
        return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
    if key := os.environ.get("PREFECT_API_KEY", ""):
        return {"Authorization": f"Bearer {key}"}
    return {}
