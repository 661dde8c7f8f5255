"""Single files in Stable Diffusion's original layout: the same pictures as the folder's, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from dev.full_size.ldm import open_clip_text, to_single_file
from oms_app import GenerateRequest, Studio, StudioError, Variant
from oms_app.models import single_file
from oms_app.models.file_kinds import FIRST_CONVOLUTION
from oms_app.models.tokenizers import clip_tokenizer
from oms_app.paths import EMBEDDED_FOLDER, PRESETS

RAW = (Variant(name="raw"),)


@pytest.fixture(scope="module")
def configs(lumen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Configurations of tiny families: the tiny base's own, and one whose text encoder is OpenCLIP's kind."""
    folder = tmp_path_factory.mktemp("configs")
    for family in ("sd15", "sd21"):
        weights = shutil.ignore_patterns("*.safetensors", "oms", "singdiffusion", "signal_leak")
        shutil.copytree(lumen, folder / family, ignore=weights)
    path = folder / "sd21/text_encoder/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"hidden_act": "gelu"}))
    return folder


@pytest.fixture(autouse=True)
def _tiny_families(configs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(single_file, "CONFIGS", configs)
    monkeypatch.setattr("oms_app.models.catalog.NATIVE", {"sd15": 64, "sd21": 64})
    yield


def make_folder(lumen: Path, family: str, where: Path) -> Path:
    folder = where / family
    shutil.copytree(lumen, folder, ignore=shutil.ignore_patterns("oms", "singdiffusion", "signal_leak"))
    if family == "sd21":
        path = folder / "text_encoder/config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"hidden_act": "gelu"}))
        path = folder / "scheduler/scheduler_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"prediction_type": "v_prediction"}))
    return folder


def make_file(folder: Path, family: str) -> Path:
    pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    path = folder.parent / f"My {family} model.safetensors"
    save_file(to_single_file(pipeline, family), path)
    return path


@pytest.mark.parametrize("family", ["sd15", "sd21"])
def test_a_single_file_paints_as_its_folder_does(studio: Studio, lumen: Path, tmp_path: Path, family: str) -> None:
    folder = make_folder(lumen, family, tmp_path)
    file = make_file(folder, family)
    assert single_file.family_of(file) == family
    settings = {"prompt": "mountains at night", "seed": 3, "num_inference_steps": 4, "guidance_scale": 5.0}
    pictures = []
    for model in (folder, file):
        request = GenerateRequest(model=str(model), width=64, height=64, scheduler="ddim", **settings)
        pictures.append([np.asarray(image.image, int) for image in studio.generate(request).images])
    assert len(pictures[0]) == len(pictures[1]) == 2  # raw and OMS: the latent domain is told by the encoder
    for of_folder, of_file in zip(*pictures, strict=True):
        assert np.abs(of_folder - of_file).max() <= 1
    assert studio.inspect(str(file))["model"] == f"my-{family}-model"


def refusal(studio: Studio, path: Path) -> str:
    with pytest.raises(StudioError) as caught:
        studio.generate(GenerateRequest(prompt="sea", model=str(path), variants=RAW, seed=1, num_inference_steps=1))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_no_whole_checkpoint_is_refused(studio: Studio, lumen: Path, tmp_path: Path) -> None:
    whole = load_file(make_file(make_folder(lumen, "sd15", tmp_path), "sd15"))
    path = tmp_path / "other.safetensors"

    def saved(tensors: dict[str, torch.Tensor]) -> Path:
        save_file(tensors, path)
        return path

    def without(prefix: str) -> dict[str, torch.Tensor]:
        return {name: value for name, value in whole.items() if not name.startswith(prefix)}

    wide = whole | {FIRST_CONVOLUTION: torch.zeros(16, 9, 3, 3)}
    assert "inpainting" in refusal(studio, saved(wide))
    assert "refiner" in refusal(studio, saved(whole | {"conditioner.embedders.0.model.x": torch.zeros(1)}))
    assert "EDM" in refusal(studio, saved(whole | {"edm_mean": torch.zeros(1)}))
    assert "without a text encoder" in refusal(studio, saved(without("cond_stage_model.")))
    assert "no UNet" in refusal(studio, saved(without("model.diffusion_model.")))
    assert "is a LoRA" in refusal(studio, saved({"lora_unet_x.lora_up.weight": torch.zeros(2, 2)}))
    short = dict(whole)
    short.pop("model.diffusion_model.out.2.weight")
    assert "download it again" in refusal(studio, saved(short))
    misshapen = whole | {"model.diffusion_model.out.2.weight": torch.zeros(3, 3)}
    assert "download it again" in refusal(studio, saved(misshapen))
    saved(whole)
    path.write_bytes(path.read_bytes()[:5000])
    assert "cannot be read as safetensors" in refusal(studio, path)
    path.write_bytes(b"")
    assert "cannot be read as safetensors" in refusal(studio, path)
    path.unlink()
    assert "unknown model" in refusal(studio, path)


def test_a_checkpoint_of_nan_is_refused(studio: Studio, lumen: Path, tmp_path: Path) -> None:
    path = make_file(make_folder(lumen, "sd15", tmp_path), "sd15")
    tensors = load_file(path)
    tensors["model.diffusion_model.out.2.bias"][:] = float("nan")
    save_file(tensors, path)
    assert "not finite" in refusal(studio, path)


def test_the_prediction_is_told_by_what_the_unet_answers_to_noise() -> None:
    unet = UNet2DConditionModel.from_pretrained(EMBEDDED_FOLDER / "unet").float().eval()
    assert single_file.prediction_type(unet) == "epsilon"
    with torch.no_grad():
        for parameter in unet.conv_out.parameters():
            parameter.mul_(0).add_(0.01 * torch.randn_like(parameter))
    assert single_file.prediction_type(unet) == "v_prediction"


def test_the_tokenizer_is_clips() -> None:
    tokenizer = clip_tokenizer()
    assert len(tokenizer) == 49_408
    ids = tokenizer("a photo of a cat", padding="max_length", max_length=77).input_ids
    assert ids[:7] == [49406, 320, 1125, 539, 320, 2368, 49407] and set(ids[7:]) == {49407}
    from open_clip.tokenizer import SimpleTokenizer

    padded = clip_tokenizer(zero_padded=True)
    for text in ("a photo of a cat", "Mountains, at NIGHT!", "über 3 größe"):
        ours = padded(text, padding="max_length", max_length=77).input_ids
        assert ours == SimpleTokenizer()([text])[0].tolist()


def test_transformers_reads_openclips_weights_as_open_clip_does() -> None:
    """SD 2.x and the published OMS modules: the penultimate layer, then ln_final."""
    import open_clip
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    shape = {"vocab_size": 100, "max_position_embeddings": 16, "hidden_size": 32, "num_attention_heads": 4}
    ours = CLIPTextModel(
        CLIPTextConfig(**shape, intermediate_size=128, num_hidden_layers=3, hidden_act="gelu", pad_token_id=0)
    ).eval()
    theirs = open_clip.CLIP(
        embed_dim=32,
        vision_cfg={"image_size": 8, "patch_size": 8, "width": 8, "layers": 1, "head_width": 8},
        text_cfg={"context_length": 16, "vocab_size": 100, "width": 32, "heads": 4, "layers": 4},
    ).eval()
    loaded = theirs.load_state_dict(open_clip_text(ours, "", unread=1), strict=False)
    assert loaded.unexpected_keys == [] and all("visual" in name or "logit" in name for name in loaded.missing_keys)
    tokens = torch.randint(1, 100, (2, 16))
    with torch.no_grad():
        x = theirs.token_embedding(tokens) + theirs.positional_embedding
        for block in theirs.transformer.resblocks[:-1]:
            x = block(x, attn_mask=theirs.attn_mask)
        torch.testing.assert_close(ours(tokens).last_hidden_state, theirs.ln_final(x), atol=1e-4, rtol=1e-4)


def test_the_shipped_configurations_are_those_of_stable_diffusion() -> None:
    """Parameter counts as published: UNets of 0.86, 0.87 and 2.57 billion, CLIP's 123M, OpenCLIP's 340M and 695M."""
    from accelerate import init_empty_weights
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    sizes = {
        "sd15": (859_520_964, 123_060_480),
        "sd21": (865_910_724, 340_387_840),
        "sdxl": (2_567_463_684, 123_060_480),
    }
    for family, (unet_size, text_size) in sizes.items():
        folder = PRESETS / "configs" / family
        with init_empty_weights():
            unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder / "unet"))
            text = CLIPTextModel(CLIPTextConfig.from_pretrained(folder / "text_encoder"))
        assert sum(p.numel() for p in unet.parameters()) == unet_size
        assert sum(p.numel() for p in text.parameters()) == text_size
    with init_empty_weights():
        second = CLIPTextModelWithProjection(CLIPTextConfig.from_pretrained(folder / "text_encoder_2"))
    assert sum(p.numel() for p in second.parameters()) == 694_659_840
