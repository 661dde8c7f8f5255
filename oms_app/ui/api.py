"""The public endpoints of the page: /generate, /preview, /cancel and lists, for gradio_client (docs/api.md)."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from inspect import Parameter, Signature, signature
from typing import Any, TypedDict

import gradio as gr
from gradio import utils
from gradio.context import Context
from gradio.data_classes import FileData
from gradio.processing_utils import save_pil_to_cache
from pydantic import ValidationError

from oms_app.engine.service import StudioService
from oms_app.errors import StudioError, argument_of, describe, unread_notes
from oms_app.fields import REQUEST_FIELDS, VARIANT_FIELDS, RequestField
from oms_app.prestep.corrections import CORRECTIONS, DIAL, variant_settings
from oms_app.schema import (
    GenerateRequest,
    ImageResult,
    Lora,
    Variant,
    one_more_step,
    unread_settings,
    variant_of,
    variants_of,
)
from oms_app.ui import gradio_compat
from oms_app.ui.events import DEVICE
from oms_app.ui.fair_queue import begins_with_new_flag, end_waiting
from oms_app.ui.generation import save
from oms_app.ui.jobs import StopFlags
from oms_app.ui.model_choice import available_models

# Names of fields in the order of the endpoint's arguments. gradio_client takes them without names too. Over HTTP they
# must be named, because a registered correction may add some.
TEXTS = ("prompt", "negative_prompt")
OMS = ("prompt", "prompt_b", "mix", "guidance_scale")
PICTURE = ("model", "guidance_scale", "num_inference_steps", "scheduler", "width", "height", "seed")
# Arguments that are no fields: type, default, and what they mean.
EXTRA: Mapping[str, tuple[Any, Any, str]] = {
    "oms": (bool, True, "False: only the raw picture."),
    "variants": (
        list[str | dict] | None,
        None,
        f"Ids of corrections ({', '.join(CORRECTIONS)}), or variants with settings of their own, such as "
        '{"name": "darker", "correction": "oms", "prompt": "dark"}. Null: raw and oms, or raw and dial with a dial.',
    ),
    "loras": (list[str] | None, None, "LoRAs of the catalogue, each as ID or ID:STRENGTH."),
    "look": (str | None, None, "A look, as /looks lists them: its words around the prompt, and its light."),
    "png": (bool, False, "True: each picture also as the bytes of its PNG file, in Base64."),
}


class ReachedAnswer(TypedDict):
    """What a dial asked for and got."""

    what: str
    asked: float | str
    got: float | str
    difference: float | None
    text: str
    meaning: str


class PictureAnswer(TypedDict):
    """image: a PNG file; its path for gradio_client, over HTTP a table with its `url`. png: Base64, if it was asked
    for."""

    variant: str
    index: int
    seed: int
    mean: float
    lightness: float
    image: dict
    png: str | None
    reached: list[ReachedAnswer]


class Answer(TypedDict):
    seed: int
    images: list[PictureAnswer]
    notes: list[str]


class PreviewAnswer(TypedDict):
    seed: int
    mean: float
    lightness: float
    image: dict


class ModelAnswer(TypedDict):
    """defaults: of a base model, else empty."""

    id: str
    kind: str
    title: str
    licence: str
    domain: str | None
    available: bool
    defaults: dict


class LookAnswer(TypedDict):
    id: str
    title: str
    description: str
    prefix: str
    suffix: str
    settings: dict


class StatisticsAnswer(TypedDict):
    """models: loaded now. budget: bytes. hits, misses, evictions: counts since the start."""

    models: int
    bytes_used: int
    budget: int
    hits: int
    misses: int
    evictions: int


def add_endpoints(service: StudioService) -> None:
    """Adds them to the current Blocks."""
    flags = StopFlags()
    _add_generate(service, flags)
    _add_preview(service)
    _add_lists(service)

    blocks = Context.root_block
    assert blocks is not None

    async def cancel(request: gr.Request) -> bool:
        """Stops this client's calls of /generate: the running one within one step, and those that wait in the queue.

        They end with an error that says so."""
        flags.of(request.session_hash).set()
        end_waiting(blocks, request.session_hash, "generate", "stopped")
        return True

    gr.api(_typed(cancel), api_name="cancel", queue=False)


def _add_generate(service: StudioService, flags: StopFlags) -> None:
    def generate(values: dict[str, Any], caller: gr.Request) -> Any:
        session = caller.session_hash if caller else None
        stop = flags.of(session)
        request, unread = _request(service, values)
        result = save(service, service.generate(request, should_stop=stop.is_set), session)
        pictures = [
            {
                "variant": image.variant,
                "index": image.index,
                **_answer(image),
                "png": _base64(image) if values["png"] else None,
                "reached": [one.model_dump() for one in image.reached],
            }
            for image in result.images
        ]
        return {"seed": result.seed, "images": pictures, "notes": [*result.notes, *unread_notes(unread, argument_of)]}

    settings = _settings()
    first = [settings.pop(name) for name in OMS]
    parameters = [
        *(_parameter(REQUEST_FIELDS[name]) for name in TEXTS),
        _extra("oms"),
        *(_parameter(field, field.argument_name) for field in first),
        *(_parameter(REQUEST_FIELDS[name]) for name in PICTURE),
        _extra("variants"),
        _parameter(REQUEST_FIELDS["guidance_rescale"]),
        *(_parameter(field, field.argument_name) for field in settings.values()),
        _parameter(REQUEST_FIELDS["exact"]),
        _parameter(REQUEST_FIELDS["count"]),
        *map(_extra, ("loras", "look", "png")),
    ]
    description = """Generates pictures of each variant, all from the same noise; picture i of count has seed + i.

    Left out or null: the model's default; for oms_prompt the main prompt, for seed a random one."""
    endpoint = _endpoint(generate, parameters, Answer, description)
    gr.api(endpoint, api_name="generate", concurrency_id=DEVICE, concurrency_limit=1)
    begins_with_new_flag(flags)
    gradio_compat.describe_parameters(_descriptions(parameters))


