"""The rules by which Mozilla's HTTP Observatory grades a page, as far as one answer shows them.

On plain HTTP, as on localhost, those on HTTPS do not apply: HSTS, redirection, and the flag Secure of cookies. For
styles it permits 'unsafe-inline', and for pictures data:.
"""

from __future__ import annotations

import re
from urllib.parse import urljoin, urlsplit

import httpx2 as httpx

UNSAFE = ("'unsafe-inline'", "data:", "http:", "https:", "*", "ftp:")  # in script-src or object-src
# The page fails one rule, which costs 10 of 100 points: Gradio compiles the scripts of its events and components.
KNOWN = ["content-security-policy: 'unsafe-eval'"]
HALF_YEAR = 15_768_000  # seconds


def failing_rules(answer: httpx.Response, *, https: bool) -> list[str]:
    """The names of the rules that an answer to "/" fails. https: whether the page is reached by HTTPS."""
    headers, failed = answer.headers, []
    policy = dict(
        (part.split()[0].lower(), part.split()[1:])
        for part in headers.get("content-security-policy", "").split(";")
        if part.strip()
    )
    scripts = policy.get("script-src", policy.get("default-src", ["*"]))
    objects = policy.get("object-src", policy.get("default-src", ["*"]))
    if any(one in UNSAFE for one in (*scripts, *objects)):
        failed.append("content-security-policy")
    if "'unsafe-eval'" in scripts:
        failed.append("content-security-policy: 'unsafe-eval'")
    framing = headers.get("x-frame-options", "").upper() in ("DENY", "SAMEORIGIN")
    if not framing and "*" in policy.get("frame-ancestors", ["*"]):
        failed.append("x-frame-options")
    if headers.get("x-content-type-options") != "nosniff":
        failed.append("x-content-type-options")
    if headers.get("referrer-policy") not in ("no-referrer", "same-origin", "strict-origin-when-cross-origin"):
        failed.append("referrer-policy")
    if headers.get("access-control-allow-origin") is not None:
        failed.append("cross-origin-resource-sharing")
    if headers.get("cross-origin-resource-policy") not in ("same-origin", "same-site"):
        failed.append("cross-origin-resource-policy")
    for cookie in headers.get_list("set-cookie"):
        flags = {part.split("=")[0].strip().lower() for part in cookie.split(";")[1:]}
        if not {"httponly", "samesite", *(["secure"] if https else [])} <= flags:
            failed.append("cookies")
    for source in re.findall(r"<script[^>]*\bsrc=[\"']?([^\"' >]+)", answer.text):
        if urlsplit(urljoin(str(answer.url), source)).netloc != urlsplit(str(answer.url)).netloc:
            failed.append("subresource-integrity")
    age = re.search(r"max-age=(\d+)", headers.get("strict-transport-security", ""))
    if https and (age is None or int(age[1]) < HALF_YEAR):
        failed.append("strict-transport-security")
    return failed
