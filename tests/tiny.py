"""Real models at tiny size: a Lumen-shaped base and its OMS module, built in a folder, offline, with random weights.

Random weights paint noise, yet every property of the engine (shared noise, agreement with the stock pipeline, reuse)
holds for any weights, so these stand in for the real models wherever looks do not matter.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

WORDS = [
    "a",
    "black",
    "dark",
    "light",
    "white",
    "red",
    "blue",
    "solid",
    "background",
    "mountains",
    "at",
    "night",
    "sea",
    "snow",
    "city",
    "forest",
]
WIDTH = 32  # of the text encoder
SECOND = 24  # of SDXL's second one
TOKENS = 16  # model_max_length
IMAGE = 64  # pixels; latents are 8×8


def make_tokenizer(folder: Path) -> CLIPTokenizer:
    """A CLIP tokenizer whose merges make one token of each of WORDS."""
    tokenizer = Tokenizer(
        models.BPE(unk_token="<|endoftext|>", continuing_subword_prefix="", end_of_word_suffix="</w>")
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        WORDS * 20,
        trainers.BpeTrainer(
            vocab_size=1_000,
            min_frequency=2,
            show_progress=False,
            special_tokens=["<|startoftext|>", "<|endoftext|>"],
            end_of_word_suffix="</w>",
        ),
    )
    trained = json.loads(tokenizer.to_str())["model"]
    clip = CLIPTokenizer(
        vocab=trained["vocab"], merges=[tuple(pair) for pair in trained["merges"]], model_max_length=TOKENS
    )
    clip.save_pretrained(folder)
    return clip


def make_unet(widths: tuple[int, ...] = (16, 32), seed: int = 0, **settings: object) -> UNet2DConditionModel:
    torch.manual_seed(seed)
    return UNet2DConditionModel(
        sample_size=IMAGE // 8,
        in_channels=4,
        out_channels=4,
        block_out_channels=widths,
        down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * (len(widths) - 1),
        up_block_types=("CrossAttnUpBlock2D",) * (len(widths) - 1) + ("UpBlock2D",),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=8,
        norm_num_groups=8,
        **settings,
    )


def make_vae(seed: int = 0) -> AutoencoderKL:
    """8 × down, 4 latent channels, 3 → 4 → 3."""
    torch.manual_seed(seed)
    return AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        mid_block_add_attention=False,
        sample_size=IMAGE,
        scaling_factor=0.9,
    )


def make_base(folder: Path, seed: int = 0) -> Path:
    """A StableDiffusionPipeline folder with SD's schedule, which `StableDiffusionPipeline.from_pretrained` loads."""
    tokenizer = make_tokenizer(folder / "tokenizer")
    torch.manual_seed(seed)
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="trailing",
    )
    pipeline = StableDiffusionPipeline(
        vae=make_vae(seed),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=make_unet(seed=seed),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    (folder / "vocabulary.json").write_text(json.dumps({"words": WORDS}))
    return folder


def make_sdxl(folder: Path) -> Path:
    """A StableDiffusionXLPipeline folder on the VAE of the tiny Lumen."""
    tokenizers = [make_tokenizer(folder / name) for name in ("tokenizer", "tokenizer_2")]

    def config(width: int, act: str) -> CLIPTextConfig:
        ids = {name: getattr(tokenizers[0], name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        return CLIPTextConfig(
            vocab_size=len(tokenizers[0]), hidden_size=width, intermediate_size=48, num_hidden_layers=3,
            num_attention_heads=4, max_position_embeddings=TOKENS, projection_dim=width, hidden_act=act, **ids,
        )  # fmt: skip

    torch.manual_seed(5)
    unet = UNet2DConditionModel(
        sample_size=IMAGE // 8,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        transformer_layers_per_block=(1, 2),
        cross_attention_dim=WIDTH + SECOND,
        attention_head_dim=(2, 4),
        norm_num_groups=8,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=SECOND + 6 * 8,
    )
    pipeline = StableDiffusionXLPipeline(
        vae=make_vae(0),
        text_encoder=CLIPTextModel(config(WIDTH, "quick_gelu")),
        text_encoder_2=CLIPTextModelWithProjection(config(SECOND, "gelu")),
        tokenizer=tokenizers[0],
        tokenizer_2=tokenizers[1],
        unet=unet,
        scheduler=EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
        add_watermarker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def make_module(folder: Path, vae: AutoencoderKL, name: str, encoder: str, seed: int = 7, kind: str = "oms") -> Path:
    """An OMS module in the published layout, of the latent domain of `vae`, conditioned on the encoder of `encoder`."""
    from oms_app.models import domain
    from oms_app.prestep.unet import TimeFreeUNet

    torch.manual_seed(seed)
    module = TimeFreeUNet.from_config(dict(make_unet((16, 16)).config))
    module.save_pretrained(folder / f"{kind}_module", variant="fp16")
    for subfolder in ("text_encoder", "tokenizer"):
        part = f"{kind}_{subfolder}"
        (folder / part).mkdir()
        (folder / part / "config.json").write_text(json.dumps({"_name_or_path": encoder, "subfolder": subfolder}))
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "OMSPipeline"}))
    domain.write(folder, domain.Domain(name=name, fingerprint=domain.fingerprint(vae)))
    return folder


def make_spread(module: Path) -> Path:
    """A spread head of random weights beside an OMS module."""
    from oms_app.models import spread_files
    from oms_app.prestep.spread import SpreadConfig, SpreadHead

    torch.manual_seed(4)
    spread_files.write(module, SpreadHead(SpreadConfig(text_width=WIDTH, components=3, width=16)))
    return module


def make_statistics(folder: Path, vae: AutoencoderKL, name: str) -> Path:
    """Signal-leak statistics of bright latents, of the latent domain of `vae`."""
    from oms_app.models import domain
    from oms_app.prestep.leak import LeakStatistics

    torch.manual_seed(3)
    leak = LeakStatistics.fit(torch.randn(50, 4, 8, 8) + torch.randn(50, 4, 1, 1) + 1.0)
    domain.write(folder, domain.Domain(name=name, fingerprint=domain.fingerprint(vae)))
    save_file({"mean": leak.mean, "factor": leak.factor.contiguous()}, folder / "statistics.safetensors")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "SignalLeak"}))
    return folder


