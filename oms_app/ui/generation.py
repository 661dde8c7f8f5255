"""From a click to pictures, in every tab: read the fields, stream the service's events, show the pictures, stop."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import gradio as gr

from oms_app.engine.service import REPORT_SECONDS, StudioService
from oms_app.errors import Stopped, StudioError
from oms_app.schema import GenerateRequest, GenerateResult, Progress
from oms_app.ui import gradio_compat, markup
from oms_app.ui.events import DEVICE, QUICK, Component, Updates
from oms_app.ui.fair_queue import stopped_go_first
from oms_app.ui.field_set import FieldSet
from oms_app.ui.jobs import RemainingTime
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
        """After a request that failed or was stopped. None continues with the next."""
        return error

    def end(self, error: Exception | None) -> Updates:
        """error: what ended the job early."""
        raise NotImplementedError

    def show(self, session: str | None) -> Updates:
        """The pictures, or files made of them, in an event of their own after a job that ran to its end: see
        `bind_generation`. The device is free meanwhile. session: of the open page."""
        return {}


class PictureJob(GenerationJob):
    """Pictures that are shown together when all are finished. The first request may draw the seed; the others use it.

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
        if error is None:
            return self._live(None)
        self._results.clear()  # `show` will not take them
        return {**self._live(None), self._controls.status: error_message(error)}

    def show(self, session: str | None) -> Updates:
        results, self._results = self._results, []  # an open page must not keep them in memory
        return self._show(results)


class JobRunner(Generic[V]):
    """The handlers of one start button.

    make_job: the job that the fields ask for; raises StudioError for what the visitor can correct.
    """

    def __init__(
        self,
        service: StudioService,
        controls: RunControls,
        fields: FieldSet[V],
        make_job: Callable[[V], GenerationJob],
    ) -> None:
        self._service, self._controls, self._fields, self._make_job = service, controls, fields, make_job
        self.job, self.finished = gr.State(), gr.State()  # the job to run; the job whose pictures are to be shown

    def prepare(self, data: Mapping[Component, Any], session: gr.Request) -> Updates:
        """Reads the fields. Outputs: `job`, and status, start and stop of the controls."""
        try:
            job = self._make_job(self._fields.read(data))
        except StudioError as error:
            return {self.job: None, self._controls.status: markup.alert(str(error))}
        self._controls.flags.reset(session.session_hash)
        return {self.job: job, **self._controls.busy()}

    def run(self, job: GenerationJob | None, session: gr.Request) -> Iterator[Updates]:
        """Runs the job. Outputs: what it updates, `finished`, and status, start and stop of the controls."""
        if job is None:  # `prepare` has said why
            yield self._controls.idle()
            return
        error: Exception | None = None
        with self._controls.flags.running(session.session_hash) as stop:
            if updates := job.begin():  # Gradio takes no empty dict
                yield updates
            while error is None and (request := job.next_request()):
                try:
                    if stop.is_set():
                        raise Stopped("stopped")
                    for event in self._service.stream(request, stop, job.interval):
                        if isinstance(event, Progress):
                            updates = job.on_progress(event)
                        else:
                            updates = job.on_result(save(self._service, event, session.session_hash))
                        if updates:
                            yield updates
                except Exception as caught:
                    error = job.on_error(caught)
        last = job.end(error)
        yield {**last, self.finished: job} if error is None else {**last, **self._controls.idle()}

    def show(self, job: GenerationJob | None, session: gr.Request) -> Updates:
        """Shows the pictures of a job that came to its end. job: None if a program calls the event before any job."""
        if job is None:
            return self._controls.idle()
        try:
            updates = job.show(session.session_hash)
        except Exception as error:
            updates = {self._controls.status: error_message(error)}
        return {**updates, **self._controls.idle()}

    def idle(self) -> Updates:
        return self._controls.idle()


def bind_generation(
    service: StudioService,
    controls: RunControls,
    fields: FieldSet[V],
    make_job: Callable[[V], GenerationJob],
    *,
    start: gr.Button | None = None,
    streamed: Sequence[Component] = (),
    shown: Sequence[Component] = (),
) -> None:
    """A click on `start`, that of the controls if None, runs the job of the fields, one at a time on the device; `stop`
    of the controls ends it. All events are private.

    streamed: the components that the job's methods update, besides the status. shown: those that its `show` updates, in
    an event of its own, since images among the outputs would slow every progress message down (gradio_compat.py), and
    writing files takes seconds that others would wait for the device.
    """
    runner = JobRunner(service, controls, fields, make_job)
    state = controls.outputs
    prepared = (start or controls.start).click(runner.prepare, set(fields.components), [runner.job, *state], **QUICK)
    ran = prepared.then(
        runner.run,
        runner.job,
        [*streamed, *state, runner.finished],
        concurrency_id=DEVICE,
        concurrency_limit=1,
        show_progress="minimal",
        show_progress_on=controls.queue,
        api_visibility="private",
    )
    stopped_go_first(controls.flags)
    gradio_compat.separate_event(runner.finished, runner.show, [*shown, *state], **QUICK)
    ran.failure(runner.idle, None, state, **QUICK)  # a full queue, a lost connection


def save(service: StudioService, result: GenerateResult, session: str | None) -> GenerateResult:
    """The result with its pictures saved; with a note that says why not if that fails. session: of the open page."""
    try:
        return service.save(result, session)
    except StudioError as error:  # such as a full disk: the pictures exist all the same
        return result.model_copy(update={"notes": (*result.notes, f"not saved: {error}")})


def error_message(error: Exception) -> str:
    """Why a job ended early, for the visitor. An unexpected one is logged."""
    if isinstance(error, Stopped):
        return markup.note("Stopped. Your settings are unchanged.")
    if isinstance(error, StudioError):
        return markup.alert(str(error))
    logger.error("a request failed", exc_info=error)
    what = f"An unexpected error stopped the generation ({type(error).__name__}: {error})."
    return markup.alert(f"{what} Your settings are kept; please try again.")
