"""Captioned pictures as latents and prompt embeddings, computed once and stored on disk, so training reads no pictures.

The work is cut into parts. Each process of a run makes its share of them, and a stopped run resumes with the
unfinished ones.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from tqdm.auto import tqdm

from oms_app.errors import StudioError, one_line
from oms_app.models.text import TextEncoder
from oms_app.paths import atomic_path, atomic_write
from oms_app.training.data import Captioned, open_square, some
from oms_app.training.loop import Batch
from oms_app.training.lumen import autoencoder
from oms_app.training.lumen.recipe import CAPTION_DROPOUT

log = logging.getLogger(__name__)
PART = 64  # pictures
AT_ONCE = 4  # pictures in the autoencoder


@dataclass(frozen=True)
class EncodedPictures:
    """latents: (N, C, h, w) float16, scaled. hidden: (N, L, D) float16. empty: (L, D), the embedding of "".

    usable: the numbers of the pictures that could be read; `skipped` names the others. truncated: how many captions
    were longer than the encoder reads.
    """

    latents: np.ndarray
    hidden: np.ndarray
    empty: np.ndarray
    usable: np.ndarray
    skipped: tuple[str, ...]
    truncated: int

    def batches(self, count: int, device: torch.device, seed: tuple[int, ...]) -> Iterator[Batch]:
        """Random pictures, `count` at a time, each process its own; a tenth without their caption, for guidance."""
        rng = np.random.default_rng((*seed, PartialState().process_index))
        while True:
            index = rng.choice(self.usable, size=count)
            hidden = self.hidden[index]
            hidden[rng.random(count) < CAPTION_DROPOUT] = self.empty
            yield {
                "latents": torch.from_numpy(self.latents[index].astype(np.float32)).to(device),
                "hidden": torch.from_numpy(hidden.astype(np.float32)).to(device),
            }


def encode(
    pictures: Sequence[Captioned], vae: Any, text: TextEncoder, side: int, folder: Path, processes: PartialState
) -> EncodedPictures:
    """Encodes what is not in `folder` yet; every process calls it with the same arguments and gets the same answer.

    side: pixels. Raises StudioError if no picture can be read, and for latents or embeddings that are not finite.
    """
    empty = text.encode([""])[0].half().cpu().numpy()
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    shape = (len(pictures), vae.config.latent_channels, side // factor, side // factor)
    with processes.main_process_first():
        latents = _array(folder / "latents.npy", shape)
        hidden = _array(folder / "hidden.npy", (len(pictures), *empty.shape))
    starts = range(0, len(pictures), PART)
    parts = [(start, folder / f"part-{start // PART:06}.json") for start in starts]
    mine = parts[processes.process_index :: processes.num_processes]
    waiting = [(start, mark) for start, mark in mine if not mark.is_file()]
    vae.to(processes.device)
    for start, mark in tqdm(waiting, desc="encoding", unit="part", disable=not processes.is_main_process):
        part = pictures[start : start + PART]
        result = _encode_part(part, start, vae, text, side, latents, hidden)
        for array in (latents, hidden):
            array.flush()
        atomic_write(mark, json.dumps(result))  # the marker is written last: a part without one is computed again
    vae.to("cpu")
    log.info("process %d of %d encoded %d parts", processes.process_index + 1, processes.num_processes, len(waiting))
    processes.wait_for_everyone()
    marks = [json.loads(mark.read_text()) for _, mark in parts]
    unread = {number for mark in marks for number in mark["unread"]}
    usable = np.array([number for number in range(len(pictures)) if number not in unread], dtype=np.int64)
    skipped = tuple(pictures[number].name for number in sorted(unread))
    if not len(usable):
        raise StudioError(f"none of the {len(pictures)} pictures can be read: {some(skipped)}; give JPEG, PNG or WebP")
    return EncodedPictures(latents, hidden, empty, usable, skipped, sum(mark["truncated"] for mark in marks))


def _array(path: Path, shape: tuple[int, ...]) -> np.memmap:
    """A float16 array on disk, created if it is missing; several processes may write parts of it."""
    if not path.is_file():
        need, free = 2 * math.prod(shape), shutil.disk_usage(path.parent).free
        if need > free:  # writing to a mapped file on a full disk would end the process without a message
            raise StudioError(
                f"{path} needs {need / 1e9:.1f} GB and the disk has {free / 1e9:.1f}: free some, or give another --out"
            )
        with atomic_path(path) as temporary:
            np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float16, shape=shape).flush()
    array = np.lib.format.open_memmap(path, mode="r+")
    if array.shape != shape:
        raise StudioError(f"{path} belongs to other pictures: delete {path.parent} and start again")
    return array


def _encode_part(
    part: Sequence[Captioned],
    start: int,
    vae: Any,
    text: TextEncoder,
    side: int,
    latents: np.ndarray,
    hidden: np.ndarray,
) -> dict[str, Any]:
    unread: list[int] = []
    for first in range(0, len(part), AT_ONCE):
        squares, numbers = [], []
        for number, one in enumerate(part[first : first + AT_ONCE], start + first):
            try:
                squares.append(open_square(one, side, (5, number)))
                numbers.append(number)
            except StudioError as error:
                log.warning("%s cannot be read (%s): skipped", one.name, one_line(error))
                unread.append(number)
        if not squares:
            continue
        made = autoencoder.encode(vae, np.stack(squares), vae.device, batch=AT_ONCE)
        embeddings = text.encode([one.caption for one in part[first : first + AT_ONCE]])
        for what, values in (("latents", made), ("embeddings", embeddings)):
            if not torch.isfinite(values.half()).all():
                raise StudioError(
                    f"the {what} of {part[first].name} are not finite: the model is damaged: download it again"
                )
        latents[numbers] = made.half().cpu().numpy()
        hidden[start + first : start + first + len(embeddings)] = embeddings.half().cpu().numpy()
    return {"unread": unread, "truncated": sum(bool(text.beyond(one.caption)) for one in part)}
