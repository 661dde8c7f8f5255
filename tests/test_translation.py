"""The page in other languages: every text has a translation, and what is sent is in the visitor's language."""

from __future__ import annotations

import json
import re
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import gradio as gr
import pytest
import visible_texts
from conftest import built_page
from hypothesis import given
from hypothesis import strategies as st

from oms_app.models import file_kinds, folder_kinds, reading
from oms_app.ui import input_errors
from oms_app.ui.demo import own_scripts
from oms_app.ui.language import language_of, translation_for
from oms_app.ui.translated_page import CONFIG, translated_config, translated_html
from oms_app.ui.translation import FOLDER, PLACE, Translation, translations

if TYPE_CHECKING:
    from oms_app.engine.service import StudioService

# Parts that are cut out of longer texts, and alternatives of one template.
OF_PARTS = {"got {n} %", "Downloading {title}: {done} of {total}, {TIME} left"}
LANGUAGES = sorted(translations())


def normal(text: str) -> str:
    """A key or a template, whatever its places are called."""
    return PLACE.sub("{}", " ".join(text.split()))


@pytest.fixture
def chinese() -> Translation:
    return translations()["zh"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_visible_text_is_translated_and_no_other(language: str) -> None:
    texts = translations()[language].texts
    required, present = visible_texts.of_source()
    presets = visible_texts.of_presets()
    keys = {normal(key) for key in texts}
    missing = [f"{file}: {text}" for text, file in required.items() if normal(text) not in keys]
    assert not missing, f"without a translation: {missing}"
    assert not [text for text in presets if normal(text) not in keys]
    found = {normal(text) for text in {*present, *presets}}
    found |= {text[:1].lower() + text[1:] for text in found}
    letters = re.compile(r"[A-Za-z]")
    unused = [key for key in texts if letters.search(PLACE.sub("", key)) and normal(key) not in found]
    assert set(unused) == OF_PARTS, f"used nowhere: {set(unused) - OF_PARTS}"


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_translation_has_the_places_of_its_key(language: str) -> None:
    content = json.loads((FOLDER / f"{language}.json").read_text(encoding="utf-8"), object_pairs_hook=list)
    pairs = dict(content)["texts"]
    assert len(pairs) == len(dict(pairs)), "no key twice"
    for key, value in pairs:
        assert set(PLACE.findall(key)) == set(PLACE.findall(value)), key


def test_every_text_of_the_page_as_it_opens_is_chinese(late: StudioService, chinese: Translation) -> None:
    def texts(component: dict[str, Any]) -> list[Any]:
        props = component["props"]
        found = [props.get(name) for name in ("label", "info", "placeholder", "alt_text")]
        found += [name for name, _ in props.get("choices") or ()]
        return [*found, props.get("value") if component["type"] == "button" else None]

    config: Any = built_page(late).config
    models, seen = {info.title for info in late.models()}, 0
    for before, after in zip(config["components"], translated_config(config, chinese)["components"], strict=True):
        for english, text in zip(texts(before), texts(after), strict=True):
            if before["type"] == "api" or english in models or not visible_texts.is_phrase(english or ""):
                continue
            seen += 1
            assert text != english or chinese.texts.get(english) == english, english
    assert seen > 150


@pytest.mark.parametrize(
    ("english", "expected"),
    [
        ("Steps is 0: take 1 to 200", "采样步数为 0：请取 1 到 200"),
        ("Seed is missing: take 0 to 9, or -1 for a random one", "缺少种子：请取 0 到 9，或用 -1 随机选取"),
        ("2 corrections × 7 models × 2 seeds = 28 pictures: choose 1 to 12 pictures",
         "2 种校正 × 7 个模型 × 2 个种子 = 28 张图片：请选择 1 到 12 张图片"),
        ("Denoising, step 3 of 20, about 5 s left …", "正在去噪，第 3/20 步，剩余约 5 秒……"),
        ("Downloading <X>: 1.5 GB of 3.0 GB, about 40 s left. Keep this page open.",
         "正在下载 <X>：1.5 GB，共 3.0 GB，剩余约 40 秒。请勿关闭本页。"),
        ("Oms: no OMS module of the latent domain of 'x' is on this machine", "Oms：本机没有 'x' 潜空间域的OMS 模块"),
        ("1 to 3 of 3 pictures. Saved in /home/me", "3 张图片，显示第 1 到 3。保存于 /home/me"),
        ("Mean brightness 20 %", "平均亮度 20%"),
        ("Light left", "光线 左"),
        ("Model \u2068night\u2069, Warmth -0.5, mean L* 20: open in Create",
         "模型 \u2068night\u2069，色温 -0.5，平均 L* 20：在“创作”中打开"),
        ("a text that nobody wrote", "a text that nobody wrote"),
        ("Steps is 0: do something that nobody wrote", "Steps is 0: do something that nobody wrote"),
    ],
)  # fmt: skip
def test_messages_are_found_by_their_templates(chinese: Translation, english: str, expected: str) -> None:
    assert chinese.text(english).replace(" ", "") == expected.replace(" ", "")


def test_kinds_of_refused_models_are_named_in_chinese(chinese: Translation) -> None:
    english = re.compile(r"\b(?!diffusers\b|safetensors\b)[a-z]{2,}\b")
    files = [title for _, title in (*file_kinds._OTHERS, *file_kinds._PARTS)] + list(file_kinds._INPUTS.values())
    folders = [title for _, title in (*folder_kinds._OTHERS, *folder_kinds._KINDS)]
    said = [f"/m/x is {title}: {file_kinds.SUPPORTED}, from whole checkpoints" for title in files]
    said += [f"/m/x is a P ({title}): this version runs P folders; {file_kinds.SUPPORTED}" for title in folders]
    said += [f"/m/x is {title}" for title in folder_kinds._FORMATS.values()]
    for message in said:
        assert not english.search(chinese.text(message).removeprefix("/m/x ")), message
    for content in reading._CONTENTS.values():
        assert content not in chinese.text(f"/m/x {content}: download it again")
    message = "/m/x is only a VAE; it contains no UNet in Stable Diffusion's layout: " + file_kinds.SUPPORTED
    assert chinese.text(f"{message}, from whole checkpoints").startswith("/m/x 是单独的 VAE，它不含 Stable Diffusion")


def test_markup_keeps_what_a_visitor_wrote(chinese: Translation) -> None:
    html = '<p title="Zoom in"><q translate="no">Night &amp; &lt;Fog&gt;</q> · seed <b>5</b> · 20 steps</p>'
    assert chinese.markup(html) == (
        '<p title="放大"><q translate="no">Night &amp; &lt;Fog&gt;</q> · 种子 <b>5</b> · 20 步</p>'
    )
    assert chinese.markup('<p title="Open: \u2068night · no\u2069 · raw · seed 5">\u2068Night\u2069</p>') == (
        '<p title="打开：\u2068night · no\u2069 · 原图 · 种子 5">\u2068Night\u2069</p>'
    )
    assert chinese.markup('<img alt="A &quot;x&quot;">') == '<img alt="A &quot;x&quot;">', "escaped again"


@given(st.text(max_size=400))
def test_any_text_comes_back_as_a_text(text: str) -> None:
    chinese = translations()["zh"]
    assert isinstance(chinese.text(text), str)
    assert isinstance(chinese.markup(text), str)


def test_hostile_texts_take_no_time(chinese: Translation) -> None:
    began = time.perf_counter()
    for text in (" is : ({" * 70, ", " * 290, ". A" * 190, "Look: " * 90, "{" * 600, "<" * 100_000, "a=" * 50_000):
        chinese.text(text)
        chinese.markup(text)
    assert time.perf_counter() - began < 3


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"), ("zh-TW", "zh"), ("zh-HK,en;q=0.5", "zh"), ("ZH-hans-CN", "zh"),
        ("zh", "zh"),
        ("en-US,zh;q=0.9", "en"), ("de,zh;q=0.5,en;q=0.9", "en"), ("de", "en"), ("", "en"), ("*", "en"),
        ("zh;q=0,en", "en"), ("zh;q=nan", "en"), ("zh;q=", "en"), (";;;,,,", "en"), ("zho", "en"),
        ("x" * 100_000 + ",zh", "en"), ("fr," * 10_000 + "zh", "en"), ("../../zh", "en"),
    ],
)  # fmt: skip
def test_the_language_is_the_first_that_the_page_has(accepted: str, language: str) -> None:
    assert language_of(accepted) == language


