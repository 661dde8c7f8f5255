"""The first visit: three steps through raw, OMS and the OMS prompt slider, in a card that can be closed."""

from __future__ import annotations

import gradio as gr

# What each step says, the label of its button, and the element that is outlined once it is pressed.
STEPS = (
    (
        "Raw",
        "Diffusion models rarely reach true black or white: a prompt for a dark picture often gives a grey one. "
        "Open a finished pair to see it.",
        "Open a pair",
        "#panels",
    ),
    (
        "One More Step",
        "Left: <b>Raw</b>. Right: the same seed with <b>One More Step</b>; its light follows the prompt. The figures "
        "below each picture include its lightness.",
        "Next",
        "#oms",
    ),
    (
        "Your light",
        "<b>Slide between two</b> mixes two OMS prompts, initially “dark” and “light”. Move the slider: the preview "
        "changes at once. Then press Generate.",
        "Try it",
        "#oms",
    ),
)
KEY = "oms-studio-tour"  # in the browser's localStorage, once the card was closed

# Step 1 opens the first example, step 3 the slider; a browser without localStorage shows the card at each visit.
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
    """The card, at the lower edge of the window. It finds the components of Create by their ids."""
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
