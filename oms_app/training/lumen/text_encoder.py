"""Lumen's tokenizer and text encoder: CLIP's architecture with a vocabulary of a few hundred words.

As Stable Diffusion took an encoder that CLIP had taught what captions mean, ours learns to read before the UNet
is trained: from a caption it predicts the facts of the scene and its latents in a coarse grid. Then it stays as it is,
for the UNet, the OMS module and the whole family. Learned together with the UNet alone, words for shapes stayed without
effect for an hour, and words for colour were forgotten (dev/LOG.md).
"""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from oms_app.paths import atomic_write
from oms_app.training.loop import Batch, Plan, State, train
from oms_app.training.scenes.captions import Facts

MAX_LENGTH = 32  # tokens, start and end included
WIDTH = 128


def build_tokenizer(vocabulary: tuple[str, ...]) -> CLIPTokenizer:
    """A byte-pair tokenizer in CLIP's format in which each word of the vocabulary is one token.

    Merges are learned from the vocabulary alone until every word is whole; letters remain, so that any text can be
    written in tokens.
    """
    letters = list(string.ascii_lowercase + string.digits + ",.-'")
    raw = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>"))
    raw.normalizer = normalizers.Lowercase()
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=100_000,
        min_frequency=1,
        show_progress=False,
        end_of_word_suffix="</w>",
        special_tokens=["<|startoftext|>", "<|endoftext|>"],
        initial_alphabet=letters,
    )
    raw.train_from_iterator([*vocabulary, *letters], trainer)
    model = json.loads(raw.to_str())["model"]
    merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    return CLIPTokenizer(vocab=model["vocab"], merges=merges, model_max_length=MAX_LENGTH)


def kept_tokenizer(vocabulary: tuple[str, ...], folder: Path) -> CLIPTokenizer:
    """The tokenizer in `folder`, built first if it is not there: a second one numbers some tokens otherwise."""
    if not folder.exists():
        build_tokenizer(vocabulary).save_pretrained(folder)
    return CLIPTokenizer.from_pretrained(folder)


def build_text_encoder(tokenizer: CLIPTokenizer, width: int = WIDTH, layers: int = 3) -> CLIPTextModel:
    """Conditions on last_hidden_state, (B, 32, width), as SD1.5 does."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=MAX_LENGTH,
        projection_dim=width,
        hidden_act="quick_gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def tokens(tokenizer: CLIPTokenizer, texts: Sequence[str]) -> torch.Tensor:
    """(B, 32) ids, start, words, then end to the last place."""
    return tokenizer(
        list(texts), padding="max_length", truncation=True, max_length=MAX_LENGTH, return_tensors="pt"
    ).input_ids


FACTS = ("ground", "ground_shade", "colour", "time", "weather", "side", "style", "moon", "several")
COARSE = 4  # cells a side of the grid in which a caption's latents are predicted
COARSE_WEIGHT = 0.5


def _answers(facts: Sequence[Facts]) -> dict[str, list[str]]:
    """What is asked of a caption: its kind and subject together, then each other fact by itself."""
    return {"subject": [f"{f.kind} {f.subject}" for f in facts]} | {
        name: [str(getattr(f, name)) for f in facts] for name in FACTS
    }


class Reading(torch.nn.Module):
    """Predicts from embeddings what a caption says: a linear head for each fact, and one for the scene's latents.

    Each is asked at the end token, at the last place and in the mean. What a caption leaves unsaid can only be guessed.
    facts: one a scene. latents: (scenes, 4, h, w), averaged here to a grid of COARSE × COARSE cells.
    """

    targets: torch.Tensor  # (scenes, facts): which of its classes each fact has
    coarse: torch.Tensor  # (scenes, 4 · COARSE²)

    def __init__(self, facts: Sequence[Facts], latents: np.ndarray, width: int, end_token: int) -> None:
        super().__init__()
        answers = _answers(facts)
        classes = [sorted(set(values)) for values in answers.values()]
        targets = [[known.index(v) for v in values] for known, values in zip(classes, answers.values(), strict=True)]
        self.register_buffer("targets", torch.tensor(targets).T, persistent=False)
        coarse = F.adaptive_avg_pool2d(torch.from_numpy(latents).float(), COARSE).flatten(1)
        self.register_buffer("coarse", coarse, persistent=False)
        self.heads = torch.nn.ModuleList([torch.nn.Linear(width, len(known)) for known in classes])
        self.grid = torch.nn.Linear(width, coarse.shape[1])
        self.end_token = end_token

    def forward(self, hidden: torch.Tensor, token_ids: torch.Tensor, scenes: torch.Tensor) -> torch.Tensor:
        """The mean loss of captions: hidden (B, L, width), token_ids (B, L), scenes (B,): whose they are."""
        end = (token_ids == self.end_token).int().argmax(1)
        asked = torch.stack([hidden[torch.arange(len(hidden)), end], hidden[:, -1], hidden.mean(1)], dim=1)
        answers = self.targets[scenes].repeat_interleave(3, dim=0)
        flat = asked.flatten(0, 1)
        losses = [F.cross_entropy(head(flat).float(), answers[:, k]) for k, head in enumerate(self.heads)]
        grid = F.mse_loss(self.grid(flat).float(), self.coarse[scenes].repeat_interleave(3, dim=0))
        return torch.stack(losses).mean() + COARSE_WEIGHT * grid


def learn_to_read(
    text: CLIPTextModel,
    reading: Reading,
    batches: Callable[[torch.device, State], Iterator[Batch]],
    plan: Plan,
    *,
    work: Path,
    device: str,
) -> CLIPTextModel:
    """Train the encoder to predict a scene's facts and coarse latents from a caption. Returns it with EMA weights.

    batches: as `dataset.unet_batches` makes them.
    """

    def loss(models: torch.nn.ModuleDict, part: Batch, used: float) -> torch.Tensor:
        hidden = models["text"](part["tokens"]).last_hidden_state
        value: torch.Tensor = models["reading"](hidden, part["tokens"], part["scenes"])
        return value

    train(
        "text", torch.nn.ModuleDict({"text": text, "reading": reading}), loss, batches, plan, work=work, device=device
    )
    return text


def reading_of(text: CLIPTextModel, tokenizer: CLIPTokenizer, facts: Sequence[Facts], latents: np.ndarray) -> Reading:
    return Reading(facts, latents, text.config.hidden_size, tokenizer.eos_token_id)


def save_text_encoder(text: CLIPTextModel, folder: Path) -> None:
    """Write it in float16, to be computed in float32."""
    text.half().save_pretrained(folder)
    tidy_config(folder)


def tidy_config(folder: Path) -> None:
    """Remove the path that a part was loaded from, and have a text encoder computed in float32.

    transformers takes the type of its work from the config, so float16 weights would meet a float32 UNet.
    """
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config.pop("_name_or_path", None)
    if "dtype" in config:
        config["dtype"] = "float32"
    atomic_write(path, json.dumps(config, indent=2) + "\n")
