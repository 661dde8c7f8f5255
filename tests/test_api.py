"""docs/api.md as it stands: its examples run, its tables name every setting, and what is refused says why."""

from __future__ import annotations

import base64
import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from PIL import Image

DOCUMENT = (Path(__file__).resolve().parents[1] / "docs/api.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:7860"


@pytest.fixture(scope="module")
def client(page: str) -> Iterator[Client]:
    studio = Client(page, verbose=False)
    yield studio
    studio.close()


def test_the_examples_of_the_document_run(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    examples = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    assert len(examples) == 10 and ADDRESS in examples[0]
    names: dict[str, Any] = {}
    for example in examples:
        exec(compile(example.replace(ADDRESS, page), "docs/api.md", "exec"), names)
    names["model_list"] = {one["id"]: one for one in names["studio"].predict(api_name="/models")}
    names["studio"].close()
    printed = capsys.readouterr().out
    assert re.search(r"raw 7 .*\.png\noms 7 .*\.png\n", printed)
    assert "seed is -1: take 0 to 4294967295" in printed
    assert [picture["variant"] for picture in names["answer"]["images"]] == ["raw", "oms"]
    assert "brightness asked 20 %, got " in printed and "light asked left, got the left half " in printed
    several = names["several"]["images"]
    assert [(one["variant"], one["index"], one["seed"]) for one in several[3:]] == [
        ("raw", 1, 8), ("darker", 1, 8), ("brighter", 1, 8)
    ]  # fmt: skip
    for one in several:
        assert base64.b64decode(one["png"]) == Path(one["image"]).read_bytes(), "the same file"
    assert "stopped" in printed
    assert {"id": "lumen", "kind": "base", "available": True}.items() <= names["model_list"]["lumen"].items()
    with Image.open(names["light"]["image"]) as light, Image.open(names["answer"]["images"][1]["image"]) as oms:
        assert light.format == "PNG" and light.size == oms.size and "oms_studio" in oms.info


def test_every_setting_stands_in_the_document(page: str) -> None:
    with urllib.request.urlopen(f"{page}/gradio_api/info", timeout=60) as answer:
        endpoints = json.load(answer)["named_endpoints"]
    for endpoint in endpoints.values():
        for parameter in endpoint["parameters"]:
            assert re.search(rf"\b{parameter['parameter_name']}\b", DOCUMENT), parameter["parameter_name"]
            if parameter["parameter_name"] != "model":
                assert parameter["python_type"]["description"], parameter["parameter_name"]
        for answer in endpoint["returns"]:
            assert answer["type"], "typed"
    (made,) = endpoints["/generate"]["returns"]
    assert {"seed", "images", "notes"} == made["type"]["properties"].keys()
    assert "lightness" in made["type"]["properties"]["images"]["items"]["properties"]


def test_looks_and_loras_come_from_the_lists(client: Client) -> None:
    looks = {one["id"]: one for one in client.predict(api_name="/looks")}
    assert looks["night"]["suffix"] and looks["night"]["settings"]["correction"] in ("oms", "dial")
    made = client.predict(prompt="sea", look="night", num_inference_steps=2, seed=3, api_name="/generate")
    with Image.open(made["images"][1]["image"]) as picture:
        request = json.loads(picture.info["oms_studio"])["request"]
    assert request["prompt"] == "sea " + looks["night"]["suffix"]
    assert request["variants"][1]["prompt"] == looks["night"]["settings"]["prompt"]
    assert "mountains" in client.predict(api_name="/words")
    for wrong, said in (
        ({"look": "no"}, "there is no look"),
        ({"loras": ["../x"]}, "unknown LoRA '../x'"),
        ({"variants": ["nothing"]}, "choose one of raw, oms"),
        ({"variants": [{"name": "a", "correction": "oms", "module": "/etc"}]}, "unknown module '/etc'"),
        ({"variants": [{"name": "a", "correction": "oms", "evil": 1}]}, "no setting 'evil'"),
        ({"count": 99}, "count is 99: take 1 to 16"),
    ):
        with pytest.raises(AppError) as error:
            client.predict(prompt="night", api_name="/generate", **wrong)
        assert said in str(error.value) and "\n" not in str(error.value)


def test_the_preview_is_of_its_words_and_its_seed(client: Client) -> None:
    def light(**settings: Any) -> dict[str, Any]:
        return dict(client.predict(prompt="mountains", api_name="/preview", **settings))

    dark, bright = light(oms_prompt="dark", oms_guidance_scale=2.0), light(oms_prompt="light", oms_guidance_scale=2.0)
    mixed = light(oms_prompt="dark", oms_prompt_b="light", oms_mix=1.0, oms_guidance_scale=2.0)
    assert dark["lightness"] != bright["lightness"] == mixed["lightness"]
    assert light(seed=3)["seed"] == 3


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"seed": -1}, "seed is -1: take 0 to 4294967295"),
        ({"model": "/etc"}, "unknown model '/etc'"),
        ({"prompt": " "}, "the prompt is empty"),
        ({"oms_guidance_scale": 99.0}, "oms_guidance_scale is 99.0: take 0 to 30"),
        ({"oms_mix": 0.5}, "no second OMS prompt"),
        ({"width": 100_000}, "width is 100000"),
    ],
)
def test_the_preview_refuses_bad_input_in_one_line(client: Client, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(AppError) as error:
        client.predict(**{"prompt": "night"} | settings, api_name="/preview")
    assert said in str(error.value) and "\n" not in str(error.value)
