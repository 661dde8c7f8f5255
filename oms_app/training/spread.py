"""A spread head for an OMS module, trained on rendered scenes: `python -m oms_app train oms --spread`.

The module's mean is not trained. Its own text encoder reads the captions and its own prediction is subtracted (OMS CFG
1), exactly as when a picture is made, so the head learns what remains of x0's low frequencies.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from tqdm.auto import tqdm

from oms_app.errors import StudioError
from oms_app.models import spread_files
from oms_app.models.loading import OWN_ENCODER, LoadedModule, load_module
from oms_app.models.reading import read_vocabulary
from oms_app.models.text import TextEncoder, load_encoder
from oms_app.paths import atomic_path
from oms_app.prestep.spread import SpreadConfig, SpreadHead, deviation_of, pool
from oms_app.prestep.step import predicted_x0
from oms_app.training.loop import pick_device
from oms_app.training.lumen import autoencoder, stages
from oms_app.training.scenes import painter as scenes

log = logging.getLogger(__name__)
SCENES = 4_000
PART = 250  # scenes a file
CAPTIONS = 2  # of a scene's captions, the first ones
AT_ONCE = 32  # captions in the module
STEPS, BATCH, RATE = 3_000, 256, 1e-3
UNSEEN = 0.1  # share of the scenes, the last ones, on which the head is chosen
CHECK_EVERY = 100  # steps


Draw = Callable[[int], scenes.Scene]


@dataclass(frozen=True)
class Source:
    """What deviations are computed from: scenes, an autoencoder, a module and the text encoder that it reads."""

    draw: Draw
    vae: AutoencoderKL
    module: LoadedModule
    encoder: TextEncoder
    modes: int

    def key(self) -> str:
        """A hash of all of it."""
        digest = hashlib.sha256(f"{self.draw.__module__} {self.modes} {self.vae.config.scaling_factor}".encode())
        for network in (self.vae.encoder, self.vae.quant_conv, self.module.unet, self.encoder.model):
            for value in network.state_dict().values():
                digest.update(value.detach().cpu().numpy().tobytes())
        return digest.hexdigest()[:12]


def draw_of(base: Path) -> Draw:
    """The painter of the scenes that a base was trained on, by its vocabulary. Raises StudioError if there is none."""
    if read_vocabulary(base) == frozenset(part for word in scenes.VOCABULARY for part in word.lower().split()):
        return scenes.draw
    raise StudioError(f"{base} was not trained on the scenes that this command draws: use lumen")


def encoder_of(module: LoadedModule, folder: Path, base: Path, base_id: str, device: torch.device) -> TextEncoder:
    """The text encoder that a module reads prompts with. Raises StudioError if it names one that is not the base's."""
    if module.encoder_name not in (OWN_ENCODER, base_id):
        raise StudioError(f"{folder} reads prompts with the encoder of {module.encoder_name!r}: give it as the base")
    return load_encoder(folder if module.encoder_name == OWN_ENCODER else base, device, torch.float32)


def deviations(source: Source, work: Path, count: int) -> tuple[Tensor, Tensor]:
    """Pooled embeddings (count, CAPTIONS, 2D) and deviations (count, CAPTIONS, C·k²) of the first `count` scenes.

    Made once and kept on disk in parts; a stopped run goes on with the parts that are missing.
    """
    key, made = source.key(), []
    parts = [range(start, min(start + PART, count)) for start in range(0, count, PART)]
    paths = [work / f"spread-{key}-{seeds.start}-{len(seeds)}.npz" for seeds in parts]
    missing = [(path, seeds) for path, seeds in zip(paths, parts, strict=True) if not path.exists()]
    with ProcessPoolExecutor() as pool:
        for path, seeds in tqdm(missing, desc="scenes", unit="part"):
            pooled, values = _part(source, list(pool.map(source.draw, seeds, chunksize=32)), seeds.start)
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                np.savez(file, pooled=pooled.numpy(), deviations=values.numpy())
    for path in paths:
        with np.load(path) as stored:
            made.append((torch.from_numpy(stored["pooled"]), torch.from_numpy(stored["deviations"])))
    return torch.cat([pooled for pooled, _ in made]), torch.cat([values for _, values in made])


