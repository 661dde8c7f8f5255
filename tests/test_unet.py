"""The time-free UNet: the function of a stock UNet whose time is silenced, in the published layout, read strictly."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from oms_app.prestep.unet import CLASS_NAME, TimeFreeUNet

PUBLISHED: dict[str, Any] = {  # B, as published: h1t/oms_b_openclip_xl
    "_class_name": CLASS_NAME,
    "_diffusers_version": "0.23.0",
    "block_out_channels": [160, 320, 640],
    "attention_head_dim": [5, 10, 20],
    "layers_per_block": 2,
    "cross_attention_dim": 1024,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "transformer_layers_per_block": 1,
    "in_channels": 4,
    "out_channels": 4,
    "norm_num_groups": 32,
    "use_linear_projection": False,
    "sample_size": None,
}
TINY = {**PUBLISHED, "block_out_channels": [8, 16, 16], "attention_head_dim": 8, "cross_attention_dim": 12}
TINY |= {"norm_num_groups": 4, "layers_per_block": 1}


@pytest.fixture
def module() -> TimeFreeUNet:
    torch.manual_seed(0)
    return TimeFreeUNet.from_config(TINY).eval()


def inputs(batch: int = 2, size: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 4, size, size, generator=generator), torch.randn(batch, 5, 12, generator=generator)


@pytest.mark.parametrize("size", [8, 6])  # 6 is no multiple of 4: the stock model then resizes on its way up
def test_same_function_as_a_stock_unet_whose_time_is_silenced(module: TimeFreeUNet, size: int) -> None:
    stock = UNet2DConditionModel(**{k: v for k, v in TINY.items() if not k.startswith("_")}).eval()
    missing, unexpected = stock.load_state_dict(module.state_dict(), strict=False)
    assert not unexpected
    assert missing and all("time_" in name for name in missing)
    for name, parameter in stock.named_parameters():
        if "time_emb_proj" in name:
            torch.nn.init.zeros_(parameter)
    latents, embeds = inputs(size=size)
    with torch.no_grad():
        for timestep in (0, 999):
            torch.testing.assert_close(
                module(latents, embeds), stock(latents, timestep, embeds).sample, rtol=0, atol=1e-6
            )


def test_nothing_of_time_is_left(module: TimeFreeUNet) -> None:
    names = [name for name, _ in module.named_parameters()] + list(module.state_dict())
    assert names and not [name for name in names if "time" in name]
    assert module.num_parameters() == sum(tensor.numel() for tensor in module.state_dict().values())


@pytest.mark.parametrize(
    ("changes", "millions"),
    [  # Table 3 of the paper, and the mixed-encoder module as published
        ({"block_out_channels": [32, 64, 64], "attention_head_dim": 8}, 3.7),
        ({}, 154),
        (
            {
                "block_out_channels": [320, 640, 1280, 1280],
                "attention_head_dim": [5, 10, 20, 20],
                "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
                "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
            },
            838,
        ),
        (
            {
                "block_out_channels": [320, 640, 1280],
                "cross_attention_dim": 2048,
                "transformer_layers_per_block": [1, 2, 10],
            },
            2543,
        ),
    ],
)
def test_published_sizes(changes: dict, millions: float) -> None:
    with torch.device("meta"):
        module = TimeFreeUNet.from_config({**PUBLISHED, **changes})
    assert module.num_parameters() / 1e6 == pytest.approx(millions, rel=0.02 if millions < 10 else 0.005)


def test_every_weight_learns(module: TimeFreeUNet) -> None:
    latents, embeds = inputs()
    module.train()
    module(latents, embeds).square().mean().backward()
    idle = [n for n, p in module.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert not idle


@pytest.mark.parametrize("variant", ["fp16", None])
def test_round_trip_of_the_published_layout(module: TimeFreeUNet, tmp_path: Path, variant: str | None) -> None:
    folder = module.save_pretrained(tmp_path / "oms_module", variant=variant)
    infix = ".fp16" if variant else ""
    weights = f"diffusion_pytorch_model{infix}.safetensors"
    assert sorted(path.name for path in folder.iterdir()) == sorted(["config.json", weights])
    config = json.loads((folder / "config.json").read_text())
    assert config["_class_name"] == "UNet2DConditionWoCTModel"
    assert config["block_out_channels"] == [8, 16, 16]
    assert not [name for name in config if "time" in name or "class_embed" in name or name.startswith("addition")]

    again = TimeFreeUNet.from_pretrained(folder)
    assert again.config == module.config
    assert not again.training
    assert {parameter.dtype for parameter in again.parameters()} == {torch.float32}
    assert all(parameter.requires_grad for parameter in again.parameters())
    latents, embeds = inputs()
    with torch.no_grad():
        tolerance = 0.01 if variant else 0.0
        torch.testing.assert_close(again(latents, embeds), module(latents, embeds), rtol=0, atol=tolerance)
    stored = load_file(folder / weights)
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16 if variant else torch.float32}
    assert {tensor.dtype for tensor in TimeFreeUNet.from_pretrained(folder, variant, torch.bfloat16).parameters()} == {
        torch.bfloat16
    }


def test_a_folder_holds_one_set_of_weights(module: TimeFreeUNet, tmp_path: Path) -> None:
    module.save_pretrained(tmp_path, variant="fp16")
    with torch.no_grad():
        module.unet.conv_in.bias += 1
    module.save_pretrained(tmp_path, variant=None)
    assert torch.equal(TimeFreeUNet.from_pretrained(tmp_path).unet.conv_in.bias, module.unet.conv_in.bias)


def test_the_published_code_would_find_its_names(module: TimeFreeUNet, tmp_path: Path) -> None:
    module.save_pretrained(tmp_path)
    names = set(load_file(tmp_path / "diffusion_pytorch_model.fp16.safetensors"))
    stock = UNet2DConditionModel(**{k: v for k, v in TINY.items() if not k.startswith("_")}).state_dict()
    assert names == {name for name in stock if "time_" not in name}


def test_a_state_dict_goes_back_in(module: TimeFreeUNet) -> None:
    other = TimeFreeUNet.from_config(module.config)
    assert other.load_state_dict(module.state_dict()).missing_keys == []
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), module.parameters(), strict=True))


def test_missing_extra_and_misshapen_weights_are_named(module: TimeFreeUNet, tmp_path: Path) -> None:
    path = module.save_pretrained(tmp_path) / "diffusion_pytorch_model.fp16.safetensors"
    tensors = load_file(path)
    changes: list[tuple[dict[str, Tensor | None], str]] = [
        ({"conv_in.bias": None}, "is missing conv_in.bias"),
        ({"time_embedding.linear_1.bias": torch.zeros(3)}, "has unknown time_embedding.linear_1.bias"),
        ({"conv_in.bias": torch.zeros(9)}, "has other shapes for conv_in.bias"),
    ]
    for change, message in changes:
        save_file({name: tensor for name, tensor in {**tensors, **change}.items() if tensor is not None}, path)
        with pytest.raises(ValueError, match=message):
            TimeFreeUNet.from_pretrained(tmp_path)


def test_a_pickle_is_not_read(module: TimeFreeUNet, tmp_path: Path) -> None:
    path = module.save_pretrained(tmp_path) / "diffusion_pytorch_model.fp16.safetensors"
    path.unlink()

    class Bomb:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "exploded",)

    (tmp_path / "diffusion_pytorch_model.fp16.bin").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(FileNotFoundError, match=r"fp16\.bin is a pickle"):
        TimeFreeUNet.from_pretrained(tmp_path)
    assert not (tmp_path / "exploded").exists()


def test_missing_files_and_other_classes_are_named(module: TimeFreeUNet, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"diffusion_pytorch_model\.fp16\.safetensors or"):
        TimeFreeUNet.from_pretrained(tmp_path)
    module.save_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="non_ema"):
        TimeFreeUNet.from_pretrained(tmp_path, variant="non_ema")
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**TINY, "_class_name": "UNet2DConditionModel"}))
    with pytest.raises(ValueError, match="'UNet2DConditionModel', not"):
        TimeFreeUNet.from_pretrained(tmp_path)
    config.unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        TimeFreeUNet.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"addition_embed_type": "text_time"}, "addition_embed_type='text_time'"),
        ({"time_cond_proj_dim": 256}, "time_cond_proj_dim=256"),
        ({"resnet_time_scale_shift": "scale_shift"}, "resnet_time_scale_shift"),
        ({"tiem": 1}, "unknown settings: tiem"),
    ],
)
def test_settings_that_need_a_clock_are_refused(setting: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message), torch.device("meta"):
        TimeFreeUNet.from_config({**TINY, **setting})


def test_a_stock_config_at_rest_is_accepted() -> None:
    with torch.device("meta"):
        stock = UNet2DConditionModel(**{k: v for k, v in TINY.items() if not k.startswith("_")})
        assert TimeFreeUNet.from_config(stock.config).config["cross_attention_dim"] == 12


def test_inputs_that_do_not_fit_are_refused(module: TimeFreeUNet) -> None:
    latents, embeds = inputs()
    with pytest.raises(ValueError, match=r"\(2, 3, 8, 8\).*\(B, 4, h, w\)"):
        module(latents[:, :3], embeds)
    with pytest.raises(ValueError, match=r"\(2, 5, 11\).*text encoder"):
        module(latents, embeds[..., :11])
    with pytest.raises(ValueError, match=r"\(1, 5, 12\)"):
        module(latents, embeds[:1])


def test_weights_that_overflow_float16_are_not_written(module: TimeFreeUNet, tmp_path: Path) -> None:
    with torch.no_grad():
        module.unet.conv_in.bias += 1e6
    with pytest.raises(ValueError, match=r"conv_in\.bias"):
        module.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="bf16"):
        module.save_pretrained(tmp_path, variant="bf16")
