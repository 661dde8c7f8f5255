"""Folders as they are found: variants, shards, the hub's cache, weights under any name, any class of scheduler."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DEISMultistepScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import load_file, save_file
from tiny import make_sdxl

from oms_app import StudioError
from oms_app.models import domain as domains
from oms_app.models.catalog import Catalog
from oms_app.models.folder_kinds import part_weights
from oms_app.models.folders import load_folder
from oms_app.models.loading import ModelKey
from oms_app.models.memory import size_on_disk
from oms_app.models.text import encoder_key
from oms_app.models.vae import decode_latents, encode_pictures

UNET = "unet/diffusion_pytorch_model.safetensors"


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def weights(pipeline: Any) -> dict[str, torch.Tensor]:
    parts = {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}
    return {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}


def test_every_weight_is_the_stock_pipelines(base: Path, tmp_path: Path) -> None:
    for folder, kind in ((base, StableDiffusionPipeline), (make_sdxl(tmp_path / "xl"), StableDiffusionXLPipeline)):
        wanted = weights(kind.from_pretrained(folder, local_files_only=True))
        pipeline = load_folder(folder, torch.float32)
        got = weights(pipeline)
        assert type(pipeline) is kind and got.keys() == wanted.keys()
        assert all(torch.equal(got[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("variant", ["fp16", "bf16"])
@pytest.mark.parametrize("parts", [("text_encoder",), ("vae",), ("unet", "vae", "text_encoder")])
def test_each_part_has_the_variant_that_is_there(variant: str, parts: tuple[str, ...], base: Path) -> None:
    for part in parts:
        for path in (base / part).glob("*.safetensors"):
            path.rename(path.with_name(path.name.replace(".safetensors", f".{variant}.safetensors")))
    load_folder(base, torch.float32)


@pytest.mark.parametrize("variant", ["fp16", None])
def test_shards(variant: str | None, base: Path) -> None:
    unet = UNet2DConditionModel.from_pretrained(base / "unet")
    (base / UNET).unlink()
    unet.save_pretrained(base / "unet", max_shard_size="300KB", variant=variant)
    files = sorted((base / "unet").glob("*.safetensors"))
    assert len(files) > 1
    assert size_on_disk(base).largest == sum(p.numel() for p in unet.parameters())
    load_folder(base, torch.float32)
    files[0].unlink()
    with pytest.raises(StudioError, match=rf"unet is incomplete: {len(files) - 1} of its {len(files)} files"):
        load_folder(base, torch.float32)


def test_a_part_in_both_precisions_is_read_once(base: Path) -> None:
    once = size_on_disk(base)
    shutil.copy(base / UNET, base / UNET.replace(".safetensors", ".fp16.safetensors"))
    shutil.copy(base / UNET, base / UNET.replace(".safetensors", ".non_ema.safetensors"))
    (base / "leftover").mkdir()
    shutil.copy(base / UNET, base / "leftover/model.safetensors")
    assert size_on_disk(base) == once
    (base / UNET).unlink()
    assert size_on_disk(base) == once
    load_folder(base, torch.float32)


def test_a_vae_of_2022(base: Path, presets: Path, own_home: Path) -> None:
    """Old names of its attention, no scaling_factor: 0.18215 is meant, and so Stable Diffusion's domain."""
    vae = AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4, latent_channels=4,
    )  # fmt: skip
    shutil.rmtree(base / "vae")
    vae.save_pretrained(base / "vae")
    config = json.loads((base / "vae/config.json").read_text())
    config.pop("scaling_factor")
    (base / "vae/config.json").write_text(json.dumps(config))
    path = base / "vae/diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_file(path)
    for new, name in old.items():
        tensors = {key.replace(f".{new}.", f".{name}."): value for key, value in tensors.items()}
    assert any(".query." in key for key in tensors)
    save_file(tensors, path, {"format": "pt"})
    pipeline = load_folder(base, torch.float32)
    assert pipeline.vae.config.scaling_factor == 0.18215
    assert all(torch.equal(value, pipeline.vae.state_dict()[name]) for name, value in vae.state_dict().items())
    assert Catalog(presets, home=own_home).find(str(base), "base").domain == "sd"


