"""Messages, progress and other small pieces of HTML. Every text of a user is escaped."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from oms_app.schema import STAGE_TEXTS, Progress

COUNTED = {
    "picture": ("{} picture", "{} pictures"),
    "correction": ("{} correction", "{} corrections"),
    "model": ("{} model", "{} models"),
    "seed": ("{} seed", "{} seeds"),
}
# What a status shows before there is any.
KEYS = '<p class="oms-keys"><kbd>Ctrl</kbd> + <kbd>Enter</kbd> generates, <kbd>Esc</kbd> stops.</p>'
# For `gr.HTML(js_on_load=…)`: a click on a button in it sends the button's data-… attributes, as text.
CLICK_JS = """
element.addEventListener('click', event => {
  const button = event.target.closest('button');
  if (button) trigger('click', {...button.dataset});
});
"""


def alert(message: str) -> str:
    """Something the user can correct. Screen readers speak it at once."""
    return f'<div class="oms-status oms-alert" role="alert">{escape(_sentence(message))}</div>'


def note(*messages: str) -> str:
    """What the user should know; nothing at all without messages."""
    lines = "".join(f"<p>{escape(_sentence(message))}</p>" for message in messages)
    return f'<div class="oms-status oms-note" role="status">{lines}</div>' if lines else ""


def status(text: str, done: float | None = None, total: float | None = None) -> str:
    """A text over a progress bar, which only moves if `done` of `total` is known."""
    known = f' value="{done:.2f}" max="{total}"' if done is not None and total is not None else ""
    return (
        f'<div class="oms-status"><span>{escape(text)}</span><progress aria-label="Progress"{known}></progress></div>'
    )


def progress(event: Progress | None, seconds_left: float | None = None) -> str:
    """The stage and the step within it. event: None if the request waits for the device. seconds_left: if known."""
    if event is None:
        return status("Waiting in the queue …").replace("oms-status", "oms-status oms-waiting", 1)
    text = STAGE_TEXTS[event.stage]
    if not event.steps:
        return status(f"{text} …")
    return status(f"{text}, step {event.step} of {event.steps}{left(seconds_left)} …", event.step, event.steps)


def left(seconds: float | None) -> str:
    """Such as ", about 20 s left"; empty if it is unknown or next to nothing."""
    return f", {about(seconds)} left" if seconds is not None and seconds >= 0.5 else ""


def about(seconds: float) -> str:
    """Such as "about 20 s" or "about 3 min": as precise as an estimate can be."""
    if seconds < 9.5:
        return f"about {max(1, round(seconds))} s"
    if seconds < 57.5:
        return f"about {5 * round(seconds / 5)} s"
    minutes = round(seconds / 60)
    return f"about {minutes} min" if minutes < 90 else f"about {seconds / 3600:.0f} hours"


def count(number: int, thing: str = "picture") -> str:
    """Such as "3 pictures". thing: one of COUNTED."""
    one, many = COUNTED[thing]
    return (one if number == 1 else many).format(number)


def legend(text: str) -> str:
    """A small explanation."""
    return f'<p class="oms-legend">{escape(text)}</p>'


def definitions(pairs: Iterable[tuple[str, str]]) -> str:
    """Terms and what they mean."""
    items = "".join(f"<dt>{escape(term)}</dt><dd>{escape(meaning)}</dd>" for term, meaning in pairs)
    return f'<dl class="oms-help">{items}</dl>'


def heading(text: str) -> str:
    return f'<h2 class="oms-heading">{escape(text)}</h2>'


def own(text: str) -> str:
    """What a visitor wrote, or a name, inside a longer text: between Unicode's isolates, so that it is not translated
    and its direction of writing does not affect the rest."""
    return f"\u2068{without_isolates(text)}\u2069"


def without_isolates(text: str) -> str:
    """The plain text."""
    return text.translate({0x2068: None, 0x2069: None})


def _sentence(message: str) -> str:
    return message[:1].upper() + message[1:]
