"""What a program checks and sets before it works: its console, proxies, temporary folder, address and output folder."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import tempfile
import uuid
from pathlib import Path
from types import FrameType

from oms_app.addresses import LOOPBACK
from oms_app.errors import StudioError, one_line
from oms_app.paths import user_folder

PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def prepare_process() -> None:
    """For every program, before torch is loaded. What it prints never ends it, SIGTERM ends it as Ctrl+C does, and
    OpenMP's threads sleep between operations: otherwise those of small ones take the cores from the next."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):  # replaced by something else, or closed
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    with contextlib.suppress(ValueError):  # in a test's thread
        signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def require_user_folder() -> None:
    """Raises StudioError if $OMS_HOME names a home that does not exist, as ~nobody does on many systems."""
    try:
        folder = user_folder()
        folder.exists()
    except (OSError, RuntimeError, ValueError) as error:
        raise StudioError(f"OMS_HOME is {os.environ.get('OMS_HOME')!r}: {one_line(error)}; name a folder") from error


def require_writable(folder: Path) -> None:
    """Raises StudioError, with the reason, if no file can be created in the folder. Leaves nothing behind."""
    probe = folder / f".{uuid.uuid4().hex}.tmp"
    made: list[Path] = []
    try:
        made = [one for one in (folder, *folder.parents) if not one.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise StudioError(f"the folder {str(folder)[:300]} cannot be written to ({reason}): name another") from error
    finally:
        with contextlib.suppress(OSError, ValueError):
            probe.unlink(missing_ok=True)
            for one in made:
                one.rmdir()


def keep_loopback_off_proxies() -> None:
    """Gradio asks its own page over HTTP when it starts; a proxy would be asked for it. Sets NO_PROXY."""
    if not any(os.environ.get(name) or os.environ.get(name.upper()) for name in PROXIES):
        return
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    names = [name.strip() for name in known.split(",") if name.strip()]
    if "*" not in names:
        names += [name for name in LOOPBACK if name not in names]
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = ",".join(names)


def choose_temporary_folder() -> Path:
    """A folder for uploads and previews that can be written to: one in Gradio's, where other programs store theirs too,
    else one of this process's own. Sets GRADIO_TEMP_DIR. Raises StudioError if there is none."""
    wanted = Path(os.environ.get("GRADIO_TEMP_DIR") or Path(tempfile.gettempdir()) / "gradio") / "oms-studio"
    try:
        require_writable(wanted)
    except StudioError:
        try:
            wanted = Path(tempfile.mkdtemp(prefix="oms-studio-"))
        except OSError as error:
            raise StudioError(f"there is no temporary folder to write to ({error.strerror}): set TMPDIR") from error
    os.environ["GRADIO_TEMP_DIR"] = str(wanted)
    return wanted


def require_address(host: str, port: int | None) -> None:
    """Raises StudioError if nothing can listen there: an unknown host, another machine's, a port that is taken."""
    try:
        found = socket.getaddrinfo(host, port or 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise StudioError(f"--host {host[:100]} is unknown ({one_line(error)}): take 127.0.0.1 or 0.0.0.0") from error
    family, kind, protocol, _, address = found[0]
    try:
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            if port:
                probe.listen(1)  # with SO_REUSEADDR another listener shows only here
    except (OSError, OverflowError) as error:
        if port and getattr(error, "errno", None) in (98, 48, 10048):
            raise StudioError(f"port {port} is taken: choose another with --port, or leave it out") from error
        raise StudioError(
            f"{host} cannot be listened on ({one_line(error)}): choose another --host or --port"
        ) from error
