"""Scenes as pictures and as latents, drawn once and kept on disk, and the batches that the stages learn from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from diffusers import AutoencoderKL
from tqdm.auto import tqdm
from transformers import CLIPTokenizer

from oms_app.paths import atomic_path, atomic_write
from oms_app.training.loop import Batch, bfloat16_pays, pick_device
from oms_app.training.lumen import autoencoder, text_encoder
from oms_app.training.lumen.recipe import CAPTION_DROPOUT, HELD_OUT
from oms_app.training.scenes import painter as scenes
from oms_app.training.scenes.captions import Facts, names_ground

AT_ONCE = 16  # pictures in the autoencoder
PART = 2_000  # scenes a file


@dataclass(frozen=True)
class EncodedScenes:
    """latents: (N, 4, 32, 32) float16, scaled; captions: several a scene; facts: what is true of each."""

    latents: np.ndarray
    captions: list[list[str]]
    facts: list[Facts]


def _picture(seed: int) -> np.ndarray:
    return scenes.draw(seed).image


def unseen_pictures(count: int) -> np.ndarray:
    """(count, 256, 256, 3) uint8: the first scenes that nothing is trained on."""
    return np.stack([_picture(HELD_OUT + i) for i in range(count)])


def draw_pictures(work: Path, count: int) -> np.ndarray:
    """The first `count` scenes, (count, 256, 256, 3) uint8, drawn by all cores once and kept on disk."""
    path = work / f"pictures-{count}.npy"
    if not path.exists():
        shape = (count, scenes.SIZE, scenes.SIZE, 3)
        with atomic_path(path) as temporary, ProcessPoolExecutor() as pool:
            array = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
            drawn = pool.map(_picture, range(count), chunksize=32)
            for i, picture in enumerate(tqdm(drawn, total=count, desc="drawing scenes")):
                array[i] = picture
            array.flush()
    return np.load(path, mmap_mode="r")


def vae_key(vae: AutoencoderKL) -> str:
    """Identifies whose latents they are: a hash of the encoder in float16 and of the scaling factor."""
    digest = hashlib.sha256(str(vae.config.scaling_factor).encode())
    for module in (vae.encoder, vae.quant_conv):
        for value in module.state_dict().values():
            digest.update(value.detach().cpu().half().numpy().tobytes())
    return digest.hexdigest()[:8]


def encode_scenes(
    vae: AutoencoderKL,
    work: Path,
    count: int,
    device: str,
    first: int = 0,
    style: Callable[[np.ndarray], np.ndarray] | None = None,
) -> EncodedScenes:
    """`count` scenes from seed `first` on as latents and captions, made once and kept on disk in parts of PART scenes.

    style: what is done to each picture, (256, 256, 3) uint8, before it is encoded. A stopped run goes on with the parts
    that are missing, and more scenes later cost only those that are new.
    """
    kind = vae_key(vae) + (f"-{style.__name__}" if style else "")
    starts = range(first, first + count, PART)
    parts = [(start, min(PART, first + count - start), work / f"scenes-{kind}-{start}") for start in starts]
    missing = [part for part in parts if _kept(*part[1:]) is None]
    if missing:
        where = pick_device(device)
        vae = vae.to(where)
        with ProcessPoolExecutor() as pool:
            for start, size, path in tqdm(missing, desc="encoding scenes", unit="part"):
                _encode_part(vae, pool.map(scenes.draw, range(start, start + size), chunksize=32), size, path, style)
        vae.to("cpu")
    made = [part for _, size, path in parts if (part := _kept(size, path)) is not None]
    return EncodedScenes(
        np.concatenate([part.latents for part in made]),
        [captions for part in made for captions in part.captions],
        [facts for part in made for facts in part.facts],
    )


def _kept(size: int, path: Path) -> EncodedScenes | None:
    """The first `size` scenes of a part, None if fewer are on disk."""
    captions_path = path.with_suffix(".json")
    if not captions_path.exists():
        return None
    entries = json.loads(captions_path.read_text())[:size]
    if len(entries) < size:
        return None
    latents = np.load(path.with_suffix(".npy"))[:size]
    return EncodedScenes(latents, [e["captions"] for e in entries], [Facts(**e["facts"]) for e in entries])


def _encode_part(
    vae: AutoencoderKL,
    drawn: Iterable[scenes.Scene],
    size: int,
    path: Path,
    style: Callable[[np.ndarray], np.ndarray] | None,
) -> None:
    where = vae.device
    entries: list[dict[str, Any]] = []
    latents: list[np.ndarray] = []
    waiting: list[np.ndarray] = []
    for scene in drawn:
        waiting.append(style(scene.image) if style else scene.image)
        entries.append({"captions": scene.captions, "facts": asdict(scene.facts)})
        if len(waiting) == AT_ONCE or len(entries) == size:
            with torch.autocast(where.type, torch.bfloat16, enabled=bfloat16_pays(where)):
                latents.append(autoencoder.encode(vae, np.stack(waiting), where).half().numpy())
            waiting.clear()
    with atomic_path(path.with_suffix(".npy")) as temporary, temporary.open("wb") as file:
        np.save(file, np.concatenate(latents))
    atomic_write(path.with_suffix(".json"), json.dumps(entries))  # last: a part without it is made again


def unet_batches(
    encoded: EncodedScenes,
    tokenizer: CLIPTokenizer,
    size: Callable[[], int],
    device: torch.device,
    seed: tuple[int, ...],
    named_share: float = 0.0,
) -> Iterator[Batch]:
    """Random scenes, each with one of its captions; a tenth of the captions is empty, for guidance.

    named_share: of each batch, its first scenes, those drawn from the captions that name a ground's colour ("named").
    All captions are tokenized once, and everything is kept on `device`: a step copies only its indices there.
    """
    captions = encoded.captions
    flat = [caption for several in captions for caption in several]
    ids = text_encoder.tokens(tokenizer, [*flat, ""]).to(device)
    starts = np.cumsum([0, *(len(several) for several in captions)])
    counts = np.diff(starts)
    naming = _naming(encoded, starts) if named_share else np.empty((0, 2), np.int64)
    latents = torch.from_numpy(encoded.latents).to(device)
    rng = np.random.default_rng((*seed, PartialState().process_index))
    while True:
        count = size()
        index = rng.integers(len(captions), size=count)
        caption = starts[index] + (rng.random(count) * counts[index]).astype(np.int64)
        caption[rng.random(count) < CAPTION_DROPOUT] = len(flat)  # the empty one
        named = round(named_share * count) if len(naming) else 0
        index[:named], caption[:named] = naming[rng.integers(max(len(naming), 1), size=named)].T
        chosen = torch.from_numpy(index).to(device)
        yield {
            "latents": latents[chosen].float(),
            "tokens": ids[torch.from_numpy(caption).to(device)],
            "scenes": chosen,
            "named": torch.arange(count, device=device) < named,
        }


def _naming(encoded: EncodedScenes, starts: Sequence[int] | np.ndarray) -> np.ndarray:
    """(M, 2): scenes, and the numbers of those of their captions that name the ground's colour."""
    pairs = [
        (i, int(starts[i]) + k)
        for i, facts in enumerate(encoded.facts)
        if facts.ground
        for k, caption in enumerate(encoded.captions[i])
        if names_ground(caption, facts)
    ]
    return np.array(pairs, np.int64).reshape(-1, 2)
