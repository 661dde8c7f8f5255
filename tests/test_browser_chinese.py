"""The page in a Chinese browser: no English word stays in any tab, after a generation and after an error."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect
from test_browser import PATIENCE, PROMPT, browser

pytestmark = pytest.mark.browser
__all__ = ["browser"]  # a fixture of this module too

# Every text and spoken attribute that is on the screen, without what a visitor or a model wrote: it is marked, by
# translate="no" or by the characters of markup.own.
VISIBLE = """() => {
  const found = new Set();
  const add = text => found.add(text.replace(/\\u2068[^\\u2069]*\\u2069/g, '').trim());
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT | NodeFilter.SHOW_ELEMENT);
  while (walk.nextNode()) {
    const node = walk.currentNode, element = node.parentElement;
    if (node.nodeType === Node.TEXT_NODE) {
      if (!element.closest('script, style, [translate=no]') && element.checkVisibility()) add(node.data);
    } else if (node.checkVisibility())
      for (const name of ['aria-label', 'alt', 'placeholder', 'title'])
        if (!(name === 'title' && node.closest('label, fieldset'))) add(node.getAttribute(name) ?? '');
  }
  return [...found];
}"""
# Names, units, keys, ids of models and variants, licences, and what is to be typed in English.
NAMES = re.compile(
    r"OMS Studio|LCM DreamShaper v7"
    r"|One More Step|SingDiffusion|Stable Diffusion|OpenCLIP ViT-H(?:/14)?|LCM-LoRA|LoRA|OMS|SDXL|SD"
    r"|XL|Lumen|CFG|RGB|DDIM|CIE|GPU|CPU|API|GB|MB|WebP|GIF|Ctrl|Enter|Esc|Shift|Hub|diffusers|safetensors|ddim|lumen|oms"
    r"|Apache-2.0|mit|sd|sdxl|creativeml-openrail-m|openrail|lcm|dial|raw|ΔE00|/[^ ]*|#[0-9a-f]{6}"
)
TYPED = re.compile(r"mountains at night|pitch black|oms calibrate")


def english(view: Page) -> list[str]:
    """What is on the screen in English words."""
    texts = [TYPED.sub("", text) for text in view.evaluate(VISIBLE)]
    return [text for text in texts if re.search(r"[A-Za-z]{3}", NAMES.sub("", text))]


@pytest.fixture
def chinese(browser: Browser, page: str) -> Iterator[Page]:
    context = browser.new_context(locale="zh-CN", viewport={"width": 1280, "height": 800})
    view = context.new_page()
    view.goto(page)
    expect(view.get_by_role("button", name="生成", exact=True)).to_be_enabled(timeout=PATIENCE)
    yield view
    context.close()


def assert_no_english(view: Page, where: str = "") -> None:
    """Labels of parts that were just opened are set by a script a moment later."""
    for _ in range(50):
        if not english(view):
            return
        view.wait_for_timeout(200)
    assert english(view) == [], where


def test_no_english_word_stays(chinese: Page) -> None:
    expect(chinese.locator("html")).to_have_attribute("lang", "zh-CN")
    expect(chinese.locator("#tune")).to_contain_text("平均亮度")
    expect(chinese.locator(".oms-try")).to_contain_text("提示词请用英文填写")
    expect(chinese.get_by_label("色温：数值")).to_be_visible(timeout=PATIENCE)
    for selector in (PROMPT, "#generate", "#oms-prompt", "#oms-cfg", "#light-strength", "#raw-image", "#oms-image"):
        box = chinese.locator(selector).bounding_box()
        assert box is not None and box["y"] + box["height"] <= 800, f"{selector} is on the first screen"
    for accordion in ("各项说明", "图片设置", "将设置存为预设"):
        chinese.get_by_text(accordion, exact=True).click()
    assert_no_english(chinese)
    chinese.locator("#steps input").fill("4")
    chinese.locator(PROMPT).fill("night")  # a word of the page too, and a visitor's here
    chinese.get_by_role("button", name="生成", exact=True).click()
    expect(chinese.locator("#summary")).to_contain_text("步", timeout=PATIENCE)
    expect(chinese.get_by_role("button", name="停止")).to_be_disabled(timeout=PATIENCE)
    assert_no_english(chinese)
    newest = chinese.locator("#history-strip button").first
    expect(newest).to_have_accessible_name(re.compile("^打开：\u2068night\u2069 · .* · 种子 "))
    chinese.locator(PROMPT).fill("")
    chinese.get_by_role("button", name="生成", exact=True).click()
    expect(chinese.locator("#status")).to_contain_text("提示词为空", timeout=PATIENCE)
    # Lists and figures of a tab come after it is opened.
    filled = {
        "图库": "#gallery-cards li",
        "探索": "#explore-plan:has-text('张图片')",
        "对比": "#compare-models input",
        "模型": "#statistics progress:not([max='1'])",
    }
    for tab, selector in filled.items():
        chinese.get_by_role("tab", name=tab).click()
        expect(chinese.locator(selector).first).to_be_visible()
        assert_no_english(chinese, tab)


def test_the_address_may_ask_for_english_in_a_chinese_browser(browser: Browser, page: str) -> None:
    """Of Hong Kong, whose Chinese gets the page's Chinese. test_translation.py has the choice for other languages."""
    context = browser.new_context(locale="zh-HK")
    view = context.new_page()
    view.goto(page)
    expect(view.locator("#generate")).to_have_text("生成", timeout=PATIENCE)
    expect(view.locator("html")).to_have_attribute("lang", "zh-CN")
    view.goto(f"{page}?lang=en")
    expect(view.locator("#generate")).to_have_text("Generate", timeout=PATIENCE)
    view.locator(PROMPT).fill("")
    view.locator("#generate").click()
    expect(view.locator("#status")).to_contain_text("The prompt is empty", timeout=PATIENCE)
    context.close()
