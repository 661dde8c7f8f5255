"""The first visit: three steps through raw, OMS and the slider, in a card that covers nothing and never comes back."""

from __future__ import annotations

import gradio as gr

# What each step says, what its button says, and what is pointed at once it was pressed.
STEPS = (
    (
        "Raw",
        "Asked for darkness, a model by itself paints grey: it shies away from true dark and true light. "
        "Open a ready-made pair to see it.",
        "Open a pair",
        "#panels",
    ),
    (
        "One More Step",
        "At the left is <b>Raw</b>. The right picture began from the same seed, after <b>One More Step</b>: its light "
        "is what the words say. The figures under both tell how dark or bright they are.",
        "Next",
        "#oms",
    ),
    (
        "Your light",
        "<b>Slide between two</b> mixes two prompts for light, “dark” and “light” at first. Move the slider, and the "
        "light is shown at once. Then press Generate.",
        "Try it",
        "#oms",
    ),
)
KEY = "oms-studio-tour"  # in the browser, once the card was closed

# Step 1 opens the first ready-made pair, step 3 the slider; a browser that keeps nothing simply shows the card again.
TOUR_JS = f"""
const card = element.querySelector('.oms-tour'), steps = [...card.querySelectorAll('li')];
const recall = () => {{ try {{ return localStorage.getItem('{KEY}'); }} catch {{ return null; }} }};
const close = () => {{ card.hidden = true; mark(null); try {{ localStorage.setItem('{KEY}', 'seen'); }} catch {{}} }};
const mark = at => {{
  document.querySelectorAll('.oms-pointed').forEach(one => one.classList.remove('oms-pointed'));
  const place = at && document.querySelector(at);
  if (place) {{ place.classList.add('oms-pointed'); place.scrollIntoView({{block: 'nearest', behavior: 'smooth'}}); }}
}};
const show = number => steps.forEach((step, i) => step.hidden = i !== number);
const act = [
  () => document.querySelector('#examples button')?.click(),
  () => {{}},
  () => document.querySelectorAll('#oms-mode input')[1]?.click(),
];
card.addEventListener('click', event => {{
  const button = event.target.closest('button');
  if (!button) return;
  if (button.dataset.close !== undefined) return close();
  const number = steps.findIndex(step => step.contains(button));
  act[number]();
  if (number + 1 < steps.length) {{ mark(steps[number].dataset.at); show(number + 1); }}
  else {{ close(); mark(steps[number].dataset.at); setTimeout(() => mark(null), 4000); }}
}});
show(0);
card.hidden = recall() !== null;
"""


def build() -> gr.HTML:
    """The card, at the lower edge of the window. It needs the Create tab's components by their ids."""
    items = "".join(
        f'<li data-at="{at}" hidden><h3>{number}. {title}</h3><p>{text}</p>'
        f'<div><button type="button">{button}</button></div></li>'
        for number, (title, text, button, at) in enumerate(STEPS, 1)
    )
    return gr.HTML(
        f'<section class="oms-tour" aria-label="First steps" hidden><ol>{items}</ol>'
        '<button type="button" data-close aria-label="Close the first steps">×</button></section>',
        js_on_load=TOUR_JS,
        elem_id="tour",
        padding=False,
    )
