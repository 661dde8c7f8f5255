"""Settings written to PNG files and read back, and what a hostile picture may not do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from oms_app import GenerateRequest, GenerateResult, StudioError, Variant
from oms_app.output import png
from oms_app.schema import RAW, ImageResult, ImageStats, Lora, Seconds

STATS = ImageStats(mean=0, lightness=0, p1=0, p99=0, a=0, b=0, histogram=(0,) * 64)
SLIDER = Variant(name="oms 2", correction="oms", prompt="dark\nnight", prompt_b="light", mix=0.25, module="lumen-oms")
REQUEST = GenerateRequest(
    prompt="un café, 夜", negative_prompt="snow", seed=5, count=1, variants=(RAW, SLIDER), num_inference_steps=20,
    guidance_scale=5.0, scheduler="euler-a", width=64, height=64,
)  # fmt: skip
KNOWN = {"lumen", "lumen-oms"}


def result(request: GenerateRequest = REQUEST) -> GenerateResult:
    images = tuple(
        ImageResult(variant=v.name, index=0, seed=5, image=Image.new("RGB", (8, 8), (9, 8, 7)), stats=STATS)
        for v in request.variants
    )
    seconds = Seconds(load=0, encode=0, correct=0, denoise=0, decode=0, total=0)
    return GenerateResult(request=request, seed=5, images=images, seconds=seconds)


def test_a_picture_restores_its_request(tmp_path: Path) -> None:
    saved = png.save(result(), tmp_path / "a/b")
    for image in saved.images:
        assert image.path is not None
        restored = png.read(image.path, KNOWN)
        assert (restored.request, restored.variant, restored.index) == (REQUEST, image.variant, 0)
        with Image.open(image.path) as picture:
            assert picture.getpixel((0, 0)) == (9, 8, 7)
            lines = picture.info["parameters"].splitlines()
        assert lines[0] == "un café, 夜"
        assert lines[1] == "Negative prompt: snow"
        assert lines[2].startswith("Steps: 20, Sampler: Euler a, CFG scale: 5.0, Seed: 5, Size: 64x64, Model: lumen")
        assert len(lines) == 3  # a line break in the OMS prompt stays inside its quotes
    assert lines[2].endswith(
        r'Correction: oms, OMS prompt: "dark\nnight", OMS prompt B: "light", OMS mix: 0.25, OMS CFG: 1.0'
    )


@pytest.mark.parametrize(
    ("variant", "text"),
    [
        (RAW, "raw"),
        (Variant(name="raw", prompt="dark"), "raw"),  # a variant that is switched off may keep its settings
        (Variant(name="oms", correction="oms"), 'oms, OMS prompt: "dark hills", OMS CFG: 1.0'),
        (
            Variant(name="offset", correction="offset_noise", offset_strength=0.4),
            "offset_noise, Offset strength: 0.4, Offset per: channel",
        ),
        (Variant(name="leak", correction="signal_leak"), "signal_leak"),
    ],
    ids=lambda value: value.name if isinstance(value, Variant) else "",
)
def test_the_text_names_the_settings_that_were_used(tmp_path: Path, variant: Variant, text: str) -> None:
    path = (
        png.save(result(REQUEST.model_copy(update={"prompt": "dark hills", "variants": (variant,)})), tmp_path)
        .images[0]
        .path
    )
    assert path is not None
    with Image.open(path) as picture:
        line = picture.info["parameters"].splitlines()[2]
    assert line.split("Model: lumen, ")[1] == f"Correction: {text}"


def test_no_picture_is_overwritten_and_nothing_else_is_left(tmp_path: Path) -> None:
    paths = [image.path for _ in range(3) for image in png.save(result(), tmp_path).images]
    assert len(set(paths)) == 6
    assert {path for path in tmp_path.iterdir()} == set(paths)


def test_the_path_of_a_local_model_is_not_written(tmp_path: Path) -> None:
    request = REQUEST.model_copy(update={"model": "/home/someone/models/secret"})
    path = png.save(result(request), tmp_path).images[0].path
    assert path is not None
    assert b"someone" not in path.read_bytes()


def hostile(tmp_path: Path, chunk: Any) -> Path:
    info = PngInfo()
    info.add_itxt("oms_studio", chunk if isinstance(chunk, str) else json.dumps(chunk))
    path = tmp_path / "hostile.png"
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    return path


def chunk_with(**changes: Any) -> dict[str, Any]:
    request = json.loads(REQUEST.model_dump_json()) | changes
    return {"version": 1, "request": request, "variant": "raw", "index": 0}


@pytest.mark.parametrize(
    ("chunk", "message"),
    [
        (chunk_with(model="/etc/passwd"), "not in the catalogue"),
        (
            chunk_with(variants=[{"name": "o", "correction": "oms", "module": "../x"}]) | {"variant": "o"},
            "not in the cat",
        ),
        (chunk_with(seed=-1), "take 0 to 4294967295"),
        (chunk_with(num_inference_steps=10**9), "take 1 to 200"),
        (chunk_with(prompt="x" * 9_999), "2,000"),
        (chunk_with(evil=1), "not valid"),
        (chunk_with() | {"version": 99}, "version 99"),
        ("[" * 100_000, "damaged"),
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"version": 1}', "damaged"),
        (chunk_with(prompt="x" * 300_000), "damaged"),
        (chunk_with() | {"index": 10**9}, "the index is 1000000000, of 1 pictures"),
        (chunk_with() | {"index": -1}, "not valid"),
        (chunk_with() | {"variant": "dial"}, "'dial' is none of the request's"),
    ],
    ids=range(15),
)
def test_settings_in_a_picture_are_validated(tmp_path: Path, chunk: Any, message: str) -> None:
    with pytest.raises(StudioError, match=message) as caught:
        png.read(hostile(tmp_path, chunk), KNOWN)
    assert "\n" not in str(caught.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    plain = tmp_path / "plain.png"
    Image.new("RGB", (8, 8)).save(plain)
    with pytest.raises(StudioError, match="contains no settings"):
        png.read(plain, KNOWN)
    for name, content in (("text.png", b"hello"), ("cut.png", plain.read_bytes()[:50]), ("empty.png", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(StudioError, match="choose a picture that OMS Studio saved"):
            png.read(tmp_path / name, KNOWN)
    Image.new("RGB", (8, 8)).save(tmp_path / "picture.jpg")
    with pytest.raises(StudioError, match="cannot be read as a PNG"):
        png.read(tmp_path / "picture.jpg", KNOWN)


def test_a_lora_is_named_without_its_folder(tmp_path: Path) -> None:
    private = (
        Lora(id="/home/jane/private/style.safetensors", scale=0.8),
        Lora(id=r"C:\Users\jane\other.v2.safetensors"),
        Lora(id="/home/jane/loras/night/adapter_model.safetensors"),  # as PEFT names every file
    )
    request = GenerateRequest(prompt="sea", negative_prompt="fog", seed=1, variants=(RAW,), loras=private)
    stats = ImageStats(mean=0, lightness=0, p1=0, p99=0, a=0, b=0, histogram=(0,) * 64)
    image = ImageResult(variant="raw", index=0, seed=1, image=Image.new("RGB", (8, 8)), stats=stats)
    assert png.a1111_text(request, image).splitlines()[:2] == [
        "sea <lora:style:0.8> <lora:other.v2:1> <lora:night:1>",
        "Negative prompt: fog",
    ]
    assert "jane" not in png.settings_json(request, image) and "style.safetensors" in png.settings_json(request, image)
    result = GenerateResult(
        request=request, seed=1, images=(image,), seconds=Seconds(**dict.fromkeys(Seconds.model_fields, 0.0))
    )
    path = png.save(result, tmp_path).images[0].path
    assert path is not None
    with pytest.raises(StudioError, match="not in the catalogue"):
        png.read(path, ["lumen"])
    assert png.read(path, ["lumen", "style.safetensors", "other.v2.safetensors", "night"]).request.loras[0].scale == 0.8
