"""SDXL at tiny size: two encoders, pooled embeddings, an empty negative of zeros; as the stock pipeline paints it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from PIL import Image
from safetensors.torch import save_file
from tiny import IMAGE, WIDTH

from dev.full_size.ldm import to_single_file
from oms_app import GenerateRequest, Studio, Variant
from oms_app.models import single_file
from oms_app.models.loading import OWN_ENCODER, load_base, load_module
from oms_app.prestep.unet import TimeFreeUNet
from oms_app.training import any_base


def painted(studio: Studio, model: Path, variants: tuple[Variant, ...] = (Variant(name="raw"),), **settings: object):  # type: ignore[no-untyped-def]
    request = GenerateRequest(
        prompt="mountains at night", seed=3, model=str(model), width=IMAGE, height=IMAGE, scheduler="euler",
        num_inference_steps=4, variants=variants, **settings,
    )  # fmt: skip
    return {image.variant: np.asarray(image.image, int) for image in studio.generate(request).images}


@pytest.mark.parametrize(
    ("guidance_scale", "negative"), [(1.0, None), (5.0, None), (5.0, "snow")], ids=["no CFG", "zeros", "a negative"]
)
def test_raw_is_the_stock_pipelines_picture(
    studio: Studio, sdxl: Path, guidance_scale: float, negative: str | None
) -> None:
    got = painted(studio, sdxl, guidance_scale=guidance_scale, negative_prompt=negative or "")["raw"]
    stock = StableDiffusionXLPipeline.from_pretrained(sdxl, local_files_only=True, add_watermarker=False)
    stock.set_progress_bar_config(disable=True)
    wanted = stock(
        "mountains at night", negative_prompt=negative, guidance_scale=guidance_scale, num_inference_steps=4,
        width=IMAGE, height=IMAGE, generator=torch.Generator().manual_seed(3),
    ).images[0]  # fmt: skip
    assert np.abs(got - np.asarray(wanted, int)).max() <= 1


def test_each_prompt_has_a_pass_of_its_own_as_in_the_stock_pipelines(lumen: Path, sdxl: Path) -> None:
    """In half precision some processors round a batch differently: full-size SDXL was 6 of 255 off."""
    batches: list[int] = []
    for folder in (lumen, sdxl):
        base = load_base(folder, torch.device("cpu"), torch.bfloat16)
        for part in (base.pipeline.text_encoder, getattr(base.pipeline, "text_encoder_2", None)):
            if part is not None:
                part.register_forward_pre_hook(lambda _, given: batches.append(len(given[0])))
        together = base.text.embed(["mountains at night", "a red ball"])
        for text, embedding in zip(("mountains at night", "a red ball"), together, strict=True):
            alone = base.text.embed([text])[0]
            assert torch.equal(alone.hidden, embedding.hidden)
            if alone.pooled is not None and embedding.pooled is not None:
                assert torch.equal(alone.pooled, embedding.pooled)
    assert len(batches) == 4 + 8 and set(batches) == {1}


def test_an_oms_module_of_its_domain_serves_it(studio: Studio, sdxl: Path) -> None:
    pair = painted(studio, sdxl, (Variant(name="raw"), Variant(name="oms", correction="oms")), guidance_scale=5.0)
    assert np.abs(pair["raw"] - pair["oms"]).max() > 1


def test_a_single_file_paints_as_its_folder_does(
    studio: Studio, sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(sdxl, tmp_path / "configs/sdxl", ignore=shutil.ignore_patterns("*.safetensors"))
    monkeypatch.setattr(single_file, "CONFIGS", tmp_path / "configs")
    monkeypatch.setattr("oms_app.models.catalog.NATIVE", {"sdxl": IMAGE})
    pipeline = StableDiffusionXLPipeline.from_pretrained(sdxl, local_files_only=True, add_watermarker=False)
    file = tmp_path / "xl.safetensors"
    save_file(to_single_file(pipeline, "sdxl"), file)
    assert single_file.family_of(file) == "sdxl"
    of_folder = painted(studio, sdxl, guidance_scale=5.0)["raw"]
    of_file = painted(studio, file, guidance_scale=5.0)["raw"]
    assert np.abs(of_folder - of_file).max() <= 1


def test_a_module_that_names_sdxls_encoders_reads_both(lumen: Path, sdxl: Path, tmp_path: Path) -> None:
    """As h1t/oms_l_mixclip_xl: the base's own encoders where it is that base, else the catalogue's; "" is a text."""
    presets = tmp_path / "presets/models"
    presets.mkdir(parents=True)
    defaults = {"width": IMAGE, "height": IMAGE, "min_size": 32, "max_size": 128, "scheduler": "euler"}
    for name in ("sdxl", "like-sdxl"):
        shutil.copytree(sdxl, tmp_path / name)
        entry = {"id": name, "kind": "base", "title": name, "folder": name, "defaults": defaults, "domain": "xl"}
        (presets / f"{name}.json").write_text(json.dumps(entry))
    torch.manual_seed(2)
    unet = dict(UNet2DConditionModel.load_config(sdxl / "unet"))
    for timed in ("addition_embed_type", "addition_time_embed_dim", "projection_class_embeddings_input_dim"):
        unet.pop(timed)
    TimeFreeUNet.from_config(unet).save_pretrained(tmp_path / "mixclip/oms_module")
    for part in ("text_encoder", "tokenizer"):
        (tmp_path / f"mixclip/oms_{part}").mkdir()
        named = {"_name_or_path": "stabilityai/stable-diffusion-xl-base-1.0", "subfolder": part}
        (tmp_path / f"mixclip/oms_{part}/config.json").write_text(json.dumps(named))
    (tmp_path / "mixclip/model_index.json").write_text(json.dumps({"_class_name": "OMSPipeline"}))
    entry = {"id": "mixclip", "kind": "oms", "title": "M", "folder": "mixclip", "domain": "xl"}
    (presets / "mixclip.json").write_text(json.dumps(entry))
    studio = Studio(presets=presets, device="cpu", home=tmp_path / "home")
    oms = Variant(name="oms", correction="oms", guidance_scale=3.0)

    def painted_by(name: str) -> np.ndarray:
        request = GenerateRequest(
            prompt="mountains", model=name, variants=(oms,), seed=1, num_inference_steps=3, guidance_scale=5.0
        )
        return np.asarray(studio.generate(request).images[0].image, int)

    shared = painted_by("sdxl")
    assert studio.statistics().models == 2  # the base and the module: one pair of encoders
    fetched = painted_by("like-sdxl")
    base = load_base(tmp_path / "sdxl", torch.device("cpu"), torch.float32)
    assert np.abs(shared - fetched).max() <= 1
    assert base.text.encode([""]).abs().max() == 0  # the base's own negative is zeros
    assert base.text.for_modules().encode([""]).abs().max() > 0  # type: ignore[attr-defined]


def test_an_oms_module_is_trained_for_it(studio: Studio, sdxl: Path, tmp_path: Path) -> None:
    """It reads the first of the two encoders, and brings a copy: the base's name would mean both."""
    for i in range(3):
        Image.new("RGB", (IMAGE, IMAGE), (80 * i,) * 3).save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_text("a dark sea")
    entry = studio.catalog.find(str(sdxl), "base")
    settings = any_base.Settings(steps=1, batch=2)
    done = any_base.train(studio.catalog, entry, tmp_path, tmp_path / "module", device="cpu", settings=settings)
    assert (done.pictures, done.learning_rate) == (3, 2.5e-5)
    module = load_module(tmp_path / "module", torch.device("cpu"), torch.float32)
    assert (module.unet.config["cross_attention_dim"], module.encoder_name) == (WIDTH, OWN_ENCODER)
    variants = (Variant(name="raw"), Variant(name="oms", correction="oms", module=done.out))
    pair = painted(studio, sdxl, variants, guidance_scale=5.0)
    assert np.abs(pair["raw"] - pair["oms"]).max() > 1
