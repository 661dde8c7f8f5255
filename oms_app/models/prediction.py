"""Finds what a UNet predicts (ε or v) by running it, because single files rarely say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

CORRELATION = 0.5
LATE, EARLY = 999, 200  # timesteps: almost all noise; about half noise


@torch.no_grad()
def prediction_type(unet: Any, otherwise: str = "v_prediction") -> str:
    """ "epsilon" or "v_prediction" for a trained UNet on the CPU; `otherwise` if its output ignores the noise.

    The UNet receives noise on an empty latent. One that predicts ε returns that noise at any timestep. One that
    predicts v = √ᾱ ε - √(1-ᾱ) x0 does so only at a middle timestep: at the last one it predicts a picture.
    """
    if _correlation(unet, LATE, 1.0) > CORRELATION:
        return "epsilon"
    alpha_bar = 0.754  # of Stable Diffusion's betas at EARLY
    return "v_prediction" if _correlation(unet, EARLY, (1 - alpha_bar) ** 0.5) > CORRELATION else otherwise


def _correlation(unet: Any, timestep: int, level: float) -> float:
    """Of the UNet's output and the noise in its input, `level` times unit noise."""
    config = unet.config
    noise = torch.randn(1, config.in_channels, 16, 16, generator=torch.Generator().manual_seed(0))
    hidden = torch.zeros(1, 77, config.cross_attention_dim)
    given: dict[str, Any] = {}
    if config.addition_embed_type == "text_time":  # SDXL: a pooled embedding, and six numbers of sizes
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        sizes = torch.tensor([[1024.0, 1024.0, 0.0, 0.0, 1024.0, 1024.0]])
        given["added_cond_kwargs"] = {"text_embeds": torch.zeros(1, pooled), "time_ids": sizes}
    with in_float32(unet):
        answer = unet(level * noise, timestep, encoder_hidden_states=hidden, **given).sample
    return float(torch.corrcoef(torch.stack([answer.flatten(), noise.flatten()]))[0, 1].nan_to_num())


@contextmanager
def in_float32(model: torch.nn.Module) -> Iterator[None]:
    """Inside, the model computes in float32 whatever type its weights have: each module casts its own while it runs.

    Half precision on a CPU without instructions for it is up to 80 times slower; a whole copy takes twice the memory.
    """
    handles = []
    kept: dict[torch.nn.Module, dict[str, torch.Tensor]] = {}

    def before(module: torch.nn.Module, _: Any) -> None:
        own = dict(module.named_parameters(recurse=False))
        kept[module] = {name: parameter.data for name, parameter in own.items()}
        for parameter in own.values():
            parameter.data = parameter.data.float()

    def after(module: torch.nn.Module, *_: Any) -> None:
        for name, data in kept.pop(module, {}).items():
            getattr(module, name).data = data

    for module in model.modules():
        if any(parameter.dtype != torch.float32 for parameter in module.parameters(recurse=False)):
            handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after, always_call=True)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