def test_optional_parts_that_are_named_and_absent(base: Path) -> None:
    """As a download that leaves the safety checker out."""
    edit(
        base / "model_index.json",
        safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
        feature_extractor=["transformers", "CLIPFeatureExtractor"],
        image_encoder=["transformers", "CLIPVisionModelWithProjection"],
    )
    assert load_folder(base, torch.float32).safety_checker is None
    (base / "safety_checker").mkdir()
    (base / "safety_checker/config.json").write_text("{}")
    assert load_folder(base, torch.float32).safety_checker is None


def test_a_scheduler_of_any_class(base: Path) -> None:
    scheduler = DEISMultistepScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    scheduler.save_pretrained(base / "scheduler")
    edit(base / "model_index.json", scheduler=["diffusers", "DEISMultistepScheduler"])
    assert type(load_folder(base, torch.float32).scheduler) is DEISMultistepScheduler
    edit(base / "model_index.json", scheduler=["diffusers", "FutureScheduler"])
    with pytest.raises(StudioError, match="the scheduler is a FutureScheduler, which diffusers does not have"):
        load_folder(base, torch.float32)


def test_the_hubs_cache(base: Path, presets: Path, own_home: Path, tmp_path: Path) -> None:
    repository = tmp_path / "hub/models--someone--dreamy"
    snapshots = repository / "snapshots"
    shutil.copytree(base, snapshots / "0123")
    shutil.copytree(base, snapshots / "4567")
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("4567")
    blobs = repository / "blobs"
    blobs.mkdir()
    save_file({"lora_unet_x.lora_down.weight": torch.zeros(2, 2)}, blobs / "abcdef")
    (snapshots / "4567/Style v1.5.safetensors").symlink_to("../../blobs/abcdef")
    catalog = Catalog(presets, home=own_home)
    entry = catalog.find(str(repository), "base")
    assert Path(entry.folder) == snapshots / "4567"
    load_folder(Path(entry.folder), torch.float32)
    lora = catalog.lora(str(snapshots / "4567/Style v1.5.safetensors"))
    assert lora.name == "Style v1.5.safetensors", "the link's own name, not the blob's"


def test_endings_and_names_in_any_case_and_script(presets: Path, own_home: Path, tmp_path: Path) -> None:
    catalog = Catalog(presets, home=own_home)
    for name in ("Style.SAFETENSORS", "画像 α.SafeTensors", "a:b c.d.safetensors"):
        save_file({"lora_unet_x.lora_down.weight": torch.zeros(2, 2)}, tmp_path / name)
        assert catalog.lora(str(tmp_path / name)) == tmp_path / name


def test_a_tokenizer_without_a_length_takes_its_encoders(base: Path) -> None:
    path = base / "tokenizer/tokenizer_config.json"
    config = json.loads(path.read_text())
    config.pop("model_max_length", None)
    path.write_text(json.dumps(config))
    pipeline = load_folder(base, torch.float32)
    assert pipeline.tokenizer.model_max_length == pipeline.text_encoder.config.max_position_embeddings


def test_a_whole_file_beside_some_shards_is_read(base: Path) -> None:
    """An interrupted download of the sharded files leaves the whole one as good as it was."""
    whole = base / UNET
    save_file({"a": torch.zeros(1)}, base / "unet/diffusion_pytorch_model-00001-of-00002.safetensors")
    assert part_weights(base / "unet").files == (whole,)
    assert size_on_disk(base).total > 1
    load_folder(base, torch.float32)


@pytest.mark.parametrize(
    "rename",
    [
        str.upper,
        lambda name: name.replace(".safetensors", ".FP16.SafeTensors"),
        lambda name: f"my {name}",
    ],
    ids=["upper", "mixed variant", "another name"],
)
@pytest.mark.parametrize("shards", [False, True], ids=["whole", "shards"])
def test_weights_in_a_part_under_any_name(rename: Callable[[str], str], shards: bool, base: Path) -> None:
    wanted = weights(load_folder(base, torch.float32))
    if shards:
        unet = UNet2DConditionModel.from_pretrained(base / "unet")
        (base / UNET).unlink()
        unet.save_pretrained(base / "unet", max_shard_size="300KB")
    for part in ("unet", "vae", "text_encoder"):
        for path in [*(base / part).glob("*.safetensors"), *(base / part).glob("*.index.json")]:
            path.rename(path.with_name(rename(path.name)))
    got = weights(load_folder(base, torch.float32))
    assert got.keys() == wanted.keys() and all(torch.equal(got[name], wanted[name]) for name in wanted)
    assert size_on_disk(base).total > 0


