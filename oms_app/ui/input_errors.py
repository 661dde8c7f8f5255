"""What events send to the page: texts in the visitor's language, and one plain line for values that cannot be used.

Every event of the page can be called by its number with any values. Gradio 6.31 prints a traceback for each exception
that is no `gr.Error`, and sends its text to the caller. Remove when both can be switched off for exceptions. No line
has a traceback or, for strangers, a path of the server. The page's own events are translated; the API stays English.
"""

from __future__ import annotations

import functools
import inspect
import logging
import math
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.context import LocalContext

from oms_app.errors import StudioError, without_paths
from oms_app.paths import SHIPPED, user_folder
from oms_app.ui.language import translation_of
from oms_app.ui.roles import is_guest
from oms_app.ui.translation import Translation

logger = logging.getLogger(__name__)
NOT_USABLE = "A value that was sent cannot be used: open the page again."
MAX_TEXT, MAX_VALUES, MAX_DEPTH, MAX_INTEGER = 100_000, 10_000, 12, 2**63  # of one event's values
# What hostile values cause in code that expects others. Anything else is a fault of ours, and its traceback is logged.
OF_VALUES = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)


def phrase_errors(demo: gr.Blocks, *, strangers: bool) -> None:
    """For all events of the page. Call it after the last event is added.

    strangers: visitors do not own this machine, so that messages to them name none of its folders; nor do they for
    guests of a page with passwords.
    """
    for event in demo.fns.values():
        if event.fn is not None:
            event.fn = _phrased(event.fn, event.outputs, strangers, own=event.api_visibility == "private")
    demo.process_api = _quiet(demo.process_api)


def _phrased(handler: Callable[..., Any], outputs: Sequence[Any], strangers: bool, *, own: bool) -> Callable[..., Any]:
    """The handler with its unexpected errors as one line. Its signature stays: Gradio passes arguments by it.

    own: it is the page's, whose texts are in the visitor's language.
    """
    texts = [one for one in outputs if isinstance(one, gr.HTML)]

    def language() -> Translation | None:
        return translation_of(LocalContext.request.get(None)) if own else None

    def shown(updates: Any) -> Any:
        if strangers or is_guest():
            if isinstance(updates, Mapping):
                updates = {key: _clean(value) if key in texts else value for key, value in updates.items()}
            elif texts and isinstance(updates, str):
                updates = _clean(updates)
        translation = language()
        return _translated(updates, outputs, translation) if translation else updates

    if inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def stream(*args: Any, **kwargs: Any) -> Iterator[Any]:
            with _one_line(handler, strangers, language):
                for updates in handler(*args, **kwargs):
                    yield shown(updates)

        return stream

    if inspect.iscoroutinefunction(handler):

        @functools.wraps(handler)
        async def call_async(*args: Any, **kwargs: Any) -> Any:
            with _one_line(handler, strangers, language):
                return shown(await handler(*args, **kwargs))

        return call_async

    @functools.wraps(handler)
    def call(*args: Any, **kwargs: Any) -> Any:
        with _one_line(handler, strangers, language):
            return shown(handler(*args, **kwargs))

    return call


def _translated(updates: Any, outputs: Sequence[Any], translation: Translation) -> Any:
    """What a handler returns, in a language: values by component, in the order of the outputs, or of the only one."""
    if isinstance(updates, Mapping) and "__type__" not in updates:
        return {one: translation.shown(one.get_block_name(), value) for one, value in updates.items()}
    if len(outputs) == 1:
        return translation.shown(outputs[0].get_block_name(), updates)
    if isinstance(updates, list | tuple):
        pairs = zip(outputs, updates, strict=False)
        return [translation.shown(one.get_block_name(), value) for one, value in pairs]
    return updates


@contextmanager
def _one_line(
    handler: Callable[..., Any], strangers: bool, language: Callable[[], Translation | None]
) -> Iterator[None]:
    try:
        yield
    except gr.Error:
        raise
    except StudioError as error:
        text = _clean(str(error)) if strangers or is_guest() else str(error)
        raise _error(text, language()) from error
    except (Exception, SystemExit) as error:  # a library's sys.exit() would end the server
        name = getattr(handler, "__qualname__", "an event")
        ours = not isinstance(error, OF_VALUES)
        logger.error("%s failed: %s", name, type(error).__name__, exc_info=error if ours else None)
        raise _error(NOT_USABLE, language()) from error


def _error(text: str, translation: Translation | None) -> gr.Error:
    return gr.Error(translation.text(text) if translation else text, print_exception=False)


def _quiet(process: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Gradio's own call of an event: values that do not fit its components fail there, before the handler runs."""

    @functools.wraps(process)
    async def quiet(*args: Any, **kwargs: Any) -> Any:
        try:
            _refuse_absurd([kwargs.get("inputs"), getattr(kwargs.get("event_data"), "_data", None)])
            return await process(*args, **kwargs)
        except gr.Error as error:
            error.print_exception = False
            raise
        except Exception as error:
            logger.error("an event was called with values that do not fit (%s)", type(error).__name__)
            raise _error(NOT_USABLE, translation_of(kwargs.get("request"))) from error

    return quiet


def _refuse_absurd(values: Any) -> None:
    """Raises gr.Error for values that no component of the page sends: they would cost time, or break an answer."""
    left, waiting = MAX_VALUES, [(values, 0)]
    while waiting:
        value, depth = waiting.pop()
        left -= 1
        inside: list[Any] = []
        if isinstance(value, dict):
            inside = [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple):
            inside = list(value)
        fits = left >= len(inside) and depth <= MAX_DEPTH
        if isinstance(value, int):
            fits = fits and abs(value) < MAX_INTEGER
        elif isinstance(value, float):
            fits = fits and math.isfinite(value)
        elif isinstance(value, str):
            fits = fits and len(value) <= MAX_TEXT and not any("\ud800" <= one <= "\udfff" for one in value)
        if not fits:
            raise gr.Error(NOT_USABLE, print_exception=False)
        waiting += [(one, depth + 1) for one in inside]


def _clean(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return without_paths(value, (user_folder(), SHIPPED, Path.home(), Path(tempfile.gettempdir()), Path.cwd()))
