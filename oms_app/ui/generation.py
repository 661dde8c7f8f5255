"""From a click to pictures, in every tab: read the fields, stream the service's events, show the pictures, stop."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import gradio as gr

from oms_app.engine.service import REPORT_SECONDS, StudioService
from oms_app.errors import Stopped, StudioError
from oms_app.schema import GenerateRequest, GenerateResult, Progress
from oms_app.ui import gradio_compat, markup
from oms_app.ui.events import DEVICE, QUICK, Component, Updates
from oms_app.ui.field_set import FieldSet
from oms_app.ui.jobs import RemainingTime, StopFlags
from oms_app.ui.run_controls import RunControls

logger = logging.getLogger(__name__)
V = TypeVar("V")


class GenerationJob:
    """What one click asks for, and how the page shows it. Methods return updates of the tab's streamed components.

    interval: seconds between two updates of the page.
    """

    interval = REPORT_SECONDS

    def begin(self) -> Updates:
        return {}

    def next_request(self) -> GenerateRequest | None:
        """The next request to run; None if there is none."""
        raise NotImplementedError

    def on_progress(self, event: Progress) -> Updates:
        raise NotImplementedError

    def on_result(self, result: GenerateResult) -> Updates:
        """After a request, with its pictures saved."""
        raise NotImplementedError

    def on_error(self, error: Exception) -> Exception | None:
        """After a request that failed or was stopped. None goes on with the next."""
        return error

    def end(self, error: Exception | None) -> Updates:
        """error: what ended the job early."""
        raise NotImplementedError

    def show(self) -> Updates:
        """The pictures, in an event of their own after a job that came to its end: see `bind_generation`."""
        return {}


class PictureJob(GenerationJob):
    """Pictures that are shown together when all are there. The first request may draw the seed; the others use it.

    show: updates for the finished results. live: updates for the previews of an event; None removes them.
    """

    def __init__(
        self,
        requests: Iterable[GenerateRequest],
        controls: RunControls,
        show: Callable[[list[GenerateResult]], Updates],
        live: Callable[[Progress | None], Updates] = lambda event: {},
    ) -> None:
        self._requests = deque(requests)
        self._controls, self._show, self._live = controls, show, live
        self._results: list[GenerateResult] = []
        self._time = RemainingTime()

    def next_request(self) -> GenerateRequest | None:
        if not self._requests:
            return None
        request = self._requests.popleft()
        return request.model_copy(update={"seed": self._results[0].seed}) if self._results else request

    def on_progress(self, event: Progress) -> Updates:
        left = self._time.left(event.step, event.steps) if event.steps else None
        return {self._controls.status: markup.progress(event, left), **self._live(event)}

    def on_result(self, result: GenerateResult) -> Updates:
        self._results.append(result)
        return {}

    def end(self, error: Exception | None) -> Updates:
        message = {self._controls.status: error_message(error)} if error else {}
        return {**self._live(None), **message}

    def show(self) -> Updates:
        results, self._results = self._results, []  # an open page must not hold them for ever
        return self._show(results)


def bind_generation(
    service: StudioService,
    controls: RunControls,
    fields: FieldSet[V],
    make_job: Callable[[V], GenerationJob],
    *,
    streamed: Sequence[Component] = (),
    shown: Sequence[Component] = (),
) -> None:
    """`start` runs the job of the fields, one at a time on the device; `stop` ends it. All events are private.

    make_job: raises StudioError for what the visitor can correct. streamed: the components that the job's methods
    update, besides the status. shown: those that its `show` updates, in an event of their own, since images among the
    outputs would slow every progress message down (gradio_compat.py).
    """
    flags, idle, job_state = StopFlags(), controls.idle(), gr.State()

    def prepare(data: Mapping[Component, Any], session: gr.Request) -> Updates:
        try:
            job = make_job(fields.read(data))
        except StudioError as error:
            return {job_state: None, controls.status: markup.alert(str(error))}
        flags.reset(session.session_hash)
        return {job_state: job, **controls.busy()}

    def generate(job: GenerationJob | None, session: gr.Request) -> Iterator[Updates]:
        if job is None:  # `prepare` has said why
            yield idle
            return
        stop = flags.of(session.session_hash)
        error: Exception | None = None
        if updates := job.begin():  # Gradio takes no empty dict
            yield updates
        while error is None and (request := job.next_request()):
            try:
                if stop.is_set():
                    raise Stopped("stopped")
                for event in service.stream(request, stop, job.interval):
                    if isinstance(event, Progress):
                        updates = job.on_progress(event)
                    else:
                        updates = job.on_result(save(service, event))
                    if updates:
                        yield updates
            except Exception as caught:
                error = job.on_error(caught)
        last = job.end(error)
        yield {**last, finished: job} if error is None else {**last, **idle}

    def show(job: GenerationJob) -> Updates:
        try:
            updates = job.show()
        except Exception as error:
            updates = {controls.status: error_message(error)}
        return {**updates, **idle}

    def request_stop(session: gr.Request) -> Updates:
        flags.of(session.session_hash).set()
        return {controls.stop: gr.update(interactive=False)}

    state = [controls.status, controls.start, controls.stop]
    finished = gradio_compat.separate_event(show, [*shown, *state], **QUICK)
    prepared = controls.start.click(prepare, set(fields.components), [job_state, *state], **QUICK)
    generated = prepared.then(
        generate,
        job_state,
        [*streamed, *state, finished],
        concurrency_id=DEVICE,
        concurrency_limit=1,
        show_progress="minimal",
        show_progress_on=controls.queue,
        api_visibility="private",
    )
    generated.failure(lambda: idle, None, [controls.start, controls.stop], **QUICK)  # a full queue, a lost connection
    controls.stop.click(request_stop, None, controls.stop, **QUICK)


def save(service: StudioService, result: GenerateResult) -> GenerateResult:
    """The result with its pictures saved; with a note that says why not if that fails."""
    try:
        return service.save(result)
    except StudioError as error:  # such as a full disk: the pictures exist all the same
        return result.model_copy(update={"notes": (*result.notes, f"not saved: {error}")})


def error_message(error: Exception) -> str:
    """Why a job ended early, for the visitor. To be called while the error is handled: an unexpected one is logged."""
    if isinstance(error, Stopped):
        return markup.note("Stopped. Your settings are unchanged.")
    if isinstance(error, StudioError):
        return markup.alert(str(error))
    logger.error("a request failed", exc_info=error)
    what = f"An unexpected error stopped the generation ({type(error).__name__}: {error})."
    return markup.alert(f"{what} Your settings are kept; please try again.")