def test_shards_without_their_index_are_read(base: Path) -> None:
    wanted = weights(load_folder(base, torch.float32))
    unet = UNet2DConditionModel.from_pretrained(base / "unet")
    (base / UNET).unlink()
    unet.save_pretrained(base / "unet", max_shard_size="300KB")
    next((base / "unet").glob("*.index.json")).unlink()
    got = weights(load_folder(base, torch.float32))
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)


def test_a_foreign_file_beside_the_weights_is_not_read(base: Path) -> None:
    save_file({"a": torch.zeros(1)}, base / "unet/style.safetensors")
    assert part_weights(base / "unet").files == (base / UNET,)
    (base / UNET).rename(base / "unet/mine.safetensors")
    with pytest.raises(StudioError, match=r"unet contains several models \(mine\S+, style\S+\): keep one"):
        load_folder(base, torch.float32)


def test_an_index_whose_shards_are_missing_beside_a_whole_file(base: Path) -> None:
    name = "diffusion_pytorch_model-00001-of-00002.safetensors"
    (base / f"{UNET}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": {"conv_in.weight": name}}))
    load_folder(base, torch.float32)


def test_a_byte_order_mark_before_any_text_is_accepted(base: Path) -> None:
    wanted = load_folder(base, torch.float32)
    words = json.loads((base / "tokenizer/tokenizer.json").read_text())["model"]
    for path in base.glob("**/*.json"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    merges = "\n".join(" ".join(pair) for pair in words["merges"])
    for old_files in (False, True):
        if old_files:
            (base / "tokenizer/tokenizer.json").unlink()
            (base / "tokenizer/vocab.json").write_text("\ufeff" + json.dumps(words["vocab"]), encoding="utf-8")
            (base / "tokenizer/merges.txt").write_text(f"\ufeff#version: 0.2\n{merges}\n", encoding="utf-8")
        got = load_folder(base, torch.float32)
        assert all(torch.equal(value, weights(got)[name]) for name, value in weights(wanted).items())
        assert got.scheduler.config.timestep_spacing == wanted.scheduler.config.timestep_spacing == "trailing"
        assert got.tokenizer("dark red sea!").input_ids == wanted.tokenizer("dark red sea!").input_ids


def test_what_configs_of_schedulers_say_of_the_prediction(base: Path) -> None:
    path = base / "scheduler/scheduler_config.json"
    edit(path, predict_epsilon=False)  # of 2022
    assert load_folder(base, torch.float32).scheduler.config.prediction_type == "sample"
    edit(path, predict_epsilon=None, prediction_type="v")
    with pytest.raises(StudioError, match="prediction_type 'v' is none of epsilon, v_prediction, sample"):
        load_folder(base, torch.float32)


def test_a_schedulers_config_without_betas_is_incomplete(base: Path) -> None:
    """diffusers would take those of pixel models, 1e-4 to 0.02."""
    path = base / "scheduler/scheduler_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in config.items() if name != "beta_schedule"}))
    with pytest.raises(StudioError, match="scheduler is incomplete: its config does not say beta_schedule; restore it"):
        load_folder(base, torch.float32)
    edit(path, trained_betas=[0.001 + 0.00001 * step for step in range(1000)])
    assert load_folder(base, torch.float32).scheduler.config.trained_betas


def test_a_distilled_models_folder_has_its_makers_defaults(base: Path, presets: Path, own_home: Path) -> None:
    def sampling() -> tuple[str, int, float]:
        defaults = Catalog(presets, home=own_home).find(str(base), "base").defaults
        assert defaults
        return defaults.scheduler, defaults.num_inference_steps, defaults.guidance_scale

    edit(base / "model_index.json", scheduler=["diffusers", "EulerAncestralDiscreteScheduler"])
    edit(base / "unet/config.json", sample_size=64, cross_attention_dim=1024)
    edit(base / "text_encoder/config.json", hidden_size=1024)
    assert sampling() == ("euler-a", 4, 1.0)  # as SDXL-Turbo: `trailing`, at 512 px
    edit(base / "scheduler/scheduler_config.json", prediction_type="v_prediction")
    assert sampling() == ("ddim", 20, 5.0)
    edit(base / "model_index.json", scheduler=["diffusers", "LCMScheduler"])
    assert sampling() == ("lcm", 4, 1.0)
    edit(base / "unet/config.json", time_cond_proj_dim=256)
    assert sampling() == ("lcm", 4, 8.0)


def test_a_native_size_of_two_sides(base: Path, presets: Path, own_home: Path) -> None:
    edit(base / "unet/config.json", sample_size=[8, 16])
    defaults = Catalog(presets, home=own_home).find(str(base), "base").defaults
    assert defaults and (defaults.width, defaults.height) == (128, 64)


@pytest.mark.parametrize(("part", "first"), [("unet", "shards"), ("text_encoder", "whole")])
def test_of_a_whole_file_and_its_shards_the_same_is_counted_as_is_loaded(part: str, first: str, base: Path) -> None:
    """diffusers reads the shards that have an index, transformers the whole file."""
    (whole,) = part_weights(base / part).files
    tensors = load_file(whole)
    names = [whole.name.replace(".safetensors", f"-0000{n}-of-00002.safetensors") for n in (1, 2)]
    halves = [dict(list(tensors.items())[n::2]) for n in (0, 1)]
    for name, half in zip(names, halves, strict=True):
        save_file({key: value + 1 for key, value in half.items()}, base / part / name, {"format": "pt"})
    index = {
        "metadata": {},
        "weight_map": {key: name for name, half in zip(names, halves, strict=True) for key in half},
    }
    (base / part / f"{whole.name}.index.json").write_text(json.dumps(index))
    files = part_weights(base / part).files
    assert files == ((whole,) if first == "whole" else tuple(base / part / name for name in names))
    state = getattr(load_folder(base, torch.float32), part).state_dict()
    key = next(key for key in tensors if key in state)
    torch.testing.assert_close(state[key], tensors[key].float() + (0 if first == "whole" else 1), atol=2e-3, rtol=0)


def test_latents_with_statistics_are_another_domain(base: Path) -> None:
    """Decoding undoes what encoding does, and a module of the plain domain does not fit."""
    plain = load_folder(base, torch.float32).vae
    channels = plain.config.latent_channels
    edit(base / "vae/config.json", latents_mean=[0.5] * channels, latents_std=[3.0] * channels)
    vae = load_folder(base, torch.float32).vae
    assert not domains.same(domains.fingerprint(plain), domains.fingerprint(vae))
    pictures = torch.linspace(-1, 1, 3 * 64 * 64).view(1, 3, 64, 64)
    latents = encode_pictures(vae, pictures)
    torch.testing.assert_close(latents, (encode_pictures(plain, pictures) - 0.5 * plain.config.scaling_factor) / 3)
    torch.testing.assert_close(
        decode_latents(vae, latents), decode_latents(plain, encode_pictures(plain, pictures)), rtol=1e-3, atol=1e-4
    )


def test_a_replaced_file_is_another_model(base: Path, tmp_path: Path) -> None:
    lora = tmp_path / "style.safetensors"
    save_file({"a": torch.zeros(1)}, lora)

    def keys() -> tuple[object, ...]:
        adapters = ((lora, 1.0),)
        key = ModelKey("base", base, "cpu", torch.float32, adapters)
        return key, ModelKey("base", base, "cpu", torch.float32), encoder_key(base), encoder_key(base, adapters)

    first = keys()
    assert first == keys()
    replaced = lora.with_suffix(".new")
    save_file({"a": torch.ones(1)}, replaced)  # the same size; a rename keeps the time of change
    replaced.replace(lora)
    second = keys()
    assert (second[0] != first[0], second[1:3] == first[1:3], second[3] != first[3]) == (True, True, True)
    (base / UNET).write_bytes((base / UNET).read_bytes() + b"")
    assert keys()[1] != first[1] and keys()[2] != first[2]
