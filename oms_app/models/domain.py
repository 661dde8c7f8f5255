"""Latent domains: an OMS module predicts latents, so it works with every base whose encoder produces such latents.

A domain is recognised by what the *encoder* makes of a fixed set of pictures: community models often carry a fine-tuned
decoder in the same domain, and a hash of all weights would call that another one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
from diffusers import AutoencoderKL
from pydantic import Field, ValidationError

from oms_app.errors import StudioError
from oms_app.models.reading import read_text
from oms_app.models.vae import encode_pictures
from oms_app.paths import atomic_write
from oms_app.schema import Frozen

FILE = "domain.json"
PROBE = 64  # pixels per side
TOLERANCE = 0.02  # of the fingerprint's own RMS; float16 weights cost about 0.001


class Domain(Frozen):
    """name: what people call it. fingerprint: flat floats, see `fingerprint`; None if it was only declared."""

    name: str
    fingerprint: tuple[Annotated[float, Field(allow_inf_nan=False)], ...] | None = None


def probes() -> torch.Tensor:
    """Eight pictures (8, 3, 64, 64) in [-1, 1]: six flat colours, a horizontal and a vertical ramp."""
    colours = torch.tensor([[-1, -1, -1], [1, 1, 1], [0, 0, 0], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    flat = colours.float()[:, :, None, None].expand(-1, -1, PROBE, PROBE)
    ramp = torch.linspace(-1, 1, PROBE).expand(3, PROBE, PROBE)
    return torch.cat([flat, ramp[None], ramp.transpose(1, 2)[None]])


@torch.no_grad()
def fingerprint(vae: AutoencoderKL) -> tuple[float, ...]:
    """The encoder's scaled latents of `probes()`, averaged to 2×2 per channel: 8 · C · 4 floats, in scaled latents.

    Raises StudioError if they are not finite.
    """
    pooled = torch.nn.functional.adaptive_avg_pool2d(encode_pictures(vae, probes()).float(), 2)
    if not torch.isfinite(pooled).all():
        raise StudioError("the latents of the model's VAE are not finite: its weights are damaged, download it again")
    return tuple(round(value, 5) for value in pooled.flatten().tolist())


def distance(a: Sequence[float], b: Sequence[float]) -> float:
    """RMS difference over the RMS of `a`; infinite if the lengths differ (another number of channels)."""
    if len(a) != len(b):
        return math.inf
    return math.dist(a, b) / max(math.hypot(*a), 1e-12)


def same(a: Sequence[float], b: Sequence[float], tolerance: float = TOLERANCE) -> bool:
    return distance(a, b) <= tolerance


def matches(module: Domain | None, base: Domain) -> bool:
    """Whether a module is known to be of the base's domain: by fingerprints if both have one, else by name."""
    if module is None:
        return False
    if module.fingerprint is not None and base.fingerprint is not None:
        return same(base.fingerprint, module.fingerprint)
    return module.name == base.name


def write(folder: Path, domain: Domain) -> None:
    """Writes a module's domain into its folder, after training."""
    atomic_write(folder / FILE, domain.model_dump_json(indent=1) + "\n")


def read(folder: Path) -> Domain | None:
    """The domain that a folder declares, or None. Raises StudioError if the file is not valid."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        return Domain.model_validate(json.loads(read_text(path)))
    except (ValidationError, ValueError) as error:
        raise StudioError(f"{path} is not a valid latent domain: restore it or train the module again") from error


def require_same(module_id: str, module: Domain | None, base_id: str, base: Domain, what: str = "OMS module") -> None:
    """Raises StudioError, naming both domains, unless the module's domain is known to be the base's."""
    if matches(module, base):
        return
    declared = "does not declare a latent domain" if module is None else f"is of latent domain {module.name!r}"
    raise StudioError(
        f"the {what} {module_id!r} {declared} and the base model {base_id!r} is of {base.name!r}: "
        "use a module of that domain, or force it (expect colour casts)"
    )
