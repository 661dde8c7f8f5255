"""The dial on what bases there are: LoRAs, SDXL, a base without a module, v-prediction, and every memory mode."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from standin import StandIn
from test_devices import DEVICE, MODES, paint
from test_devices import make_lora as device_lora
from test_dial import trained
from tiny import IMAGE, make_lora

from oms_app import GenerateRequest, Studio, Variant
from oms_app.prestep.dial import Steering
from oms_app.schema import RAW, Lora

BRIGHT = Variant(name="bright", correction="dial", luminance=65.0)
DARK = Variant(name="dark", correction="dial", luminance=35.0)
BLUE = Variant(name="blue", correction="dial", tint="#4060a0", light="left")
DIALS = (BRIGHT, DARK, BLUE)


def asked(model: str, **settings: object) -> GenerateRequest:
    """Eight steps; a tiny model's pictures of 64 pixels."""
    return GenerateRequest(
        prompt="sea", model=model, seed=3, variants=(RAW, *DIALS), num_inference_steps=8, width=IMAGE, height=IMAGE,
        **settings,
    )  # fmt: skip


def pictures(studio: Studio, request: GenerateRequest) -> dict[str, np.ndarray]:
    studio.forget()
    return {image.variant: np.asarray(image.image, int) for image in studio.generate(request).images}


def held(studio: Studio, request: GenerateRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """The request's pictures. Asserts that feedback changes those of the dials, and raw not by a bit."""
    with_feedback = pictures(studio, request)
    with monkeypatch.context() as patched:
        patched.setattr(Steering, "observes", lambda *_: False)
        without = pictures(studio, request)
    assert np.array_equal(with_feedback["raw"], without["raw"])
    assert all(not np.array_equal(with_feedback[dial.name], without[dial.name]) for dial in DIALS)
    return with_feedback


def test_the_noise_keeps_its_mean_if_asked(studio: Studio) -> None:
    def means(seed: int, **settings: object) -> np.ndarray:
        variants = tuple(
            Variant(name=str(centre), correction="dial", centre_noise=centre, **settings) for centre in (True, False)
        )
        request = asked("lumen").model_copy(update={"variants": variants, "seed": seed})
        return np.stack([image.mean((0, 1)) for image in pictures(studio, request).values()])

    centred, kept = np.stack([means(seed, luminance=50.0) for seed in range(4)]).transpose(1, 0, 2)
    assert centred.std(0).mean() < kept.std(0).mean()
    lit = means(0, light="left")
    assert np.array_equal(*lit), "without a mean the noise keeps its own anyway"


def test_with_a_lora(studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lora = Lora(id=str(make_lora(tmp_path / "style.safetensors")))
    plain = held(studio, asked("lumen"), monkeypatch)
    styled = held(studio, asked("lumen", loras=(lora,)), monkeypatch)
    assert all(np.abs(plain[name] - styled[name]).max() > 1 for name in plain)


@pytest.mark.parametrize("scheduler", ["ddim", "euler"])
def test_with_sdxl(studio: Studio, sdxl: Path, monkeypatch: pytest.MonkeyPatch, scheduler: str) -> None:
    held(studio, asked(str(sdxl), scheduler=scheduler), monkeypatch)


@pytest.mark.parametrize("scheduler", ["ddim", "euler", "dpm++2m"])
def test_with_v_prediction(studio: Studio, base: Path, monkeypatch: pytest.MonkeyPatch, scheduler: str) -> None:
    path = base / "scheduler/scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prediction_type": "v_prediction"}))
    held(studio, asked(str(base), scheduler=scheduler), monkeypatch)


def test_without_a_module_the_start_is_flat_and_feedback_does_the_rest(
    studio: Studio, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A base of another latent domain than every module's."""
    weights = base / "vae/diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["encoder.conv_out.weight"] = -tensors["encoder.conv_out.weight"]
    save_file(tensors, weights)
    assert studio.inspect(str(base))["oms_modules"] == []
    held(studio, asked(str(base)), monkeypatch)


@trained
def test_the_embedded_model_obeys_with_a_lora(embedded: Studio, tmp_path: Path) -> None:
    with embedded._store.use(embedded._resolver.base_key(embedded.catalog.find("lumen", "base"))) as loaded:
        name = next(n for n, _ in loaded.pipeline.unet.named_modules() if n.endswith("attn2.to_k"))
        out, into = loaded.pipeline.unet.get_submodule(name).weight.shape
    generator = torch.Generator().manual_seed(0)
    stem = "lora_unet_" + name.replace(".", "_")
    path = tmp_path / "style.safetensors"
    tensors = {
        f"{stem}.lora_down.weight": torch.randn((2, into), generator=generator),
        f"{stem}.lora_up.weight": torch.randn((out, 2), generator=generator),
        f"{stem}.alpha": torch.tensor(2.0),
    }
    save_file(tensors, path)
    variants = tuple(Variant(name=f"b{p}", correction="dial", luminance=p) for p in (25, 50, 70))
    request = GenerateRequest(prompt="mountains", seed=1, variants=variants)
    plain = pictures(embedded, request)
    styled = pictures(embedded, request.model_copy(update={"loras": (Lora(id=str(path)),)}))
    assert all(np.abs(plain[name] - styled[name]).max() > 5 for name in plain)
    got = [picture.mean() / 2.55 for picture in styled.values()]
    assert np.abs(np.array(got) - (25, 50, 70)).max() < 5, got


@pytest.mark.parametrize("lora", [False, True], ids=["", "lora"])
@pytest.mark.parametrize("mode", MODES)
def test_in_every_memory_mode(
    mode: str, lora: bool, device: StandIn, presets: Path, studio: Studio, tmp_path: Path
) -> None:
    loras = (Lora(id=str(device_lora(tmp_path / "style.safetensors"))),) if lora else ()
    request = asked("lumen", loras=loras)
    wanted = pictures(studio, request)
    placed = Studio(presets=presets, home=tmp_path, memory=mode)  # type: ignore[arg-type]
    assert placed.device == DEVICE
    got, _ = paint(placed, request)
    assert all(np.abs(a - b).max() <= 1 for a, b in zip(got, wanted.values(), strict=True))
    assert mode == "full" or device.bytes < 20_000, "between two requests the parts wait in main memory"


@pytest.mark.parametrize("mode", MODES)
def test_sdxl_in_every_memory_mode(
    mode: str, sdxl: Path, device: StandIn, presets: Path, studio: Studio, tmp_path: Path
) -> None:
    request = asked(str(sdxl), scheduler="euler")
    wanted = pictures(studio, request)
    got, _ = paint(Studio(presets=presets, home=tmp_path, memory=mode), request)  # type: ignore[arg-type]
    assert all(np.abs(a - b).max() <= 1 for a, b in zip(got, wanted.values(), strict=True))
    assert mode == "full" or device.bytes < 20_000


@pytest.mark.parametrize("mode", MODES)
def test_the_colour_maps_error_in_every_memory_mode(
    mode: str, device: StandIn, presets: Path, studio: Studio, tmp_path: Path
) -> None:
    """A decoder that is not the encoder's inverse has an error, and no part of it stays on the device."""
    wanted = studio.inspect("lumen")["colour_map_error"]
    assert wanted > 0.1
    placed = Studio(presets=presets, home=tmp_path, memory=mode)  # type: ignore[arg-type]
    assert placed.inspect("lumen")["colour_map_error"] == pytest.approx(wanted, abs=0.02)
    assert mode == "full" or device.bytes < 20_000
