"""`generate`: pictures of every variant from one noise."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from oms_app.cli.console import output_on_stderr, print_result, table
from oms_app.cli.options import (
    DeviceOption,
    JsonOption,
    MemoryOption,
    ModelOption,
    PrecisionOption,
    VariantsOption,
    open_studio,
    parse_lora,
    parse_variants,
)
from oms_app.errors import StudioError
from oms_app.paths import user_folder
from oms_app.schema import GenerateRequest, GenerateResult

app = typer.Typer()


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="What the picture shows.")],
    model: ModelOption = "lumen",
    variants: VariantsOption = "raw,oms",
    oms_prompt: Annotated[str | None, typer.Option(help='Absent: the main prompt. "": the unconditional one.')] = None,
    oms_guidance_scale: Annotated[float, typer.Option(help="OMS CFG, 0 to 30.")] = 1.0,
    oms_prompt_b: Annotated[str | None, typer.Option(help="The other end of the OMS prompt slider.")] = None,
    oms_mix: Annotated[float, typer.Option(help="(1-S) of the OMS prompt and S of --oms-prompt-b.")] = 0.0,
    oms_module: Annotated[str | None, typer.Option(help="A catalogue id, or a folder; else the base's own.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Use a module of another latent domain.")] = False,
    offset_strength: Annotated[float, typer.Option(help="Of offset_noise, 0 to 2.")] = 0.1,
    offset_per: Annotated[
        str, typer.Option(help="Of offset_noise: one value for each channel, or picture.")
    ] = "channel",
    negative_prompt: Annotated[str, typer.Option(help="What to keep away from; needs a CFG above 1.")] = "",
    guidance_scale: Annotated[float | None, typer.Option(help="CFG, 0 to 30.")] = None,
    guidance_rescale: Annotated[float | None, typer.Option(help="0 to 1, for zero-SNR models; 0.7 is usual.")] = None,
    steps: Annotated[int | None, typer.Option(help="1 to 200.")] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="ddim, pndm, dpm++2m, unipc, lcm, euler, euler-a, heun.")
    ] = None,
    lora: Annotated[list[str] | None, typer.Option(help="A .safetensors file, or FILE:SCALE; may be repeated.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    memory: MemoryOption = "auto",
    seed: Annotated[int | None, typer.Option(help="Absent: drawn, and reported.")] = None,
    count: Annotated[int, typer.Option(help="Pictures of each variant; image i has seed + i.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Folder for the PNGs; else pictures/ in the user's folder.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Pictures of every variant from one noise."""
    settings = {
        "offset_strength": offset_strength,
        "offset_per": offset_per,
        "prompt": oms_prompt,
        "prompt_b": oms_prompt_b,
        "mix": oms_mix,
        "guidance_scale": oms_guidance_scale,
        "module": oms_module,
        "force": force,
    }
    request = GenerateRequest.model_validate(
        {
            "prompt": prompt,
            "negative_prompt": negative_prompt,
            "model": model,
            "variants": parse_variants(variants, settings),
            "loras": [parse_lora(text) for text in lora or ()],
            "seed": seed,
            "count": count,
            "num_inference_steps": steps,
            "guidance_scale": guidance_scale,
            "guidance_rescale": guidance_rescale,
            "scheduler": scheduler,
            "width": width,
            "height": height,
        }
    )
    folder = out or user_folder() / "pictures"
    if folder.exists() and not folder.is_dir():
        raise StudioError(f"--out {folder} is a file: name a folder")
    with output_on_stderr() as progress:
        studio = open_studio(device, precision=precision, memory=memory)
        from oms_app.output import png

        result = png.save(studio.generate(request, on_progress=progress), folder)
    _print(result, as_json)


def _print(result: GenerateResult, as_json: bool) -> None:
    images: list[dict[str, Any]] = [
        {
            "variant": image.variant,
            "index": image.index,
            "seed": image.seed,
            "path": str(image.path),
            "mean": image.stats.mean,
            "lightness": image.stats.lightness,
        }
        for image in result.images
    ]
    printed = {
        "seed": result.seed,
        "model": result.request.model,
        "images": images,
        "seconds": result.seconds.model_dump(),
        "notes": list(result.notes),
    }
    rows = [(i["variant"], i["seed"], f"{i['mean']:.1f}", f"{i['lightness']:.1f}", i["path"]) for i in images]
    shown = table(("variant", "seed", "mean RGB", "L*", "file"), rows)
    print_result(printed, as_json, shown, *result.notes, f"{result.seconds.total:.1f} s")
