"""The page without a browser: its parts, its messages, its public endpoint and how it may be started."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from conftest import ROOT, built_page, make_examples
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import app
from oms_app.engine.service import StudioService
from oms_app.errors import Stopped, StudioError
from oms_app.prestep.corrections import CORRECTIONS
from oms_app.schema import GenerateRequest, GenerateResult, ImageStats, Preview, Progress, Variant
from oms_app.ui import demo, examples, live_previews, markup, readout, saved_settings
from oms_app.ui.form import BETWEEN_TWO, ONE_PROMPT, PLAIN, CompareValues, CreateValues
from oms_app.ui.jobs import RemainingTime
from oms_app.ui.tab import Tab

FIELDS: dict[str, Any] = {
    "prompt": "mountains at night",
    "negative_prompt": "",
    "oms_on": True,
    "oms_mode": ONE_PROMPT,
    "oms_prompt": "",
    "oms_prompt_left": "dark",
    "oms_prompt_right": "light",
    "oms_mix": 0.5,
    "oms_guidance_scale": 1.5,
    "model": "lumen",
    "width": 64,
    "height": 64,
    "scheduler": "ddim",
    "guidance_scale": 5.0,
    "num_inference_steps": 2,
    "seed": 7,
    "count": 1,
    "oms_plain": False,
    "loras": [],
    "lora_scale": 1.0,
    "luminance_on": False,
    "luminance": 20.0,
    "tint_on": False,
    "tint": "#3060ff",
    "tint_strength": 1.0,
    "warmth": 0.0,
    "light": "off",
    "light_strength": 0.5,
    "light_angle": 0.0,
    "painting": "",
    "picture": "",
    "spread": 0.0,
    "exact": False,
}
CREATE = CreateValues(**FIELDS)
STATS = ImageStats(mean=30.0, lightness=11.6, p1=1.0, p99=48.0, a=0.0, b=-3.0, histogram=(90, 10) + (0,) * 62)


def test_the_fields_make_a_request() -> None:
    request = CREATE.to_request()
    raw, oms = request.variants
    assert (raw.correction, oms.correction) == ("raw", "oms")
    assert oms.prompt is None, "an empty OMS prompt means the main prompt"
    assert (request.seed, request.num_inference_steps, oms.guidance_scale) == (7, 2, 1.5)
    assert replace(CREATE, seed=-1).to_request().seed is None
    assert [variant.name for variant in replace(CREATE, oms_on=False).to_request().variants] == ["raw"]


def test_oms_without_cfg_is_one_more_variant_where_it_is_another_picture() -> None:
    plain = replace(CREATE, oms_plain=True)
    variants = plain.to_request().variants
    assert [(one.name, one.guidance_scale) for one in variants[1:]] == [("oms", 1.5), (PLAIN, 1.0)]
    assert len(replace(plain, oms_guidance_scale=1.0).to_request().variants) == 2
    assert len(replace(plain, oms_on=False).to_request().variants) == 1


def test_the_fields_make_a_preview() -> None:
    request = CREATE.to_preview()
    assert request is not None and [one.name for one in request.variants] == ["oms"] and request.seed == 7
    assert replace(CREATE, prompt=" ").to_preview() is None, "no words, no preview"
    only_light = replace(CREATE, prompt="", oms_prompt="dark").to_preview()
    assert only_light is not None and only_light.variants[0].prompt == "dark"
    assert replace(CREATE, num_inference_steps=0).to_preview() is not None, "a preview has no steps"
    drawn = replace(CREATE, seed=-1).to_preview()
    assert drawn is not None and drawn.seed == 0
    wrong: dict[str, Any]
    for wrong, said in (
        ({"seed": -2}, "Seed is -2"),
        ({"seed": None}, "Seed is missing"),
        ({"width": 65}, "Width is 65"),
    ):
        with pytest.raises(StudioError, match=said):
            replace(CREATE, **wrong).to_preview()


@given(
    st.dictionaries(
        st.sampled_from(saved_settings.NAMES),
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.floats(),
            st.sampled_from(["", "ddim", "<b>"]),
            st.lists(st.none()),
        ),
    )
)
def test_only_what_may_stand_in_the_fields_comes_back_from_the_browser(saved: dict[str, Any]) -> None:
    good = saved_settings.valid(saved, ["lumen"])
    assert good.items() <= saved.items()
    apart = ("prompt", "width", "height", "seed", "num_inference_steps")  # these must also fit together
    replace(CREATE, **{name: value for name, value in good.items() if name not in apart}).to_request()


def test_the_settings_come_back_from_the_browser_as_they_were() -> None:
    saved = FIELDS | {"loras": ["bold"], "lora_scale": 0.5}
    assert saved_settings.valid(saved, ["lumen"], ["bold", "soft"]) == saved
    assert "loras" not in saved_settings.valid(saved, ["lumen"], ["soft"]), "one that is gone"
    without = saved_settings.valid(saved, ["another"], ["bold"])
    assert not {"model", *saved_settings.OF_MODEL} & set(without) and without["prompt"] == saved["prompt"]
    wrong: list[Any] = [None, [], "text", {"prompt": "x" * 9_999}, {"seed": float("nan")}, {"oms_mode": "<b>"}]
    for nonsense in [*wrong, {"loras": "bold"}]:
        assert saved_settings.valid(nonsense, ["lumen"]) == {}


def test_live_previews_lie_over_their_panels_and_fade() -> None:
    image = Preview(variant="oms", index=0, image=Image.new("RGB", (8, 8), "red"))
    second = Preview(variant="oms", index=1, image=Image.new("RGB", (8, 8), "blue"))
    news = Progress(stage="denoise", step=1, steps=4, previews=(image, second))
    panes = {"raw": "raw pane", "oms": "oms pane"}
    (shown,) = live_previews.updates(panes, news).items()
    assert shown[0] == "oms pane" and "data:image/png" in shown[1]["value"]
    assert live_previews.updates(panes, Progress(stage="denoise", step=2, steps=4)) == {}
    assert all("oms-fading" in update["elem_classes"] for update in live_previews.updates(panes, None).values())


def test_the_time_left_follows_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("oms_app.ui.jobs.time.monotonic", lambda: now)
    time, patient = RemainingTime(), RemainingTime(minimum=5.0)
    assert time.left(1, 10) is None is patient.left(1, 10), "one step says nothing yet"
    now = 104.0
    assert time.left(3, 10) == pytest.approx(14.0)  # 2 s each, 7 to go
    assert patient.left(3, 10) is None
    assert "about 15 s left" in markup.progress(Progress(stage="denoise", step=3, steps=10), 14.0)
    assert time.left(0, 10) is None, "another request"
    now = 105.0
    assert time.left(1, 10) == pytest.approx(9.0)


def test_a_comparison_is_one_request_for_every_model() -> None:
    settings = {"prompt": " dark", "guidance_scale": 2.0, "offset_strength": 0.3, "module": "", "force": False}
    values = CompareValues(
        "sea", ["raw", "oms", "offset_noise"], ["lumen", "other"], settings, 7, 1, [], 1.0, None, None, ""
    )
    first, second = values.to_requests()
    assert (first.model, second.model, first.seed) == ("lumen", "other", 7) and first.variants == second.variants
    raw, oms, offset = first.variants
    assert raw == Variant(name="raw") and (oms.prompt, oms.guidance_scale, oms.module) == ("dark", 2.0, None)
    assert (offset.correction, offset.offset_strength, offset.prompt) == ("offset_noise", 0.3, None)
    wrong: dict[str, Any]
    for wrong, said in (
        ({"corrections": []}, "0 corrections × 2 models = 0 pictures: choose 1 to 12"),
        ({"corrections": list(CORRECTIONS)}, f"= {2 * len(CORRECTIONS)} pictures"),
        ({"prompt": " "}, "the prompt is empty"),
        ({"seed": 1.5}, "Seed is 1.5: take 0 to 4294967295"),
        ({"settings": settings | {"guidance_scale": 31.0}}, "OMS CFG is 31.0: take 0 to 30"),
    ):
        with pytest.raises(StudioError, match=said):
            replace(values, **wrong).to_requests()


def test_the_oms_slider_mixes_two_prompts() -> None:
    two = replace(CREATE, oms_mode=BETWEEN_TWO)
    oms = two.to_request().variants[1]
    assert (oms.prompt, oms.prompt_b, oms.mix) == ("dark", "light", 0.5)
    oms = replace(two, oms_prompt_left=" ", oms_prompt_right="").to_request().variants[1]
    assert (oms.prompt, oms.prompt_b) == (None, "mountains at night"), "an empty end means the main prompt"


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("prompt", "  ", "the prompt is empty: describe a picture"),
        ("prompt", "x" * 10_000, "Prompt has 10,000 characters: take at most 2,000"),
        ("oms_prompt", "x" * 2_001, "OMS prompt has 2,001 characters"),
        ("seed", -2, "Seed is -2: take 0 to 4294967295"),
        ("seed", 2**32, "Seed is 4294967296: take 0 to 4294967295"),
        ("seed", None, "Seed is missing: take 0 to 4294967295, or -1 for a random one"),
        ("seed", 1.5, "Seed is 1.5: take 0 to 4294967295"),
        ("num_inference_steps", 0, "Steps is 0: take 1 to 200"),
        ("num_inference_steps", None, "Steps is missing: take 1 to 200"),
        ("guidance_scale", float("nan"), "CFG (guidance scale) is nan: take 0 to 30"),
        ("oms_guidance_scale", float("inf"), "OMS CFG is inf: take 0 to 30"),
        ("width", 65, "Width is 65: take 64 to 2048 in steps of 8"),
        ("scheduler", "magic", "Scheduler is magic: choose one of ddim"),
        ("model", None, "no model is available: download or add one"),
    ],
)
def test_bad_input_is_named_in_one_plain_line(field: str, value: Any, said: str) -> None:
    with pytest.raises(StudioError) as error:
        replace(CREATE, **{field: value}).to_request()
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 250


@given(st.text(max_size=200))
def test_no_text_of_the_user_becomes_markup(text: str) -> None:
    marked = text + "<img src=x>"
    for html in (markup.alert(marked), markup.note(marked), readout.summary(marked, 1, ["20 steps", marked])):
        assert "<img" not in html


def test_the_readout_shows_the_figures() -> None:
    html = readout.figures(STATS)
    for figure in ("11.6", "30.0", ">1<", ">48<", "<svg", 'role="img"'):
        assert figure in html
    assert html.count("<rect") == 2, "empty bins draw nothing"
    assert "<dd>" not in readout.figures(None)


def test_the_colour_cast_is_named_by_its_hue() -> None:
    for rgb, name in (((255, 0, 0), "red"), ((255, 255, 0), "yellow"), ((0, 0, 255), "blue"), ((0, 255, 0), "green"),
                      ((0, 255, 255), "cyan"), ((255, 140, 0), "orange"), ((255, 0, 255), "magenta"),
                      ((255, 192, 203), "pink"), ((135, 206, 250), "blue")):  # fmt: skip
        stats = StudioService.measure(Image.new("RGB", (4, 4), rgb))
        said, strength = readout.cast(stats).split()
        assert said == name and int(strength) > 20
    grey = StudioService.measure(Image.new("RGB", (4, 4), (90, 90, 90)))
    assert readout.cast(grey) == "none" and "Colour cast" in readout.figures(grey)
    assert "none → blue 3" in readout.change(grey, STATS)


def test_the_change_is_said_in_one_line() -> None:
    lighter = STATS.model_copy(update={"lightness": 53.6})
    assert "54 → 12" in readout.change(lighter, STATS) and "42 darker" in readout.change(lighter, STATS)
    assert "lighter" in readout.change(STATS, lighter)
    assert "about as light" in readout.change(STATS, STATS)
    assert readout.change(STATS, None) == ""


def test_progress_names_the_stage_and_the_step() -> None:
    html = markup.progress(Progress(stage="denoise", step=3, steps=20))
    assert "Denoising, step 3 of 20" in html and 'value="3.00" max="20"' in html
    assert "queue" in markup.progress(None)


def test_examples_may_be_absent_or_incomplete(tmp_path: Path) -> None:
    assert examples.load(tmp_path / "none") == []
    found = examples.load(make_examples(tmp_path))
    assert [example.seed for example in found] == [3]
    assert examples.cards(found).count("data:image/png") == 2


class ToyTab(Tab):
    id, title = "toy", "Toy"

    def build(self) -> None:
        pass

    def connect(self, page: Any) -> None:
        page.item(self).select(lambda: None)


def test_a_new_tab_is_one_class_and_one_entry(late: StudioService, monkeypatch: pytest.MonkeyPatch) -> None:
    tabs = demo.make_tabs
    monkeypatch.setattr(demo, "make_tabs", lambda service, local: [*tabs(service, local), ToyTab()])
    page = built_page(late)
    titles = [block.label for block in page.blocks.values() if block.get_block_name() == "tabitem"]
    assert {"Create", "Explore", "Compare", "Models"} < set(titles) and titles[-1] == "Toy"


def test_the_late_studio_paints_and_keeps_pictures(late: StudioService, own_home: Path) -> None:
    assert late._studio is None, "the engine waits until it is asked for"
    result = late.save(late.generate(GenerateRequest(prompt="night", num_inference_steps=1, seed=1)))
    for image in result.images:
        assert image.path is not None and image.path.parent == own_home / "pictures"
        with Image.open(image.path) as saved:
            assert late.measure(saved) == image.stats


def test_a_request_streams_its_progress_and_then_the_result(late: StudioService) -> None:
    *steps, result = late.stream(CREATE.to_request(), threading.Event())
    assert isinstance(result, GenerateResult) and len(result.images) == 2
    assert steps and all(isinstance(step, Progress) for step in steps)


def test_a_stream_ends_when_it_is_stopped_or_closed(late: StudioService) -> None:
    request = replace(CREATE, num_inference_steps=200).to_request()
    stop = threading.Event()
    events = late.stream(request, stop, interval=0.0)
    next(events)
    stop.set()
    with pytest.raises(Stopped):
        list(events)
    stop = threading.Event()
    events = late.stream(request, stop, interval=0.0)
    while next(events) == Progress(stage="load"):
        pass
    cast(Generator[object], events).close()  # as when the visitor leaves
    assert stop.is_set()


def ask(address: str, path: str, body: dict[str, Any] | None = None) -> str:
    """What the running page answers to a plain HTTP call."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return answer.read().decode()