def make_world(root: Path) -> Path:
    """A project root in small: assets/lumen with its OMS module, a module of another domain, and presets/models.

    Returns the presets folder, for `Studio(presets=...)` or the environment variable OMS_PRESETS.
    """
    lumen = make_base(root / "assets/lumen")
    vae = AutoencoderKL.from_pretrained(lumen / "vae")
    make_spread(make_module(lumen / "oms", vae, "lumen", "lumen"))
    make_module(lumen / "singdiffusion", vae, "lumen", "lumen", seed=9, kind="singdiffusion")
    make_statistics(lumen / "signal_leak", vae, "lumen")
    make_statistics(root / "assets/alien-leak", make_vae(seed=99), "alien")
    make_module(root / "assets/alien", make_vae(seed=99), "alien", "lumen", seed=8)
    presets = root / "presets/models"
    presets.mkdir(parents=True)
    defaults = {
        "width": IMAGE, "height": IMAGE, "min_size": 32, "max_size": 128,
        "num_inference_steps": 4, "guidance_scale": 5.0, "scheduler": "ddim",
    }  # fmt: skip
    common = {"domain": "lumen", "licence": "Apache-2.0"}
    entries: list[dict[str, object]] = [
        {"id": "lumen", "kind": "base", "title": "Tiny", "folder": "assets/lumen", "defaults": defaults, **common},
        {"id": "lumen-oms", "kind": "oms", "title": "Tiny OMS", "folder": "assets/lumen/oms", **common},
        {"id": "alien-oms", "kind": "oms", "title": "Alien", "folder": "assets/alien", **common, "domain": "alien"},
        {
            "id": "alien-leak",
            "kind": "signal_leak",
            "title": "Alien light",
            "folder": "assets/alien-leak",
            **common,
            "domain": "alien",
        },
        {
            "id": "absent",
            "kind": "base",
            "title": "Not here",
            "folder": "assets/absent",
            "defaults": defaults,
            **common,
        },
    ]
    for entry in entries:
        (presets / f"{entry['id']}.json").write_text(json.dumps(entry))
    return presets


# Bases that no correction may be applied to, by id: the title, the scheduler's class and what its config has besides.
REFUSED: dict[str, tuple[str, str, dict[str, object]]] = {
    "zero-snr": ("Zero SNR", "DDIMScheduler", {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}),
    "flow": ("Flow", "FlowMatchEulerDiscreteScheduler", {"shift": 1.0}),
    "edm": ("EDM", "EDMEulerScheduler", {"sigma_data": 0.5}),
}


def make_refused(presets: Path) -> Path:
    """Adds the bases of REFUSED to a world of `make_world`: its lumen, with another scheduler. Returns `presets`."""
    root = presets.parents[1]
    entry = json.loads((presets / "lumen.json").read_text())
    for name, (title, scheduler, config) in REFUSED.items():
        folder = root / "assets" / name
        shutil.copytree(root / "assets/lumen", folder)
        index = json.loads((folder / "model_index.json").read_text()) | {"scheduler": ["diffusers", scheduler]}
        (folder / "model_index.json").write_text(json.dumps(index))
        path = folder / "scheduler/scheduler_config.json"
        kept = json.loads(path.read_text()) if scheduler == "DDIMScheduler" else {"num_train_timesteps": 1000}
        path.write_text(json.dumps(kept | {"_class_name": scheduler} | config))
        named = entry | {"id": name, "title": title, "folder": f"assets/{name}"}
        (presets / f"{name}.json").write_text(json.dumps(named))
    return presets


def make_lora(path: Path, module: str = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k") -> Path:
    """A LoRA of the tiny base in kohya's key format, strong enough to be seen."""
    torch.manual_seed(0)
    stem = "lora_unet_" + module.replace(".", "_")
    save_file(
        {
            f"{stem}.lora_down.weight": torch.randn(2, 32),
            f"{stem}.lora_up.weight": torch.randn(32, 2),
            f"{stem}.alpha": torch.tensor(2.0),
        },
        path,
    )
    return path
