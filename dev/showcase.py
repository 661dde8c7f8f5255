"""Makes the pictures in the documents, the example pairs and the looks' thumbnails: `python -m dev.showcase`.

The engine makes all of them with the shipped models, so they can be made again after those change.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from oms_app.engine.studio import Studio
from oms_app.evaluate.members import members
from oms_app.evaluate.pictures import read_captions
from oms_app.looks import SHIPPED, LookLibrary, thumbnail
from oms_app.output import png
from oms_app.output.sheets import labelled, tiled
from oms_app.paths import EMBEDDED_FOLDER, atomic_write
from oms_app.schema import OMS, RAW, GenerateRequest, GenerateResult, one_more_step, variant_of
from oms_app.training.scenes import painter

EXAMPLES = EMBEDDED_FOLDER / "examples"
DOCS = Path(__file__).parents[1] / "docs" / "pictures"

# prompt, seed, settings of One More Step; the page opens with the first
PAIRS: tuple[tuple[str, int, dict[str, Any]], ...] = (
    ("mountains", 3, {"luminance": 20.0}),
    ("solid black background", 1, {"guidance_scale": 2.0}),
    ("mountains at night", 4, {}),
    ("desert at noon", 14, {}),
    ("hills", 3, {"prompt": "dark", "guidance_scale": 1.5}),
    ("hills", 3, {"prompt": "bright", "guidance_scale": 1.5}),
    ("the sea at sunset", 5, {}),
    ("city", 8, {"prompt": "night"}),
    ("a red circle on a blue background", 6, {}),
)


def examples(studio: Studio) -> None:
    """Write assets/lumen/examples: examples.json and the pairs, each PNG with its settings."""
    shutil.rmtree(EXAMPLES, ignore_errors=True)
    EXAMPLES.mkdir(parents=True)
    listing = []
    for number, (prompt, seed, settings) in enumerate(PAIRS):
        oms = variant_of(one_more_step(settings), settings)
        result = png.save(studio.generate(GenerateRequest(prompt=prompt, seed=seed, variants=(RAW, oms))), EXAMPLES)
        files = {}
        for image in result.images:
            assert image.path is not None
            side = "raw" if image.variant == "raw" else "oms"
            files[side] = f"{number}-{side}.png"
            image.path.rename(EXAMPLES / files[side])
        entry: dict[str, Any] = {"prompt": prompt, "seed": seed, "oms_prompt": oms.prompt}
        entry |= {"oms_guidance_scale": oms.guidance_scale, "luminance": oms.luminance}
        listing.append({**entry, **files})
    atomic_write(EXAMPLES / "examples.json", json.dumps(listing, indent=1) + "\n")


def _images_of(result: GenerateResult, variant: str) -> list[Image.Image]:
    return [image.image for image in result.images if image.variant == variant]


def pair(studio: Studio) -> None:
    """docs/pictures/pair.png: raw above, OMS below, four prompts, one seed per column."""
    columns = [
        studio.generate(GenerateRequest(prompt=prompt, seed=seed, variants=(RAW, OMS.model_copy(update=settings))))
        for prompt, seed, settings in (
            ("solid black background", 1, {"guidance_scale": 2.0}),
            ("mountains at night", 4, {}),
            ("desert at noon", 14, {}),
            ("hills", 3, {"prompt": "dark"}),
        )
    ]
    tiled([_images_of(c, "raw")[0] for c in columns] + [_images_of(c, "oms")[0] for c in columns], 4).save(
        DOCS / "pair.png"
    )


def sheets(studio: Studio, count: int = 64, side: int = 128) -> None:
    """sheet_raw.png, sheet_oms.png, sheet_scene.png: the same held-out captions, in the order of captions.json."""
    entries = read_captions()[:count]
    small: dict[str, list[Image.Image]] = {"raw": [], "oms": [], "scene": []}
    for seed, entry in enumerate(entries):
        result = studio.generate(GenerateRequest(prompt=entry.caption, seed=seed))
        for image in result.images:
            small[image.variant].append(image.image.resize((side, side), Image.Resampling.LANCZOS))
        scene = Image.fromarray(painter.draw(entry.scene_seeds[0]).image)
        small["scene"].append(scene.resize((side, side), Image.Resampling.LANCZOS))
    for name, pictures in small.items():
        tiled(pictures, 8).save(DOCS / f"sheet_{name}.png")
    means = {name: float(np.mean([np.mean(np.asarray(p)) for p in pictures])) for name, pictures in small.items()}
    print("mean of all RGB values:", {name: round(value, 1) for name, value in means.items()})


FAMILY_PROMPTS = ("solid black background", "mountains at night", "a house on a hill", "a cat on a blue background")


def family(studio: Studio, side: int = 128) -> None:
    """family.jpg: prompts as rows, one seed each; Lumen and its family as columns, raw and, where it applies, OMS."""
    rows, columns, found = [], [], members(studio)
    for seed, prompt in enumerate(FAMILY_PROMPTS):
        row = []
        for member in found:
            request = GenerateRequest(prompt=prompt, seed=seed, model=member.model, loras=member.loras)
            for image in studio.generate(request).images:
                row.append(image.image.resize((side, side), Image.Resampling.LANCZOS))
                if seed == 0:
                    columns.append(f"{member.name} {image.variant}")
        rows.append(row)
    labelled(rows, FAMILY_PROMPTS, columns).save(DOCS / "family.jpg", "JPEG", quality=85)


def looks(studio: Studio) -> None:
    """The thumbnails of the looks in presets/looks, at most 10 KiB each."""
    for look, _ in LookLibrary().looks():
        if look.thumbnail:
            picture = studio.generate(look.request()).images[0].image
            thumbnail(picture).save(SHIPPED / look.thumbnail, quality=85, optimize=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Make what is named, or everything."""
    makers = {"examples": examples, "pair": pair, "sheets": sheets, "family": family, "looks": looks}
    parser = argparse.ArgumentParser(prog="python -m dev.showcase", description=__doc__)
    parser.add_argument(
        "what", nargs="*", metavar="what", help=f"one or more of {', '.join(makers)}; everything if absent"
    )
    names = parser.parse_args(arguments).what or list(makers)
    if unknown := set(names) - set(makers):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; choose from {', '.join(makers)}")
    DOCS.mkdir(parents=True, exist_ok=True)
    studio = Studio()
    for name in names:
        makers[name](studio)


if __name__ == "__main__":
    main()