def call(address: str, **settings: Any) -> tuple[str, Any]:
    """Calls the public endpoint, as its documentation says for curl. Returns the last event's name and its data."""
    started = json.loads(ask(address, "/gradio_api/call/v2/generate", {"num_inference_steps": 2, "seed": 5} | settings))
    lines = ask(address, f"/gradio_api/call/generate/{started['event_id']}").strip().splitlines()
    return lines[-2].removeprefix("event: "), json.loads(lines[-1].removeprefix("data: "))


def test_news_on_the_way_is_cheap_to_tell(page: str) -> None:
    """Each piece builds all outputs of its event anew, and goes through all parts that were ever told of progress."""
    config = json.loads(ask(page, "/config"))
    kinds = {part["id"]: part["type"] for part in config["components"]}
    on_the_way = [event for event in config["dependencies"] if event["types"]["generator"]]
    assert len(on_the_way) >= 4, "Create, Explore, Compare and Models"
    for event in on_the_way:
        assert not {"image", "imageslider"} & {kinds[part] for part in event["outputs"]}
    told = {part for event in config["dependencies"] for part in event["show_progress_on"] or event["outputs"]}
    assert len(told) <= 5, [kinds[part] for part in told]


def test_these_endpoints_are_public(page: str) -> None:
    info = json.loads(ask(page, "/gradio_api/info"))
    lists = {"/models", "/looks", "/words", "/statistics"}
    assert (
        set(info["named_endpoints"]) == {"/generate", "/preview", "/cancel", *lists} and not info["unnamed_endpoints"]
    )


