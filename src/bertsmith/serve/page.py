"""The page at `/`: one file that loads nothing from elsewhere, under a policy by which nothing else can run on it."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files

from starlette.responses import Response


@cache
def _read() -> tuple[bytes, str]:
    """The page, and the content security policy that allows its script and its style by their hashes, and no others."""
    text = (files("bertsmith.serve") / "page.html").read_text(encoding="utf-8")

    def allowed(tag: str) -> str:
        (inside,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.S)
        return f"'sha256-{base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()}'"

    policy = (
        f"default-src 'none'; script-src {allowed('script')}; style-src {allowed('style')}; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types"
    )
    return text.encode(), policy


def page() -> Response:
    """The page on which models are tried by hand, with its policy."""
    content, policy = _read()
    headers = {"content-security-policy": policy, "referrer-policy": "no-referrer", "x-frame-options": "DENY"}
    return Response(content, media_type="text/html; charset=utf-8", headers=headers)