def _request(service: StudioService, values: Mapping[str, Any]) -> tuple[GenerateRequest, list[RequestField]]:
    """What the arguments of /generate ask for, and the settings that nothing reads."""
    prompt = values["prompt"]
    settings = {name: values[field.argument_name] for name, field in _settings().items()}
    if values["look"]:
        look = service.looks.find(values["look"])
        given = {name: value for name, value in settings.items() if value != variant_settings()[name].default}
        own = look.variant()
        settings |= {name: getattr(own, name) for name in settings if name in type(own).model_fields} | given
        prompt = look.wrap(prompt)
    variants = values["variants"] or (["raw", one_more_step(settings)] if values["oms"] else ["raw"])
    request = {name: values[name] for name in (*TEXTS, *PICTURE, "guidance_rescale", "exact", "count")}
    made = [
        _named(service, one) if isinstance(one, dict) else variants_of((one,), settings)[0] for one in variants[:64]
    ]
    request |= {"model": _known(service, values["model"]), "variants": tuple(made), "prompt": prompt}
    request["loras"] = tuple(_lora(service, text) for text in values["loras"] or ())
    return GenerateRequest.model_validate(request), unread_settings(made, settings)


def _named(service: StudioService, settings: Mapping[str, Any]) -> Variant:
    """A variant with settings of its own. It may name a module of the catalogue, no file of this machine."""
    module = settings.get("module")
    if module is not None and module not in {info.id for info in service.models()}:
        raise StudioError(f"unknown module {str(module)[:60]!r}: leave it out, or name one of /models")
    return Variant.model_validate(dict(settings))


def _lora(service: StudioService, text: str) -> Lora:
    name, _, strength = str(text).partition(":")
    known = sorted(info.id for info in available_models(service, "lora"))
    if name not in known:
        raise StudioError(f"unknown LoRA {name[:60]!r}: choose one of {', '.join(known) or 'those you download'}")
    try:
        return Lora(id=name, scale=float(strength or 1.0))
    except ValueError as error:
        raise StudioError(f"the LoRA is {str(text)[:60]!r}: write ID or ID:STRENGTH") from error


def _add_preview(service: StudioService) -> None:
    def preview(values: dict[str, Any], caller: gr.Request) -> Any:
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

    An error if the device is busy. Left out or null: the model's default; for oms_prompt the main prompt."""
    gr.api(_endpoint(preview, parameters, PreviewAnswer, description), api_name="preview")
    gradio_compat.describe_parameters(_descriptions(parameters))


