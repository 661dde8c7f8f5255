"""The public endpoints of the page: /generate, /preview and /statistics, for gradio_client and curl (docs/api.md)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr
from gradio import utils
from gradio.data_classes import FileData
from gradio.processing_utils import save_pil_to_cache
from pydantic import ValidationError

from oms_app.engine.service import StudioService
from oms_app.errors import StudioError, describe, label_of
from oms_app.schema import RAW, GenerateRequest, ImageResult, Variant
from oms_app.ui.events import DEVICE
from oms_app.ui.generation import save
from oms_app.ui.model_choice import available_models


def add_endpoints(service: StudioService) -> None:
    """Adds them to the current Blocks."""
    _add_generate(service)
    _add_preview(service)
    _add_statistics(service)


def _add_generate(service: StudioService) -> None:
    def generate(
        prompt: str,
        negative_prompt: str = "",
        oms: bool = True,
        oms_prompt: str | None = None,
        oms_prompt_b: str | None = None,
        oms_mix: float = 0.0,
        oms_guidance_scale: float = 1.0,
        model: str = "lumen",
        guidance_scale: float | None = None,
        num_inference_steps: int | None = None,
        scheduler: str | None = None,
        width: int | None = None,
        height: int | None = None,
        seed: int | None = None,
    ) -> dict:
        """Generates the raw picture and, with oms, the corrected one from the same seed.

        Returns {"seed", "images": [{"variant", "seed", "mean", "lightness", "image"}], "notes"}; images are PNG files.
        Left out or null: the model's default; for oms_prompt the main prompt, for seed a random one.
        """
        with _errors():
            variants = [RAW]
            if oms:
                variants.append(_oms(oms_prompt, oms_prompt_b, oms_mix, oms_guidance_scale))
            request = GenerateRequest.model_validate(
                {
                    "prompt": prompt,
                    "negative_prompt": negative_prompt,
                    "variants": tuple(variants),
                    "model": _known(service, model),
                    "guidance_scale": guidance_scale,
                    "num_inference_steps": num_inference_steps,
                    "scheduler": scheduler,
                    "width": width,
                    "height": height,
                    "seed": seed,
                }
            )
            result = save(service, service.generate(request))
        pictures = [{"variant": image.variant, **_answer(image)} for image in result.images]
        return {"seed": result.seed, "images": pictures, "notes": list(result.notes)}

    gr.api(generate, api_name="generate", concurrency_id=DEVICE, concurrency_limit=1)


def _add_preview(service: StudioService) -> None:
    def preview(
        prompt: str,
        oms_prompt: str | None = None,
        oms_prompt_b: str | None = None,
        oms_mix: float = 0.0,
        oms_guidance_scale: float = 1.0,
        model: str = "lumen",
        width: int | None = None,
        height: int | None = None,
        seed: int = 0,
    ) -> dict:
        """The OMS preview, without a generation: the decoded x0 prediction of the OMS module.

        Returns {"seed", "mean", "lightness", "image"}; the image is a PNG file. An error if the device is busy.
        Left out or null: the model's default; for oms_prompt the main prompt.
        """
        with _errors():
            oms = _oms(oms_prompt, oms_prompt_b, oms_mix, oms_guidance_scale)
            found = service.preview(
                GenerateRequest.model_validate(
                    {
                        "prompt": prompt,
                        "variants": (oms,),
                        "model": _known(service, model),
                        "width": width,
                        "height": height,
                        "seed": seed,
                    }
                )
            )
            if found is None:
                raise StudioError("the device is busy with a request: try again later")
        return _answer(found[0])

    gr.api(preview, api_name="preview")


def _add_statistics(service: StudioService) -> None:
    def statistics() -> dict:
        """The models in memory: {"models": loaded now, "bytes_used", "budget": bytes, "hits", "misses": loads,
        "evictions": counts since the start}."""
        with _errors():
            return service.statistics()

    gr.api(statistics, api_name="statistics", queue=False)


@contextmanager
def _errors() -> Iterator[None]:
    """Errors that the caller can correct, as one line without a traceback."""
    try:
        yield
    except ValidationError as error:
        raise gr.Error(describe(error, label_of), print_exception=False) from error
    except StudioError as error:
        raise gr.Error(str(error), print_exception=False) from error


def _known(service: StudioService, model: str) -> str:
    """The id of a model of the catalogue. Only these: a caller from outside names no folders of this machine."""
    known = sorted(info.id for info in available_models(service, "base"))
    if model not in known:
        raise StudioError(f"unknown model {model!r}: choose one of {', '.join(known)}")
    return model


def _oms(prompt: str | None, prompt_b: str | None, mix: float, guidance_scale: float) -> Variant:
    settings = {"prompt": prompt, "prompt_b": prompt_b, "mix": mix, "guidance_scale": guidance_scale}
    return Variant.model_validate({"name": "oms", "correction": "oms", **settings})


def _answer(image: ImageResult) -> dict[str, Any]:
    path = image.path or save_pil_to_cache(image.image, cache_dir=utils.get_upload_folder(), format="png")
    return {
        "seed": image.seed,
        "mean": image.stats.mean,
        "lightness": image.stats.lightness,
        "image": FileData(path=str(path), mime_type="image/png").model_dump(),
    }