def test_the_address_may_ask_for_a_language(chinese: Translation) -> None:
    assert translation_for({"accept-language": "en"}, {"lang": "zh-CN"}) is chinese
    assert translation_for({"accept-language": "zh"}, {"lang": "en"}) is None


def test_the_first_html_says_its_language_and_has_translated_components(chinese: Translation) -> None:
    config = {"components": [{"type": "button", "props": {"value": "Stop"}}], "title": "</script><b>"}
    html = f'<html lang="en"><head></head><script>{CONFIG}{json.dumps(config)};</script>'
    found = translated_html(html, chinese, own_scripts())
    assert '<html lang="zh-CN">' in found and "停止" in found and "此项" in found
    assert found.count("</script>") == 2, "the title ends no script"
    assert "{value: 'en'}" in translated_html(html, None), "Gradio's own texts follow the page"


def test_events_of_the_page_answer_in_the_visitors_language(monkeypatch: pytest.MonkeyPatch) -> None:
    from gradio.context import LocalContext

    said, field, pad = gr.HTML(), gr.Textbox(), gr.Radio(["left"])
    answers = {said: "<p>Saved in /x</p>", field: "Night", pad: gr.update(choices=["left", "Night"], label="Light")}

    def call(own: bool, language: str) -> dict[Any, Any]:
        request = SimpleNamespace(headers={"accept-language": language}, query_params={}, username=None)
        token = LocalContext.request.set(cast(Any, request))
        try:
            return dict(input_errors._phrased(lambda: answers, [said, field, pad], strangers=False, own=own)())
        finally:
            LocalContext.request.reset(token)

    found = call(own=True, language="zh-HK")
    assert found[said] == "<p>保存于 /x</p>"
    assert found[field] == "Night", "what a field holds is the visitor's"
    assert found[pad]["choices"] == [("左", "left"), ("夜晚", "Night")] and found[pad]["label"] == "光线"
    assert call(own=True, language="de") == answers
    assert call(own=False, language="zh") == answers, "the API stays English"
