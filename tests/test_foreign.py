"""Settings in pictures of other programs, and what a hostile one may not do."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from foreign_samples import NEGATIVE, PROMPT, SAMPLES, exif, graph, png
from PIL import Image

from oms_app import GenerateRequest, GenerateResult, StudioError, Variant
from oms_app.engine.picture_settings import read_picture
from oms_app.engine.service import StudioService
from oms_app.output.foreign import ForeignSettings, read_foreign, split_parameters
from oms_app.output.png import save
from oms_app.schema import ImageResult, ImageStats, Seconds

# seed, steps, CFG, width, height, scheduler; model, its hash, LoRAs; and words of what is not restored
EXPECTED: dict[str, tuple[tuple[Any, ...], tuple[str, str, list[tuple[str, float]]], tuple[str, ...]]] = {
    "a1111": (
        (1234567890, 28, 6.5, 512, 768, "dpm++2m"),
        ("v1-5-pruned-emaonly", "6ce0161689", [("film grain", 0.7)]),
        ("noise schedule Karras", "Clip skip 2", "VAE vae-ft-mse.safetensors"),
    ),
    "forge": (
        (7, 20, 7.0, 896, 1152, "euler-a"),
        ("sdxl", "bdb59bac77", []),
        ("Distilled CFG Scale 3.5", "Denoising strength 0.4", "Hires prompt a fox, big: yes", "Module 1 vae"),
    ),
    "sd_next": ((55, 20, 6.0, 640, 640, "unipc"), ("dreamshaper_8", "9d40847d", []), ()),
    "a1111_jpeg": ((1234567890, 28, 6.5, 512, 768, "dpm++2m"), ("", "", []), ("noise schedule Karras",)),
    "a1111_webp": ((1234567890, 28, 6.5, 512, 768, "dpm++2m"), ("", "", []), ("noise schedule Karras",)),
    "comfyui": (
        (4321, 25, 8.0, 768, 512, "euler-a"),
        ("SD1.5/realistic.safetensors", "", [("detail.safetensors", 0.8)]),
        ("all samplers but the first",),
    ),
    "comfyui_webp": (
        (4321, 25, 8.0, 768, 512, "euler-a"),
        ("SD1.5/realistic.safetensors", "", [("detail.safetensors", 0.8)]),
        ("all samplers but the first",),
    ),
    "comfyui_custom": ((4321, 25, 5.0, 768, 512, "euler"), ("unet.safetensors", "", []), ()),
    "comfyui_workflow": ((4321, 25, 8.0, 768, 512, "euler"), ("realistic.safetensors", "", []), ()),
    "invokeai": (
        (4321, 30, 7.5, 768, 512, "euler-a"),
        ("Deliberate", "blake3:af58", [("detail", 0.6)]),
        ("controlnets",),
    ),
    "invokeai_2": ((43, 30, 7.5, 768, 512, "euler-a"), ("sd-1.5", "cc6c", []), ()),
    "dream": ((43, 30, 7.5, 768, 512, "euler-a"), ("", "", []), ()),
    "fooocus": (
        (4321, 30, 4.0, 1152, 896, None),
        ("juggernautXL_v8", "aeb7e9e6", [("offset.safetensors", 0.1)]),
        ("sampler dpmpp_2m_sde_gpu", "noise schedule karras", "styles ['Fooocus V2']", "performance Speed"),
    ),
    "swarm": ((4321, 20, 7.0, 768, 512, "euler"), ("OfficialStableDiffusion/sd", "", [("detail", 0.5)]), ()),
}
NAMES = ("seed", "num_inference_steps", "guidance_scale", "width", "height", "scheduler")


@pytest.mark.parametrize("name", SAMPLES)
def test_every_program_is_read_and_what_is_not_restored_is_named(tmp_path: Path, name: str) -> None:
    found = read_foreign(SAMPLES[name](tmp_path / "picture.png"))
    settings, (model, model_hash, loras), unread = EXPECTED[name]
    assert tuple(found.settings.get(one) for one in NAMES) == settings
    prompts = ("a fox at dusk", "blurry") if name in ("invokeai_2", "dream") else (PROMPT, NEGATIVE)
    assert (found.settings["prompt"], found.settings["negative_prompt"]) == prompts
    assert (found.model, found.model_hash, found.loras) == (model, model_hash, loras)
    said = "; ".join(found.unread)
    assert all(words in said for words in unread) and bool(unread) == bool(found.unread), said


def test_sd_parsers_reads_the_same_and_our_pictures(tmp_path: Path) -> None:
    """It does not follow a prompt into another node of ComfyUI, nor read the tags of ComfyUI in WebP files."""
    sd_parsers = pytest.importorskip("sd_parsers")
    for name in ("a1111", "sd_next", "invokeai", "fooocus"):
        path = SAMPLES[name](tmp_path / f"{name}.png")
        theirs, ours = sd_parsers.ParserManager().parse(str(path)), read_foreign(path)
        (sampler,) = theirs.samplers
        assert ours.settings["prompt"] in sampler.prompts[0].value and str(ours.settings["seed"]) in str(sampler), name
    request = GenerateRequest(
        prompt="un café, 夜: two", negative_prompt="snow, fog", seed=5, num_inference_steps=20, guidance_scale=5.0,
        scheduler="euler-a", width=64, height=64,
        variants=(Variant(name="oms", correction="oms", prompt="dark, a: b"),),
    )  # fmt: skip
    stats = ImageStats(mean=0, lightness=0, p1=0, p99=0, a=0, b=0, histogram=(0,) * 64)
    image = ImageResult(variant="oms", index=0, seed=5, image=Image.new("RGB", (8, 8)), stats=stats)
    path = png_of(GenerateResult(request=request, seed=5, images=(image,), seconds=NO_TIME), tmp_path)
    (sampler,) = sd_parsers.ParserManager().parse(str(path)).samplers
    assert (sampler.name, sampler.prompts[0].value, sampler.negative_prompts[0].value) == (
        "Euler a", "un café, 夜: two", "snow, fog"
    )  # fmt: skip
    assert {"steps": "20", "cfg_scale": "5.0", "seed": "5"}.items() <= sampler.parameters.items()
    assert sampler.model.name == "lumen"


NO_TIME = Seconds(**dict.fromkeys(Seconds.model_fields, 0.0))


def png_of(result: GenerateResult, folder: Path) -> Path:
    path = save(result, folder).images[0].path
    assert path is not None
    return path


def test_models_come_from_the_catalogue_only(late: StudioService, tmp_path: Path) -> None:
    line = "Steps: 3, Sampler: DDIM, CFG scale: 3, Seed: 1, Size: 64x64, "
    for named, got in (("lumen", "lumen"), ("LUMEN.safetensors", "lumen"), ("/etc/passwd", None), ("lumen-oms", None)):
        path = png(tmp_path / "a.png", parameters=f"sea <lora:../x:1>\n{line}Model hash: ab, Model: {named}")
        found = read_picture(path, late.models())
        assert found.fields.get("model") == got and found.fields["loras"] == ()
        assert ("model" in found.note) == (got is None) and "LoRA ../x" in found.note and "\n" not in found.note
    assert "hash ab" in found.note and "the picture will not be the same" in found.note


@pytest.mark.parametrize(
    ("text", "prompt", "negative", "pairs"),
    [
        ("Steps: 1, Seed: 2", "", "", {"Steps": "1", "Seed": "2"}),
        ("a\nNegative prompt: b Steps: 9, Seed: 4", "a", "b", {"Steps": "9", "Seed": "4"}),
        ("a: b, c\nSteps: 5, Seed: 1, X: \"q, Seed: 9\", Size: 8x8, ", "a: b, c", "", {"Seed": "1", "Size": "8x8"}),
        ('a\nSteps: 5, Seed: 1, X: "never ends, Y: 2', "a", "", {"Y": "2"}),
        ("a\r\nNegative prompt: b\r\nc\r\nSteps: 5, Seed: 1", "a", "b\nc", {"Steps": "5"}),
    ],
)  # fmt: skip
def test_odd_parameters(text: str, prompt: str, negative: str, pairs: dict[str, str]) -> None:
    got = split_parameters(text)
    assert got[:2] == (prompt, negative) and pairs.items() <= got[2].items()


def test_values_out_of_range_are_named_not_taken(tmp_path: Path) -> None:
    text = "sea\nSteps: 9000, Sampler: Magic, CFG scale: nan, Seed: -1, Size: 100x99999"
    found = read_foreign(png(tmp_path / "a.png", parameters=text))
    assert found.settings == {"prompt": "sea"}
    said = "; ".join(found.unread)
    for words in ("Steps 9000 (take 1 to 200)", "sampler Magic", "CFG", "Seed -1", "Width 100", "Height 99999"):
        assert words in said
    nodes = graph()
    nodes["3"]["inputs"]["seed"] = 1102676403634909
    found = read_foreign(png(tmp_path / "b.png", prompt=json.dumps(nodes)))
    assert "seed" not in found.settings and "Seed 1102676403634909 (take 0 to 4294967295)" in found.unread


CYCLE = {
    "1": {"class_type": "KSampler", "inputs": {"positive": ["2", 0], "latent_image": ["1", 0], "seed": ["3", 0]}},
    "2": {"class_type": "ConditioningCombine", "inputs": {"a": ["2", 0], "b": ["1", 0]}},
    "3": {"class_type": "Primitive", "inputs": {"value": ["3", 0]}},
}
WIDE = {str(i): {"class_type": "KSampler", "inputs": {f"i{k}": [str(k), 0] for k in range(60)}} for i in range(6_000)}


@pytest.mark.parametrize(
    "texts",
    [
        {"prompt": "[" * 100_000},
        {"prompt": "{}"},
        {"prompt": "[]"},
        {"prompt": '{"1": {"class_type": "KSampler", "inputs": 5}}'},
        {"prompt": json.dumps(CYCLE)},
        {"prompt": json.dumps(WIDE)},
        {"workflow": '{"nodes": [{"id": 1, "type": "KSampler", "inputs": [5]}, 7], "links": [[1], "x"]}'},
        {"parameters": "no settings at all"},
        {"parameters": "Steps: " * 50_000},
        {"parameters": "<lora:" * 50_000 + "\nSteps: 1, Seed: 1"},
        {"parameters": '{"sui_image_params": []}'},
        {"parameters": '{"prompt": {"a": 1}, "loras": [[]]}'},
        {"invokeai_metadata": "null"},
        {"invokeai_metadata": '{"model": "text", "loras": {"a": 1}}'},
        {"sd-metadata": '{"image": [1]}'},
        {"Dream": '"never closed'},
        {"Dream": ""},
    ],
    ids=range(17),
)
def test_hostile_texts_end_in_one_line_and_at_once(tmp_path: Path, texts: dict[str, str]) -> None:
    path = png(tmp_path / "a.png", **texts)
    began = time.process_time()  # of this process: other programs may run beside it
    try:
        found = read_foreign(path)
    except StudioError as error:
        assert "\n" not in str(error) and len(str(error)) < 300
    else:
        assert isinstance(found, ForeignSettings) and len(found.loras) <= 16
    assert time.process_time() - began < 2.0


def test_files_that_are_no_pictures_are_refused(tmp_path: Path) -> None:
    plain = exif(tmp_path / "plain.jpg", "JPEG")
    with pytest.raises(StudioError, match="contains no settings"):
        read_foreign(plain)
    for content in (b"", b"hello", plain.read_bytes()[:20], b"\x89PNG\r\n\x1a\n" + b"\xff" * 100):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(StudioError, match="cannot be read as a picture"):
            read_foreign(tmp_path / "x")