def _settings() -> dict[str, RequestField]:
    """What callers may set of the corrections: everything but which module of this machine is used."""
    return {name: field for name, field in variant_settings().items() if not field.chooses_model}


def _parameter(field: RequestField, name: str = "") -> Parameter:
    required = field.default is None and not field.optional
    default = Parameter.empty if required else field.default
    annotation: Any = field.kind | None if field.optional else field.kind
    return Parameter(name or field.name, Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotation)


def _extra(name: str) -> Parameter:
    kind, default, _ = EXTRA[name]
    return Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=kind)


def _descriptions(parameters: list[Parameter]) -> dict[str, str]:
    """What each argument means, what it may be, and what leaving it out means."""
    fields = {field.argument_name: field for field in variant_settings().values()} | dict(REQUEST_FIELDS)
    found = {}
    for one in parameters:
        if one.name in EXTRA:
            found[one.name] = EXTRA[one.name][2]
            continue
        field = fields[one.name]
        sentences = [field.help.removesuffix("."), field.permitted, f"absent: {field.absent}" if field.absent else ""]
        found[one.name] = " ".join(f"{text[0].upper()}{text[1:]}." for text in sentences if text)
    return found


def _endpoint(
    answer: Callable[[dict[str, Any], Any], Any], parameters: list[Parameter], kind: type, description: str
) -> Callable[..., Any]:
    """A function as Gradio wants it: one argument for each parameter; the caller's errors become one line."""
    names = [parameter.name for parameter in parameters]

    def endpoint(*arguments: Any) -> Any:
        *values, caller = arguments
        with _errors():
            return answer(dict(zip(names, values, strict=True)), caller)

    caller = Parameter("caller", Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=gr.Request)
    endpoint.__doc__ = description
    endpoint.__signature__ = Signature([*parameters, caller], return_annotation=kind)  # type: ignore[attr-defined]
    endpoint.__annotations__ = {one.name: one.annotation for one in (*parameters, caller)} | {"return": kind}
    return endpoint


def _typed(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """With its annotations as types, not as text, as Gradio wants them."""
    endpoint.__signature__ = signature(endpoint, eval_str=True)  # type: ignore[attr-defined]
    return endpoint


def _add_lists(service: StudioService) -> None:
    def models() -> list[ModelAnswer]:
        """The catalogue: id, kind (base, oms, lora …), title, licence, domain, whether it is on this machine."""
        return [
            ModelAnswer(
                id=info.id, kind=info.kind, title=info.title, licence=info.licence, domain=info.domain,
                available=info.available, defaults=info.defaults.model_dump(mode="json") if info.defaults else {},
            )
            for info in service.models()
        ]  # fmt: skip

    def looks() -> list[LookAnswer]:
        """The looks: words before and after the prompt, and settings of their variant."""
        return [
            {"id": look.id, "title": look.title, "description": look.description, "prefix": look.prefix,
             "suffix": look.suffix, "settings": look.variant().model_dump(mode="json", exclude_defaults=True)}
            for look, _ in service.looks.looks()
        ]  # fmt: skip

    def words(model: str = "lumen") -> list[str]:
        """The words that a small model knows; empty for a model that reads any word."""
        with _errors():
            return service.vocabulary(_known(service, model))

    def statistics() -> StatisticsAnswer:
        """The models in memory."""
        with _errors():
            return service.statistics()  # type: ignore[return-value]

    for endpoint in (models, looks, words, statistics):
        gr.api(_typed(endpoint), api_name=endpoint.__name__, queue=False)
    gradio_compat.describe_parameters({})


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


def _base64(image: ImageResult) -> str:
    """The bytes of the saved PNG, with its settings."""
    if image.path is not None:
        return base64.b64encode(image.path.read_bytes()).decode()
    buffer = io.BytesIO()
    image.image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _answer(image: ImageResult) -> dict[str, Any]:
    path = image.path or save_pil_to_cache(image.image, cache_dir=utils.get_upload_folder(), format="png")
    return {
        "seed": image.seed,
        "mean": image.stats.mean,
        "lightness": image.stats.lightness,
        "image": FileData(path=str(path), mime_type="image/png").model_dump(),
    }
