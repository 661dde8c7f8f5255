"""The command `oms-studio`: starts the page. `python app.py` and a Hugging Face Space run the same `main`."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from oms_app import __version__
from oms_app.addresses import LOOPBACK
from oms_app.cli import logs
from oms_app.cli.console import print_error
from oms_app.cli.extras import require
from oms_app.cli.startup import (
    choose_temporary_folder,
    keep_loopback_off_proxies,
    prepare_process,
    require_address,
    require_user_folder,
)
from oms_app.errors import StudioError
from oms_app.paths import user_folder

END_SECONDS = 1.0  # that running work has to end and to save its pictures, after Ctrl+C
PASSWORDS = ("OMS_PASSWORD", "OMS_GUEST_PASSWORD")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, as every command prints it."""
        sys.exit(print_error(message, "--help shows the options"))


def refuse(message: str) -> NoReturn:
    sys.exit(print_error(message))


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options. Exits with 2 and a message on stderr if one is wrong or would open the page to strangers."""
    parser = _Parser(description="OMS Studio: raw and One More Step pictures side by side.")
    parser.add_argument("--host", help="address to listen on (default: this computer only)")
    parser.add_argument("--port", type=int, help="port (default: the first free one from 7860)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    parser.add_argument("--precision", default="auto", choices=("auto", "float32", "float16", "bfloat16"))
    parser.add_argument("--memory", default="auto", choices=("auto", "full", "model_offload", "group_offload"))
    parser.add_argument(
        "--password",
        default=os.environ.get("OMS_PASSWORD"),
        help='visitors log in as "oms" with this password; safer as the environment variable OMS_PASSWORD',
    )
    parser.add_argument("--log-file", type=Path, help="also write the log to this file; it is rotated at 5 MB")
    parser.add_argument("--log-prompts", action="store_true", help="log the prompts of requests too")
    parser.add_argument("--share", action="store_true", help="also open a public link; needs a password")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    parser.add_argument("--version", action="version", version=f"OMS Studio {__version__}")
    chosen = parser.parse_args(given)
    space = on_space()
    chosen.host = (chosen.host or ("0.0.0.0" if space else "127.0.0.1")).strip("[]")
    chosen.guest_password = os.environ.get("OMS_GUEST_PASSWORD")
    chosen.public_names = os.environ.get("OMS_PUBLIC_NAME", "").split(",")
    for name, password in zip(PASSWORDS, (chosen.password, chosen.guest_password), strict=True):
        if password is not None and not password.strip():
            refuse(f"{name} is blank: set a password, or unset it")
    if chosen.password is not None and chosen.password == chosen.guest_password:
        refuse("OMS_GUEST_PASSWORD is the same as OMS_PASSWORD: guests would be owners; choose another")
    if chosen.port is not None and not 1 <= chosen.port <= 65535:
        refuse(f"--port is {chosen.port}: take 1 to 65535")
    if not space and not (chosen.password or chosen.guest_password):
        if chosen.host not in LOOPBACK:
            refuse(f"--host {chosen.host} can be reached from other computers: set a password with OMS_PASSWORD")
        if chosen.share:
            refuse("--share makes the page public: set a password with OMS_PASSWORD")
    return chosen


def on_space() -> bool:
    """Whether this is a Hugging Face Space, whose visitors are strangers to each other."""
    return bool(os.environ.get("SPACE_ID", "").strip())


def main(given: Sequence[str] | None = None) -> int:
    """Serve the page until Ctrl+C. Returns the exit code: 2 if it cannot start, with one line on stderr."""
    prepare_process()
    chosen = arguments(given)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
    os.environ["DIFFUSERS_DISABLE_REMOTE_CODE"] = "1"  # read when diffusers is imported
    try:
        require_user_folder()
        logs.start(chosen.log_file, prompts=chosen.log_prompts)
        logs.report_crashes(user_folder() / "crashes")
        require("app", "the page")
        require_address(chosen.host, chosen.port)
        keep_loopback_off_proxies()
        choose_temporary_folder()
        return serve(chosen, space=on_space())
    except StudioError as error:
        return print_error(str(error))
    except KeyboardInterrupt:
        return 130


def serve(chosen: argparse.Namespace, *, space: bool) -> int:
    """Build the page, launch it and wait for Ctrl+C or SIGTERM; returns the exit code. space: visitors are strangers
    to each other. Raises StudioError."""
    from oms_app.engine.service import StudioService
    from oms_app.ui.demo import OWNERS, STRANGERS, create_demo, launch_settings
    from oms_app.ui.gradio_compat import delete_old_files, keep_connections, keep_server_small
    from oms_app.ui.roles import WHO, login
    from oms_app.ui.uploads import MAX_MODEL, MAX_PICTURE

    # On a Space pictures go to a folder that no address serves.
    pictures = Path(tempfile.mkdtemp()) if space else None
    studio = StudioService(device=chosen.device, precision=chosen.precision, memory=chosen.memory, pictures=pictures)
    demo = create_demo(studio, local=not space)
    demo.launch(
        server_name=f"[{chosen.host}]" if ":" in chosen.host else chosen.host,
        server_port=chosen.port,
        share=chosen.share,
        auth=login(chosen.password, chosen.guest_password),
        auth_message=WHO,
        app_kwargs={"middleware": middleware(chosen, space=space)},
        max_file_size=MAX_PICTURE if space else MAX_MODEL,
        inbrowser=chosen.open,
        allowed_paths=[] if space else [str(studio.pictures)],
        prevent_thread_lock=True,
        **launch_settings(),
    )
    keep_server_small(demo)
    keep_connections(demo)
    print(f"OMS Studio is at {demo.local_url}", flush=True)
    if demo.share_url:
        print(f"Public link: {demo.share_url}", flush=True)
    # The engine's thread and the page's alternate hundreds of times per picture. With the default interval of 5 ms a
    # pair in the browser took 3.2 s instead of 2.0 s on two cores.
    sys.setswitchinterval(0.0005)
    studio.visitors.delete_in_background()
    delete_old_files(demo, *(STRANGERS if space else OWNERS))
    studio.start()  # only now, because importing torch would delay the first page
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl+C once more
        print("stopping", file=sys.stderr, flush=True)
        studio.stop(END_SECONDS)
    # Threads of libraries may be in the middle of a loop of the CPU, which Python's own end would wait for or abort.
    sys.stdout.flush()
    os._exit(130)


def middleware(chosen: argparse.Namespace, *, space: bool) -> list[tuple[Any, tuple[()], dict[str, Any]]]:
    """Which requests the page takes, and its language: classes, and their arguments after the application, as Starlette
    wants them, from the outside in."""
    from oms_app.ui.demo import LOGIN_SCRIPTS, own_scripts
    from oms_app.ui.request_rules import RequestRules, hosts
    from oms_app.ui.translated_page import TranslatedPage
    from oms_app.ui.uploads import Uploads

    names = hosts(
        chosen.host,
        public_names=chosen.public_names,
        share=chosen.share,
        space=os.environ.get("SPACE_HOST", "") if space else None,
    )
    rules = {"hosts": names, "uploads": Uploads(models=not space), "space": space, "scripts": [own_scripts()]}
    scripts = {"scripts": own_scripts(), "login_scripts": own_scripts(LOGIN_SCRIPTS)}
    return [(RequestRules, (), rules), (TranslatedPage, (), scripts)]


if __name__ == "__main__":
    sys.exit(main())