def test_the_endpoint_answers_with_png_pictures(page: str) -> None:
    event, (answer,) = call(page, prompt="solid black background")
    assert (event, answer["seed"]) == ("complete", 5)
    assert [image["variant"] for image in answer["images"]] == ["raw", "oms"]
    assert answer["images"][0]["mean"] != answer["images"][1]["mean"]
    for image in answer["images"]:
        with urllib.request.urlopen(image["image"]["url"], timeout=60) as file:
            assert file.read(8) == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"prompt": "night", "seed": -1}, "seed is -1: take 0 to 4294967295"),
        ({"prompt": "night", "model": "/etc"}, "unknown model"),
        ({"prompt": " "}, "the prompt is empty"),
    ],
)
def test_the_endpoint_refuses_bad_input(page: str, bad: dict[str, Any], said: str) -> None:
    event, data = call(page, **bad)
    assert event == "error"
    assert said in str(data)


def test_only_pictures_are_served(page: str) -> None:
    for path in (Path(app.__file__), Path("/etc/passwd")):
        with pytest.raises(urllib.error.HTTPError) as refusal:
            ask(page, f"/gradio_api/file={path}")
        assert refusal.value.code in (403, 404)
        refusal.value.close()


@pytest.mark.parametrize("given", [["--host", "0.0.0.0"], ["--share"], ["--host", "192.168.1.2"], ["--port", "99999"]])
def test_no_open_door_without_a_password(
    given: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OMS_PASSWORD", raising=False)
    monkeypatch.delenv("SPACE_ID", raising=False)
    with pytest.raises(SystemExit) as stop:
        app.arguments(given)
    assert stop.value.code == 2
    assert given[0] in capsys.readouterr().err


def test_the_address_by_default_with_a_password_and_on_a_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMS_PASSWORD", raising=False)
    monkeypatch.delenv("SPACE_ID", raising=False)
    assert app.arguments([]).host == "127.0.0.1"
    assert app.arguments(["--host", "0.0.0.0", "--password", "secret"]).host == "0.0.0.0"
    monkeypatch.setenv("SPACE_ID", "someone/oms-studio")
    assert app.arguments([]).host == "0.0.0.0"


def test_each_block_of_the_style_sheet_is_closed() -> None:
    """A browser says nothing about a lost brace: all that follows then holds for a phone's width alone."""
    depth = 0
    for number, line in enumerate((ROOT / "oms_app/ui/style.css").read_text().splitlines(), 1):
        assert not (depth and line[:1] not in ("", " ", "}")), f"line {number} stands in an open block"
        depth += line.count("{") - line.count("}")
    assert depth == 0
