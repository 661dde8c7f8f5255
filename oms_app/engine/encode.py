"""Stage 2: every text that the pictures need, through its encoder; and notes on texts for the user."""

from __future__ import annotations

from oms_app.engine.caches import ByteCache
from oms_app.engine.correct import module_texts
from oms_app.engine.stages import Encoded, Planned, Resolved, extend
from oms_app.models.text import Embedding, TextEncoder, unknown_words
from oms_app.prompt_hints import unread_syntax, without_syntax

MAX_QUOTED = 60  # characters of a truncated prompt's end that a note quotes


def encode(planned: Planned, cache: ByteCache[Embedding]) -> Encoded:
    """Stage 2. The request keeps its embeddings, even if the cache evicts them."""
    request, base = planned.request, planned.base
    wanted: dict[TextEncoder, list[str]] = {}
    if planned.jobs:
        wanted[base.text] = [request.prompt, *([request.negative_prompt] if request.guided else [])]
    for job in planned.jobs:
        module = planned.modules.get(job.variant.name)
        if module and module.text:
            wanted.setdefault(module.text, []).extend(module_texts(job.variant, request))
    embeddings: dict[tuple[str, str], Embedding] = {}
    for encoder, texts in wanted.items():
        keys = [(encoder.key, text) for text in dict.fromkeys(texts)]
        embeddings |= {key: found for key in keys if (found := cache.get(key)) is not None}
        missing = [key for key in keys if key not in embeddings]
        if missing:
            for key, embedding in zip(missing, encoder.embed([text for _, text in missing]), strict=True):
                embeddings[key] = embedding
                cache.put(key, embedding, embedding.nbytes)
    return extend(planned, Encoded, embeddings=embeddings)


def text_notes(resolved: Resolved) -> list[str]:
    """What the user should know of the texts: unknown words, syntax that is not read, ignored settings, text beyond the
    encoder's limit."""
    request, entry, base = resolved.request, resolved.request.entry, resolved.base
    notes: list[str] = []
    encoders = {request.prompt: base.text, request.negative_prompt: base.text}
    for variant in request.variants:
        module = resolved.modules.get(variant.name)
        if module and module.text:
            encoders |= dict.fromkeys(module_texts(variant, request), module.text)
    notes += dict.fromkeys(said for text in encoders for said in unread_syntax(text))
    if unknown := unknown_words(base.vocabulary, *map(without_syntax, encoders)):
        notes.append(f"{entry.title} does not know: {', '.join(unknown)}")
    for text, encoder in encoders.items():
        if rest := encoder.beyond(text):
            quoted = rest if len(rest) <= MAX_QUOTED else rest[: MAX_QUOTED - 3] + "…"
            notes.append(f"a prompt is longer than {encoder.max_tokens} tokens; truncated, not read: {quoted!r}")
    if request.guidance_rescale and not request.guided:
        notes.append(f"guidance rescale is ignored at CFG {request.guidance_scale:g}: it needs a CFG above 1")
    if request.negative_prompt and not request.guided:
        notes.append(f"the negative prompt is ignored at CFG {request.guidance_scale:g}: it needs a CFG above 1")
    elif request.negative_prompt and base.pipeline.unet.config.time_cond_proj_dim is not None:
        notes.append(f"the negative prompt is ignored: {entry.title} has built-in guidance")
    return notes
