"""LoRAs: both key formats do what their formula says, and nothing of one reaches another request."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file

from oms_app import GenerateRequest, Studio, StudioError
from oms_app.models.lora import fuse_loras
from oms_app.schema import Lora

RANK, ALPHA = 2, 1.0
UNET = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
TEXT = ("encoder.layers.0.self_attn.q_proj", "encoder.layers.0.self_attn.out_proj")


def factors(pipeline: StableDiffusionPipeline, seed: int = 0) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Module → (A, B), (rank, in) and (out, rank), large enough to be seen."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for part, name in (("unet", UNET), *(("text_encoder", name) for name in TEXT)):
        out, into = getattr(pipeline, part).get_submodule(name).weight.shape
        shapes = ((RANK, into), (out, RANK))
        made[f"{part}.{name}"] = tuple(torch.randn(shape, generator=generator) for shape in shapes)
    return made  # type: ignore[return-value]


def peft_file(path: Path, made: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> Path:
    """α/r is 1 in this format, unless its metadata say otherwise."""
    tensors: dict[str, torch.Tensor] = {}
    for module, (a, b) in made.items():
        named = module.replace("text_encoder.", "text_encoder.text_model.")
        tensors |= {f"{named}.lora_A.weight": a, f"{named}.lora_B.weight": b * ALPHA / RANK}
    save_file(tensors, path)
    return path


def kohya_file(path: Path, made: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> Path:
    tensors: dict[str, torch.Tensor] = {}
    for module, (a, b) in made.items():
        part, name = module.split(".", 1)
        prefix = "lora_unet_" if part == "unet" else "lora_te_text_model_"
        stem = prefix + name.replace(".", "_")
        tensors |= {f"{stem}.lora_down.weight": a, f"{stem}.lora_up.weight": b, f"{stem}.alpha": torch.tensor(ALPHA)}
    save_file(tensors, path)
    return path


@pytest.fixture
def made(lumen: Path) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    return factors(StableDiffusionPipeline.from_pretrained(lumen, local_files_only=True))


@pytest.mark.parametrize("write", [peft_file, kohya_file])
def test_the_weights_become_what_the_formula_says(lumen: Path, tmp_path: Path, made, write) -> None:  # type: ignore[no-untyped-def]
    pipeline = StableDiffusionPipeline.from_pretrained(lumen, local_files_only=True)
    parts = {part: getattr(pipeline, part) for part in ("unet", "text_encoder")}
    before = {part: {k: v.clone() for k, v in model.state_dict().items()} for part, model in parts.items()}
    fuse_loras(pipeline, [(write(tmp_path / "a.safetensors", made), 0.5)])
    for part, kept in before.items():
        after = getattr(pipeline, part).state_dict()
        assert after.keys() == kept.keys()
        for name, value in kept.items():
            module = f"{part}.{name.removesuffix('.weight')}"
            a, b = made.get(module, (torch.zeros(1, 1), torch.zeros(1, 1)))
            expected = value + 0.5 * ALPHA / RANK * (b @ a) if module in made else value
            torch.testing.assert_close(after[name], expected, msg=name)


def picture(studio: Studio, *loras: Lora) -> list[np.ndarray]:
    request = GenerateRequest(prompt="mountains at night", seed=3, loras=loras)
    return [np.asarray(image.image, int) for image in studio.generate(request).images]


def test_a_lora_never_leaks_into_another_request(studio: Studio, tmp_path: Path, made) -> None:  # type: ignore[no-untyped-def]
    file = str(kohya_file(tmp_path / "style.safetensors", made))
    plain = picture(studio)
    styled = picture(studio, Lora(id=file, scale=1.0))
    assert all(np.abs(a - b).max() > 2 for a, b in zip(plain, styled, strict=True))
    half = picture(studio, Lora(id=file, scale=0.5))
    assert np.abs(half[0] - styled[0]).max() > 1
    studio.forget()
    assert all(np.array_equal(a, b) for a, b in zip(plain, picture(studio), strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(styled, picture(studio, Lora(id=file)), strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(plain, picture(studio, Lora(id=file, scale=0)), strict=True))
    both = picture(studio, Lora(id=file, scale=0.5), Lora(id=file, scale=0.5))
    assert np.abs(both[0] - styled[0]).max() <= 1  # they add up


def test_what_is_no_fitting_lora_is_refused(studio: Studio, tmp_path: Path, made) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "b.safetensors"

    def refusal(tensors: dict[str, torch.Tensor]) -> str:
        save_file(tensors, path)
        with pytest.raises(StudioError) as caught:
            picture(studio, Lora(id=str(path)))
        return str(caught.value)

    wide = {f"unet.{UNET}.lora_A.weight": torch.zeros(2, 999), f"unet.{UNET}.lora_B.weight": torch.zeros(999, 2)}
    assert "does not fit" in refusal(wide)
    nowhere = "unet.nowhere.to_k.lora_"
    elsewhere = {f"{nowhere}A.weight": torch.zeros(2, 32), f"{nowhere}B.weight": torch.zeros(32, 2)}
    assert "this base model" in refusal(elsewhere)
    assert "is not a LoRA" in refusal({"weight": torch.zeros(3)})
    nan = {f"unet.{UNET}.lora_A.weight": torch.full((2, 32), float("nan"))}
    assert "not finite" in refusal(nan)
    path.write_bytes(b"\0" * 100)
    with pytest.raises(StudioError, match="cannot be read as safetensors"):
        picture(studio, Lora(id=str(path)))
    with pytest.raises(StudioError, match="pickle"):
        picture(studio, Lora(id=str(tmp_path / "c.ckpt")))
    with pytest.raises(StudioError, match="unknown LoRA 'nope'"):
        picture(studio, Lora(id="nope"))
