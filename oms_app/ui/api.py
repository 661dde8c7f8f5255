"""The public endpoints of the page: /generate, /preview and /statistics, for gradio_client and curl (docs/api.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import Parameter, Signature
from typing import Any

import gradio as gr
from gradio import utils
from gradio.data_classes import FileData
from gradio.processing_utils import save_pil_to_cache
from pydantic import ValidationError

from oms_app.engine.service import StudioService
from oms_app.errors import StudioError, argument_of, describe, unread_notes
from oms_app.fields import REQUEST_FIELDS, VARIANT_FIELDS, RequestField
from oms_app.prestep.corrections import CORRECTIONS, DIAL, variant_settings
from oms_app.schema import GenerateRequest, ImageResult, one_more_step, unread_settings, variant_of, variants_of
from oms_app.ui import gradio_compat
from oms_app.ui.events import DEVICE
from oms_app.ui.generation import save
from oms_app.ui.jobs import StopFlag
from oms_app.ui.model_choice import available_models

# Names of fields in the order of the endpoint's arguments. gradio_client takes them without names too. Over HTTP they
# must be named, because a registered correction may add some.
TEXTS = ("prompt", "negative_prompt")
OMS = ("prompt", "prompt_b", "mix", "guidance_scale")
PICTURE = ("model", "guidance_scale", "num_inference_steps", "scheduler", "width", "height", "seed")


def add_endpoints(service: StudioService) -> None:
    """Adds them to the current Blocks."""
    _add_generate(service)
    _add_preview(service)
    _add_statistics(service)


def _add_generate(service: StudioService) -> None:
    def generate(values: dict[str, Any]) -> dict[str, Any]:
        settings = {name: values[field.argument_name] for name, field in _settings().items()}
        variants = values["variants"] or (["raw", one_more_step(settings)] if values["oms"] else ["raw"])
        request = {name: values[name] for name in (*TEXTS, *PICTURE, "guidance_rescale", "exact")}
        request |= {"model": _known(service, values["model"]), "variants": variants_of(variants, settings)}
        session = gradio_compat.session_of_event()
        asked = GenerateRequest.model_validate(request)
        result = save(service, service.generate(asked, should_stop=StopFlag(session).is_set), session)
        unread = unread_settings(request["variants"], settings)
        pictures = [
            {"variant": image.variant, **_answer(image), "reached": [one.model_dump() for one in image.reached]}
            for image in result.images
        ]
        return {"seed": result.seed, "images": pictures, "notes": [*result.notes, *unread_notes(unread, argument_of)]}

    settings = _settings()
    first = [settings.pop(name) for name in OMS]
    parameters = [
        *(_parameter(REQUEST_FIELDS[name]) for name in TEXTS),
        Parameter("oms", Parameter.POSITIONAL_OR_KEYWORD, default=True, annotation=bool),
        *(_parameter(field, field.argument_name) for field in first),
        *(_parameter(REQUEST_FIELDS[name]) for name in PICTURE),
        Parameter("variants", Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=list[str] | None),
        _parameter(REQUEST_FIELDS["guidance_rescale"]),
        *(_parameter(field, field.argument_name) for field in settings.values()),
        _parameter(REQUEST_FIELDS["exact"]),
    ]
    description = f"""Generates one picture for each variant, all from the same noise.

    variants: ids of corrections ({", ".join(CORRECTIONS)}); null means raw and oms, raw and dial with a setting of
    dial, or only raw if oms is false.
    Returns {{"seed", "images": [{{"variant", "seed", "mean", "lightness", "image", "reached"}}], "notes"}}; images are
    PNG files, reached is what a dial asked for and got: [{{"what", "asked", "got", "difference", "text", "meaning"}}].
    Left out or null: the model's default; for oms_prompt the main prompt, for seed a random one."""
    gr.api(
        _endpoint(generate, parameters, description), api_name="generate", concurrency_id=DEVICE, concurrency_limit=1
    )


def _add_preview(service: StudioService) -> None:
    def preview(values: dict[str, Any]) -> dict[str, Any]:
        settings = {field.name: values[field.argument_name] for field in fields}
        request = {name: values[name] for name in ("prompt", "width", "height", "seed")}
        variant = variant_of(one_more_step(settings), settings)
        request |= {"model": _known(service, values["model"]), "variants": (variant,)}
        found = service.preview(GenerateRequest.model_validate(request))
        if found is None:
            raise StudioError("the device is busy with a request: try again later")
        return _answer(found[0])

    fields = [field for field in CORRECTIONS[DIAL].options if not field.chooses_model]
    dials = [field for field in fields if field.name not in OMS]
    parameters = [
        _parameter(REQUEST_FIELDS["prompt"]),
        *(_parameter(VARIANT_FIELDS[name], VARIANT_FIELDS[name].argument_name) for name in OMS),
        *(_parameter(REQUEST_FIELDS[name]) for name in ("model", "width", "height")),
        _parameter(REQUEST_FIELDS["seed"]).replace(default=0, annotation=int),
        *(_parameter(field, field.argument_name) for field in dials),
    ]
    description = """The OMS preview, without a generation: the decoded x0 prediction, in the light that was set.

    Returns {"seed", "mean", "lightness", "image"}; the image is a PNG file. An error if the device is busy.
    Left out or null: the model's default; for oms_prompt the main prompt."""
    gr.api(_endpoint(preview, parameters, description), api_name="preview")


def _settings() -> dict[str, RequestField]:
    """What callers may set of the corrections: everything but which module of this machine is used."""
    return {name: field for name, field in variant_settings().items() if not field.chooses_model}


def _parameter(field: RequestField, name: str = "") -> Parameter:
    required = field.default is None and not field.optional
    default = Parameter.empty if required else field.default
    annotation: Any = field.kind | None if field.optional else field.kind
    return Parameter(name or field.name, Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotation)


def _endpoint(
    answer: Callable[[dict[str, Any]], dict[str, Any]], parameters: list[Parameter], description: str
) -> Callable[..., dict]:
    """A function as Gradio wants it: one argument for each parameter; the caller's errors become one line."""

    def endpoint(*arguments: Any) -> dict:
        with _errors():
            return answer(dict(zip([parameter.name for parameter in parameters], arguments, strict=True)))

    endpoint.__doc__ = description
    endpoint.__signature__ = Signature(parameters, return_annotation=dict)  # type: ignore[attr-defined]
    endpoint.__annotations__ = {one.name: one.annotation for one in parameters} | {"return": dict}
    return endpoint


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
        raise gr.Error(describe(error, argument_of), print_exception=False) from error
    except StudioError as error:
        raise gr.Error(str(error), print_exception=False) from error


def _known(service: StudioService, model: str) -> str:
    """The id of a model of the catalogue. Nothing else: callers must not name folders of this machine."""
    known = sorted(info.id for info in available_models(service, "base"))
    if model not in known:
        raise StudioError(f"unknown model {model!r}: choose one of {', '.join(known)}")
    return model


def _answer(image: ImageResult) -> dict[str, Any]:
    path = image.path or save_pil_to_cache(image.image, cache_dir=utils.get_upload_folder(), format="png")
    return {
        "seed": image.seed,
        "mean": image.stats.mean,
        "lightness": image.stats.lightness,
        "image": FileData(path=str(path), mime_type="image/png").model_dump(),
    }