@torch.no_grad()
def _part(source: Source, drawn: Sequence[scenes.Scene], seed: int) -> tuple[Tensor, Tensor]:
    device = source.module.device
    latents = autoencoder.encode(source.vae, np.stack([scene.image for scene in drawn]), device)
    captions = [scene.captions[:CAPTIONS] for scene in drawn]
    texts = list(dict.fromkeys(text for several in captions for text in several))
    generator = torch.Generator().manual_seed(seed)
    pooled, predicted = [], []
    for i in range(0, len(texts), AT_ONCE):
        hidden = source.encoder.encode(texts[i : i + AT_ONCE])
        x_s = torch.randn((len(hidden), *latents.shape[1:]), generator=generator).to(device)
        pooled.append(pool(hidden).cpu())
        predicted.append(predicted_x0(source.module.predict(x_s, hidden)).float().cpu())
    which = torch.tensor([[texts.index(text) for text in several] for several in captions])
    x0 = latents[:, None].expand(-1, CAPTIONS, -1, -1, -1).flatten(0, 1)
    values = deviation_of(x0, torch.cat(predicted)[which.flatten()], source.modes)
    return torch.cat(pooled)[which], values.unflatten(0, which.shape)


def fit(config: SpreadConfig, pooled: Tensor, values: Tensor, steps: int = STEPS) -> SpreadHead:
    """The head with the greatest likelihood on the last tenth of the scenes, among those of the run.

    pooled: (N, captions, 2D). values: (N, captions, C·k²).
    """
    torch.manual_seed(0)
    head = SpreadHead(config)
    seen = len(pooled) - max(1, round(len(pooled) * UNSEEN))
    x, y = pooled.flatten(0, 1), values.flatten(0, 1)
    border = seen * pooled.shape[1]
    centre, scale = x[:border].mean(0), x[:border].std(0) + 1e-3
    spectrum, vectors = torch.linalg.eigh(torch.cov(y[:border].T.double()))
    basis = (vectors * spectrum.clamp(min=1e-8).sqrt()).float()
    y = torch.linalg.solve(basis, y.T).T
    x = (x - centre) / scale
    optimizer = torch.optim.AdamW(head.parameters(), lr=RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    best, kept = -np.inf, head.state_dict()
    head.train()
    for step in tqdm(range(1, steps + 1), desc="spread head", mininterval=5):
        index = torch.randint(border, (min(BATCH, border),))
        loss = -head(x[index]).log_prob(y[index]).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % CHECK_EVERY == 0 or step == steps:
            score = _likelihood(head, x[border:], y[border:])
            if score > best:
                best, kept = score, {name: value.clone() for name, value in head.state_dict().items()}
                log.info("step %d: log likelihood %.3f, on unseen scenes %.3f", step, -float(loss.detach()), score)
    head.load_state_dict(kept)
    head.eval()
    with torch.no_grad():  # the first layer takes embeddings as they are
        first: Any = head.layers[0]
        first.bias -= first.weight @ (centre / scale)
        first.weight /= scale
        head.get_buffer("basis").copy_(basis)
    return head


@torch.no_grad()
def _likelihood(head: SpreadHead, x: Tensor, y: Tensor) -> float:
    """Mean log likelihood, without dropout."""
    head.eval()
    score = float(head(x).log_prob(y).mean())
    head.train()
    return score


def train(
    *,
    base: Path,
    out: Path,
    base_id: str | None = None,
    device: str = "auto",
    count: int | None = None,
    smoke: bool = False,
    work: Path | None = None,
    draw: Draw | None = None,
) -> Path:
    """Train a head for the OMS module in the folder `out`, of the Lumen-shaped base in `base`, and write it there.

    base_id: the name by which the module may call the base; None takes the folder's. count: scenes. draw: how a scene
    is drawn from its seed; None takes those that the base was trained on. Run it again to resume. Returns `out`.
    Raises StudioError if `out` contains no OMS module.
    """
    if not (out / "oms_module").is_dir():
        raise StudioError(f"{out} contains no OMS module: train one there first, or name the folder of one")
    where = pick_device(device)
    module = load_module(out, where, torch.float32)
    encoder = encoder_of(module, out, base, base_id or base.name, where)
    work = work or stages.work_folder(base, smoke)
    work.mkdir(parents=True, exist_ok=True)
    config = SpreadConfig(
        text_width=module.unet.config["cross_attention_dim"], channels=module.unet.config["in_channels"]
    )
    vae = stages.load(base).vae.to(where)
    source = Source(draw or draw_of(base), vae, module, encoder, config.modes)
    pooled, values = deviations(source, work, count or (24 if smoke else SCENES))
    head = fit(config, pooled, values, steps=20 if smoke else STEPS)
    spread_files.write(out, head)
    log.info("spread head of %d scenes written to %s", len(pooled), out)
    return out
