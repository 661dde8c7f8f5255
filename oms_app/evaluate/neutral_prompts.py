"""Fifty prompts that say nothing of light and colour, with the label of the subject classifier for each."""

from __future__ import annotations

from oms_app.training.scenes.captions import article

_LANDSCAPES = {
    "mountains": ("mountains", "mountain range", "mountain landscape", "peaks", "a photo of mountains"),
    "hills": ("hills", "rolling hills", "a picture of hills"),
    "sea": ("the sea", "ocean", "seascape", "open water", "a painting of the sea"),
    "lake": ("a lake", "mountain lake", "a lake with mountains"),
    "forest": ("a forest", "woods", "pine trees", "a view of a forest"),
    "city": ("a city", "city skyline", "skyscrapers", "town"),
    "desert": ("a desert", "sand dunes", "dunes"),
    "house": ("a house on a hill", "a cottage"),
    "flowers": ("flowers", "a meadow with flowers", "field of flowers"),
}
_SHAPES = ("circle", "square", "triangle", "star", "heart", "diamond", "hexagon", "cross", "ring", "crescent")
_FIGURES = ("ball", "flower", "tree", "fish", "mushroom", "cat")

# Subjects take turns within a kind, and kinds in proportion to their number, so that any first few hold all kinds.
_KINDS: tuple[list[tuple[str, str]], ...] = (
    [
        (texts[i], f"landscape {name}")
        for i in range(max(map(len, _LANDSCAPES.values())))
        for name, texts in _LANDSCAPES.items()
        if i < len(texts)
    ],
    [(article(name), f"shape {name}") for name in _SHAPES],
    [
        *((article(name), f"figure {name}") for name in _FIGURES),
        ("a picture of a cat", "figure cat"),
        ("a photo of a tree", "figure tree"),
    ],
)
PROMPTS: tuple[tuple[str, str], ...] = tuple(
    one
    for _, one in sorted(((i / len(kind), one) for kind in _KINDS for i, one in enumerate(kind)), key=lambda x: x[0])
)
