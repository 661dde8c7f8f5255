"""The configs of Stable Diffusion 1.5, 2.1 and XL, LCM DreamShaper v7, OMS-B and OpenCLIP ViT-H as their makers
published them.

They are written out here, and not read from presets/configs, so that a fault there is found. `tiny` gives the same
layout with narrow networks, for the test of this package.
"""

from __future__ import annotations

from typing import Any

Config = dict[str, Any]

_DOWN = ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"]
_UP = ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3
_UNET: Config = {
    "_class_name": "UNet2DConditionModel",
    "_diffusers_version": "0.6.0",
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "center_input_sample": False,
    "cross_attention_dim": 768,
    "down_block_types": _DOWN,
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": _UP,
}
_WIDE_HEADS: Config = {"attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True}
UNETS: dict[str, Config] = {
    "sd15": _UNET,
    "lcm": _UNET | {"_diffusers_version": "0.22.0.dev0", "sample_size": 96, "time_cond_proj_dim": 256},
    "sd21": _UNET
    | _WIDE_HEADS
    | {"_diffusers_version": "0.10.0.dev0", "cross_attention_dim": 1024, "sample_size": 96, "upcast_attention": True},
    "sdxl": _UNET
    | {
        "_diffusers_version": "0.19.0.dev0",
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "attention_head_dim": [5, 10, 20],
        "block_out_channels": [320, 640, 1280],
        "cross_attention_dim": 2048,
        "down_block_types": ["DownBlock2D"] + ["CrossAttnDownBlock2D"] * 2,
        "projection_class_embeddings_input_dim": 2816,
        "sample_size": 128,
        "transformer_layers_per_block": [1, 2, 10],
        "up_block_types": ["CrossAttnUpBlock2D"] * 2 + ["UpBlock2D"],
        "use_linear_projection": True,
    },
}
# The published module is of a class that diffusers does not have; its tensors are the stock ones without time.
OMS_B: Config = {
    "_class_name": "UNet2DConditionWoCTModel",
    "_diffusers_version": "0.23.0",
    "act_fn": "silu",
    "attention_head_dim": [5, 10, 20],
    "block_out_channels": [160, 320, 640],
    "cross_attention_dim": 1024,
    "down_block_types": ["DownBlock2D"] + ["CrossAttnDownBlock2D"] * 2,
    "in_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": ["CrossAttnUpBlock2D"] * 2 + ["UpBlock2D"],
}

# Those of 2022 name no scaling_factor: it is 0.18215.
_VAE: Config = {
    "_class_name": "AutoencoderKL",
    "_diffusers_version": "0.6.0",
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 512,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
VAES: dict[str, Config] = {
    "sd15": _VAE,
    "lcm": _VAE | {"sample_size": 768, "scaling_factor": 0.18215, "force_upcast": True},
    "sd21": _VAE | {"_diffusers_version": "0.10.0.dev0", "sample_size": 768},
    "sdxl": _VAE | {"sample_size": 1024, "scaling_factor": 0.13025, "force_upcast": True},
}

_CLIP: Config = {
    "architectures": ["CLIPTextModel"],
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "dropout": 0.0,
    "eos_token_id": 2,
    "hidden_act": "quick_gelu",
    "hidden_size": 768,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 77,
    "model_type": "clip_text_model",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 1,
    "projection_dim": 768,
    "vocab_size": 49408,
}
TEXTS: dict[str, Config] = {
    "clip-l": _CLIP,
    "vit-h": _CLIP
    | {
        "hidden_act": "gelu",
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 23,
        "projection_dim": 512,
    },
    "bigg": _CLIP
    | {
        "architectures": ["CLIPTextModelWithProjection"],
        "hidden_act": "gelu",
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_attention_heads": 20,
        "num_hidden_layers": 32,
        "projection_dim": 1280,
    },
}
_VISION: Config = {
    "hidden_act": "quick_gelu",
    "hidden_size": 1024,
    "image_size": 224,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_channels": 3,
    "num_hidden_layers": 24,
    "patch_size": 14,
}

_BETAS: Config = {
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "clip_sample": False,
    "steps_offset": 1,
    "trained_betas": None,
}
SCHEDULERS: dict[str, Config] = {
    "sd15": _BETAS | {"_class_name": "PNDMScheduler", "set_alpha_to_one": False, "skip_prk_steps": True},
    "lcm": _BETAS
    | {"_class_name": "LCMScheduler", "steps_offset": 0, "set_alpha_to_one": True, "original_inference_steps": 50},
    "sd21": _BETAS | {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction", "set_alpha_to_one": False},
    "sdxl": _BETAS
    | {
        "_class_name": "EulerDiscreteScheduler",
        "interpolation_type": "linear",
        "prediction_type": "epsilon",
        "sample_max_value": 1.0,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "timestep_spacing": "leading",
        "use_karras_sigmas": False,
    },
}
PREPROCESSOR: Config = {
    "crop_size": 224,
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": 224,
}
_PARTS: Config = {
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
_CHECKED: Config = {
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
}


def model_index(family: str) -> Config:
    """model_index.json of a base. LCM's repository names a safety checker that the catalogue does not fetch."""
    scheduler = {"scheduler": ["diffusers", SCHEDULERS[family]["_class_name"]]}
    if family == "sdxl":
        second = {f"{part}_2": _PARTS[part] for part in ("text_encoder", "tokenizer")}
        second["text_encoder_2"] = ["transformers", "CLIPTextModelWithProjection"]
        more = second | {"_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": True}
    elif family == "sd21":
        more = {"_class_name": "StableDiffusionPipeline", "feature_extractor": [None, None]}
        more |= {"safety_checker": [None, None], "requires_safety_checker": False}
    else:
        name = "LatentConsistencyModelPipeline" if family == "lcm" else "StableDiffusionPipeline"
        more = _CHECKED | {"_class_name": name}
    return _PARTS | scheduler | more


def safety_checker(*, tiny: bool) -> Config:
    """Of SD 1.5's folder; the text model of a whole CLIP is in the config, but not among the tensors."""
    vision = _VISION | ({"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1} if tiny else {})
    text = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12}
    return {
        "architectures": ["StableDiffusionSafetyChecker"],
        "model_type": "clip",
        "projection_dim": 32 if tiny else 768,
        "text_config": {"model_type": "clip_text_model", **text},
        "vision_config": {"model_type": "clip_vision_model", **vision},
    }


def unet(family: str, *, tiny: bool) -> Config:
    """Of a base, or of OMS-B as "oms-b"."""
    config = dict(OMS_B if family == "oms-b" else UNETS[family])
    if tiny:
        levels = len(config["block_out_channels"])
        config["block_out_channels"] = [32, 64, 64, 64][:levels]
        config["layers_per_block"] = 1
        config["cross_attention_dim"] = 64 if family == "sdxl" else 32
        if isinstance(config["attention_head_dim"], list):
            config["attention_head_dim"] = [2, 4, 4, 4][:levels]
        if family == "sdxl":
            config |= {"transformer_layers_per_block": [1, 1, 2], "projection_class_embeddings_input_dim": 6 * 256 + 32}
    return config


def vae(family: str, *, tiny: bool) -> Config:
    return VAES[family] | ({"block_out_channels": [32, 32, 64, 64], "layers_per_block": 1} if tiny else {})


def text(name: str, *, tiny: bool) -> Config:
    narrow = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "projection_dim": 32,
    }
    return TEXTS[name] | (narrow if tiny else {})
