"""From a button to pictures, for every tab: check the fields, paint, tell how far it is, and stop when asked."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gradio as gr

from oms_app.errors import Stopped, StudioError
from oms_app.schema import GenerateRequest, GenerateResult, Progress
from oms_app.ui import readout
from oms_app.ui.work import Engine, Pace, Stops, follow

logger = logging.getLogger(__name__)
Save = Callable[[GenerateResult], GenerateResult]
DEVICE = "device"  # one concurrency id for everything that works the model
QUICK: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}


def wire(
    studio: Engine,
    save: Save,
    *,
    start: gr.Button,
    stop: gr.Button,
    status: gr.HTML,
    requests: gr.State,
    fields: Mapping[str, Any],
    outputs: Sequence[Any],
    ask: Callable[[dict[str, Any]], list[GenerateRequest]],
    show: Callable[[list[GenerateResult]], dict[Any, Any]],
    look: Callable[[Progress | None], dict[Any, Any]] = lambda news: {},
    seen: Sequence[Any] = (),
    waiting: gr.HTML | None = None,
) -> None:
    """`start` paints what the fields ask for, `stop` ends it; the pictures are shown when all of them are there.

    `ask` as for `attach`. Where it gives several requests, the first may draw the seed, and the others take it from
    there. outputs: the components that `show` fills. look: what else is to be seen of each piece of news, in the
    components `seen`; None when there will be no more, however it ended. waiting: where Gradio tells the place in the
    queue.

    The pictures come by an event of their own: with each piece of news Gradio builds every output of its event anew,
    changed or not, which for all of a tab's outputs takes longer than a step of a small model.
    """
    finished = gr.State()  # `Finished`, on its way from the one event to the other

    def run(asked: list[GenerateRequest], flag: threading.Event, rest: dict[Any, Any]) -> Iterator[dict[Any, Any]]:
        results: list[GenerateResult] = []
        pace = Pace()
        try:
            for request in asked:
                if results:
                    request = request.model_copy(update={"seed": results[0].seed})
                for news in follow(studio, request, flag):
                    if isinstance(news, Progress):
                        yield {status: readout.progress(news, pace.left(news)), **look(news)}
                    else:
                        results.append(keep(save, news))
            last: dict[Any, Any] = {finished: Finished(results)}
        except Exception as error:
            last = {status: why(error), **rest}
        yield {**look(None), **last}

    def finish(pictures: Finished) -> dict[Any, Any]:
        try:
            shown = show(pictures.take())
        except Exception as error:
            shown = {status: why(error)}
        return {**shown, **at_rest(start, stop)}

    attach(
        start=start,
        stop=stop,
        status=status,
        requests=requests,
        fields=fields,
        outputs=[*seen, finished],
        ask=ask,
        run=run,
        waiting=waiting,
    )
    finished.change(finish, finished, [*outputs, status, start, stop], **QUICK)


class Finished:
    """The results of one run. Compared by identity, so that every run is a change, whatever it painted."""

    def __init__(self, results: list[GenerateResult]) -> None:
        self._results = results

    def take(self) -> list[GenerateResult]:
        """They are not kept: a page that stays open would hold them for ever."""
        results, self._results = self._results, []
        return results


def at_rest(start: gr.Button, stop: gr.Button) -> dict[Any, Any]:
    """The updates that let `start` be pressed again."""
    return {start: gr.update(interactive=True), stop: gr.update(interactive=False)}


def why(error: Exception) -> str:
    """What the person is told of a run that did not come to its end. To be called where the error is caught."""
    if isinstance(error, Stopped):
        return readout.note("Stopped. Your settings are as you left them.")
    if isinstance(error, StudioError):
        return readout.alert(str(error))
    # The edge of the program: the log gets the traceback, the person a plain line.
    logger.exception("a request failed")
    what = f"Something broke while painting ({type(error).__name__}: {error})."
    return readout.alert(f"{what} Your settings are kept; please try again.")


def keep(save: Save, result: GenerateResult) -> GenerateResult:
    """The result, saved; where that fails, with a note that says why."""
    try:
        return save(result)
    except StudioError as error:  # a full disk, say: the pictures are there all the same, so show them
        return result.model_copy(update={"notes": (*result.notes, f"not saved: {error}")})


def attach(
    *,
    start: gr.Button,
    stop: gr.Button,
    status: gr.HTML,
    requests: gr.State,
    fields: Mapping[str, Any],
    outputs: Sequence[Any],
    ask: Callable[[dict[str, Any]], Any],
    run: Callable[[Any, threading.Event, dict[Any, Any]], Iterator[dict[Any, Any]]],
    waiting: gr.HTML | None = None,
) -> None:
    """`start` runs what the fields ask for, one at a time on the device; `stop` sets its flag. All events are private.

    fields: components by the names that `ask` knows their values by; it raises StudioError for what a person can mend.
    run: takes what `ask` gave, the flag, and the updates that let `start` be pressed again, and yields updates of
        `outputs` and `status`; the last holds those that it was given, so that no further request is needed for them,
        or leaves them to an event of its own.
    """
    stops = Stops()
    rest = at_rest(start, stop)

    def check(data: dict[Any, Any], session: gr.Request) -> dict[Any, Any]:
        try:
            asked = ask({name: data[component] for name, component in fields.items()})
        except StudioError as error:
            return {requests: None, status: readout.alert(str(error))}
        stops.fresh(session.session_hash)
        return {
            requests: asked,
            status: readout.progress(None),
            start: gr.update(interactive=False),
            stop: gr.update(interactive=True),
        }

    def follow_up(asked: Any, session: gr.Request) -> Iterator[dict[Any, Any]]:
        if asked is None:  # check has told the person why
            yield rest
            return
        yield from run(asked, stops.of(session.session_hash), rest)

    def end(session: gr.Request) -> dict[Any, Any]:
        stops.of(session.session_hash).set()
        return {stop: gr.update(interactive=False)}

    checked = start.click(check, set(fields.values()), [requests, status, start, stop], **QUICK)
    ran = checked.then(
        follow_up,
        requests,
        [*outputs, status, start, stop],
        concurrency_id=DEVICE,
        concurrency_limit=1,
        show_progress="minimal" if waiting else "hidden",
        show_progress_on=waiting,
        api_visibility="private",
    )
    ran.failure(lambda: rest, None, [start, stop], **QUICK)  # the queue was full, or the server went
    stop.click(end, None, stop, **QUICK)
