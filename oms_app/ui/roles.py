"""Who may do what on a page with passwords: the owner manages models, looks and saved pictures; guests generate."""

from __future__ import annotations

import hmac
from collections.abc import Callable

from gradio.context import LocalContext

from oms_app.errors import StudioError

OWNER, GUEST = "oms", "guest"  # user names
WHO = f"User name: {OWNER} for the owner, {GUEST} for guests."  # above the form to log in


def login(owner: str | None, guest: str | None) -> Callable[[str, str], bool] | None:
    """For Gradio's `auth`: whether a name and a password belong together; None if there is no password at all."""
    passwords = {OWNER: owner, GUEST: guest}

    def permitted(name: str, password: str) -> bool:
        wanted = passwords.get(name)
        return bool(wanted) and hmac.compare_digest(str(wanted).encode(), password.encode("utf-8", "surrogatepass"))

    return permitted if owner or guest else None


def is_guest() -> bool:
    """Whether the event that is being handled comes from a guest."""
    request = LocalContext.request.get(None)
    return getattr(request, "username", None) == GUEST


def require_owner(what: str) -> None:
    """what: a thing of the owner's, such as "models". Raises StudioError for guests."""
    if is_guest():
        raise StudioError(f"{what} can be changed by the owner only: log in as {OWNER!r}")
