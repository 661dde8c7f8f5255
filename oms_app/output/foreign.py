"""Settings in pictures of other programs: A1111, Forge, SD.Next, ComfyUI, InvokeAI, Fooocus and SwarmUI.

Whatever cannot be restored is named. A picture may come from anyone: texts are bounded, no pixel is decoded, and every
value is validated as a field of a request.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from oms_app.errors import StudioError
from oms_app.fields import REQUEST_FIELDS
from oms_app.output import comfyui
from oms_app.output.text_chunks import MAX_TEXT, SIGNATURE, read_texts
from oms_app.pictures import MAX_OWN_PIXELS, open_picture, reading
from oms_app.schedulers import SCHEDULER_SPECS

USER_COMMENT, MAKER_NOTE, MAKE, CAMERA_MODEL, EXIF = 0x9286, 0x927C, 0x010F, 0x0110, 0x8769  # of Exif 2.3
MAX_LORAS, MAX_PAIRS, MAX_UNREAD = 16, 200, 12
# Samplers by their names in the other programs, in lower case without "sample_" and "k_".
SAMPLERS = {spec.a1111_name.lower(): name for name, spec in SCHEDULER_SPECS.items()} | {
    "euler_ancestral": "euler-a", "euler_a": "euler-a", "dpmpp_2m": "dpm++2m", "dpm++2m": "dpm++2m", "uni_pc": "unipc",
    "unipc": "unipc", "pndm": "pndm", "plms": "pndm", "ddim": "ddim", "lcm": "lcm", "heun": "heun", "euler": "euler",
}  # fmt: skip
PLAIN_SCHEDULES = {"", "normal", "automatic", "simple", "uniform", "default", "none"}
# What A1111's line may have besides the settings that are restored, by how its name begins, if it changes the picture.
MATTERS = ("Clip skip", "Denoising", "Hires", "ControlNet", "ENSD", "VAE", "Refiner", "Variation", "Face restoration",
           "Tiling", "ADetailer model", "Distilled", "Styles", "Token merging", "FreeU Stages", "RNG", "Eta", "Soft",
           "Module", "Init image", "Mask")  # fmt: skip
WITHOUT_EFFECT = {"Clip skip": "1", "ENSD": "0", "Tiling": "False", "Hires Module 1": "Use same choices"}
UNREAD_OF_INVOKEAI = ("clip_skip", "refiner_model", "vae", "controlnets", "ipAdapters", "t2iAdapters", "hrf_enabled",
                      "init_image")  # fmt: skip


@dataclass
class ForeignSettings:
    """What a picture of another program says.

    settings: fields of a request, validated. model, model_hash: as they are named there, "" if they are not. loras:
    names and strengths. unread: what is not restored, in words.
    """

    program: str
    settings: dict[str, Any] = field(default_factory=dict)
    model: str = ""
    model_hash: str = ""
    loras: list[tuple[str, float]] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)

    def set(self, name: str, value: Any) -> None:
        """A field of the request, if there is a value and it is permitted."""
        if value is None or value == "":
            return
        one = REQUEST_FIELDS[name]
        try:
            if isinstance(value, str) and one.kind is not str:
                value = one.kind(value)
            if one.kind is int and isinstance(value, float) and value.is_integer():
                value = int(value)
            self.settings[name] = TypeAdapter(one.required.annotation).validate_python(value)
        except (ValidationError, ValueError, OverflowError):
            self.unread.append(f"{one.label} {str(value)[:30]} ({one.permitted or 'not valid'})")

    def set_sampler(self, sampler: Any, schedule: Any = "") -> None:
        """The scheduler, and its noise schedule, which is the model's own here."""
        name, schedule = str(sampler or "").strip(), str(schedule or "").strip()
        plain = re.sub(r"^(sample_|k_)", "", name.lower())
        for ending in (" karras", "_karras", " exponential", "_k"):
            if plain.endswith(ending):
                plain, schedule = plain.removesuffix(ending), "karras" if ending != " exponential" else "exponential"
        if plain in SAMPLERS:
            self.settings["scheduler"] = SAMPLERS[plain]
        elif name:
            self.unread.append(f"sampler {name[:40]}")
        if schedule.lower() not in PLAIN_SCHEDULES:
            self.unread.append(f"noise schedule {schedule[:40]}")

    def add_lora(self, name: Any, strength: Any) -> None:
        if len(self.loras) < MAX_LORAS and isinstance(name, str) and name:
            number = strength if isinstance(strength, int | float) and not isinstance(strength, bool) else 1.0
            self.loras.append((name[:200], float(number)))


def read_foreign(path: Path) -> ForeignSettings:
    """The settings of another program in a PNG, JPEG or WebP. Raises StudioError if there are none that can be read."""
    try:
        texts = _texts(path)
    except (OSError, ValueError) as error:
        raise StudioError(f"{path.name} cannot be read as a picture: choose a PNG, JPEG or WebP file") from error
    for keyword, reader in READERS.items():
        if text := texts.get(keyword):
            try:
                found = reader(text, texts)
            except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
                raise StudioError(f"the settings in {path.name} cannot be read ({str(error)[:80]})") from error
            del found.unread[MAX_UNREAD:]
            return found
    raise StudioError(f"{path.name} contains no settings: choose a picture as its program saved it, not a copy")


def _texts(path: Path) -> dict[str, str]:
    """By keyword, as a PNG has them. JPEG and WebP have them in Exif."""
    with path.open("rb") as file:
        if file.read(8) == SIGNATURE:
            return read_texts(path)
    with open_picture(path, ("JPEG", "WEBP"), MAX_OWN_PIXELS) as image, reading(path, ("JPEG", "WEBP")):
        exif = image.getexif()
        inner = exif.get_ifd(EXIF)
    found: dict[str, str] = {}
    for value in (exif.get(MAKE), exif.get(CAMERA_MODEL)):  # ComfyUI: `prompt:{…}` and `workflow:{…}`
        keyword, colon, text = str(value or "")[:MAX_TEXT].partition(":")
        if colon:
            found[keyword.lower()] = text
    if comment := _decoded(inner.get(USER_COMMENT)):
        found.setdefault("prompt" if comment.startswith('{"') and '"class_type"' in comment else "parameters", comment)
    if maker := _decoded(inner.get(MAKER_NOTE)):
        found["fooocus_scheme"] = maker
    return found


def _decoded(value: Any) -> str:
    """A text of Exif: eight bytes name its encoding. Programs differ in the byte order of UNICODE."""
    if isinstance(value, str):
        return value[:MAX_TEXT]
    if not isinstance(value, bytes) or len(value) > MAX_TEXT:
        return ""
    code, text = value[:8], value[8:]
    if code == b"UNICODE\0":
        # Most characters of settings are ASCII, whose zero byte comes first in big-endian order.
        big = text[0:400:2].count(0) >= text[1:400:2].count(0)
        return text.decode("utf-16-be" if big else "utf-16-le", "replace")
    if code in (b"ASCII\0\0\0", b"\0" * 8):
        return text.decode("utf-8", "replace")
    return value.decode("utf-8", "replace")


# Each program


def _a1111(text: str, texts: Mapping[str, str]) -> ForeignSettings:
    """`parameters` of A1111, Forge, SD.Next and others; JSON of Fooocus or SwarmUI."""
    if text.lstrip().startswith("{"):
        content = json.loads(text)
        return _swarm(content) if "sui_image_params" in content else _fooocus(content)
    prompt, negative, pairs = split_parameters(text)
    version = pairs.get("Version", "")
    program = "Fooocus" if "Fooocus" in version else "Forge" if version.startswith("f") else "A1111"
    program = "SD.Next" if pairs.get("App") == "SD.Next" or "Parser" in pairs else program
    found = ForeignSettings(program)
    found.set("prompt", _without_loras(prompt, found))
    found.set("negative_prompt", _without_loras(negative, found))
    for name, key in (("seed", "Seed"), ("num_inference_steps", "Steps"), ("guidance_scale", "CFG scale")):
        found.set(name, pairs.get(key))
    _set_size(found, re.findall(r"\d+", pairs.get("Size", ""))[:2])
    found.set_sampler(pairs.get("Sampler"), pairs.get("Schedule type"))
    found.model, found.model_hash = pairs.get("Model", "")[:200], pairs.get("Model hash", "")[:80]
    for key, value in pairs.items():
        if key.startswith(MATTERS) and not key.endswith("hash") and WITHOUT_EFFECT.get(key) != value:
            found.unread.append(f"{key[:40]} {value[:40]}")
    return found


def split_parameters(text: str) -> tuple[str, str, dict[str, str]]:
    """Prompt, negative prompt and the pairs of the last line, as A1111 writes them."""
    lines = text.strip().splitlines()
    number, pairs = len(lines), {}
    for i in range(len(lines) - 1, max(-1, len(lines) - 50), -1):
        found = _pairs(lines[i])
        if len({"Steps", "Sampler", "CFG scale", "Seed", "Size", "Model"} & found.keys()) >= 2:
            number, pairs = i, found
            break
    above = lines[:number]
    if not pairs and (at := text.rfind("Steps: ")) >= 0:  # a copy that lost its line breaks
        above, pairs = text[:at].splitlines(), _pairs(text[at:])
    if not pairs:
        raise ValueError("no line has its steps, sampler and seed")
    prompt, _, negative = "\n".join(above).partition("Negative prompt:")
    return prompt.strip().removeprefix("parameters").strip(), negative.strip(), pairs


def _pairs(line: str) -> dict[str, str]:
    """`Name: value, Name: "a quoted value, with commas", …`. Read from left to right, in linear time."""
    found: dict[str, str] = {}
    position = 0
    while position < len(line) and len(found) < MAX_PAIRS:
        colon = line.find(":", position)
        if colon < 0:
            break
        name = line[position:colon].rpartition(",")[2].strip()
        position = colon + 1
        while line[position : position + 1] == " ":
            position += 1
        if line[position : position + 1] in ('"', "{", "["):
            try:
                value, end = json.JSONDecoder().raw_decode(line, position)
                value = value if isinstance(value, str) else line[position:end]
            except (ValueError, RecursionError):
                end = line.find(",", position) % (len(line) + 1)
                value = line[position:end]
        else:
            end = line.find(",", position) % (len(line) + 1)  # -1, none, becomes the end of the line
            value = line[position:end].strip()
        position = end
        if name:
            found.setdefault(name, value)
    return found


def _without_loras(text: str, found: ForeignSettings) -> str:
    """The prompt without A1111's tags `<lora:name:strength>`, which are added to the LoRAs."""
    for name, strength in re.findall(r"<(?:lora|lyco):([^:<>]{1,200})(?::([^<>]{0,100}))?>", text[:MAX_TEXT]):
        try:
            found.add_lora(name, float(strength.split(":")[0] or 1.0))
        except ValueError:
            found.add_lora(name, 1.0)
    return re.sub(r"[ ,]*<(?:lora|lyco):[^<>]{1,300}>", "", text).strip(" ,")


def _comfyui(text: str, texts: Mapping[str, str]) -> ForeignSettings:
    said = comfyui.read_graph(json.loads(text))
    found = ForeignSettings("ComfyUI", model=str(said.get("ckpt_name", ""))[:200])
    names = {"prompt": "positive", "negative_prompt": "negative", "seed": "seed", "num_inference_steps": "steps",
             "guidance_scale": "cfg", "width": "width", "height": "height"}  # fmt: skip
    for name, key in names.items():
        found.set(name, said.get(key))
    found.set_sampler(said.get("sampler_name"), said.get("scheduler"))
    for name, strength in said["loras"]:
        found.add_lora(name, strength)
    if said["samplers"] > 1:
        found.unread.append("all samplers but the first")
    if said.get("denoise") not in (None, 1, 1.0):
        found.unread.append(f"denoise {str(said['denoise'])[:40]}")
    return found


def _invokeai(text: str, texts: Mapping[str, str]) -> ForeignSettings:
    said = json.loads(text)
    found = ForeignSettings("InvokeAI")
    names = {"prompt": "positive_prompt", "negative_prompt": "negative_prompt", "seed": "seed", "width": "width",
             "num_inference_steps": "steps", "guidance_scale": "cfg_scale", "height": "height"}  # fmt: skip
    for name, key in names.items():
        found.set(name, said.get(key))
    if said.get("cfg_rescale_multiplier"):
        found.set("guidance_rescale", said["cfg_rescale_multiplier"])
    found.set_sampler(said.get("scheduler"))
    model = said.get("model") or {}
    found.model = str(model.get("name") or model.get("model_name") or "")[:200]
    found.model_hash = str(model.get("hash") or "")[:80]
    for one in (said.get("loras") or [])[:MAX_LORAS]:
        inner = one.get("model") or one.get("lora") or {}
        found.add_lora(inner.get("name") or inner.get("model_name"), one.get("weight"))
    for side in ("positive", "negative"):
        if said.get(f"{side}_style_prompt") not in (None, "", said.get(f"{side}_prompt")):
            found.unread.append(f"{side} style prompt")
    for key in UNREAD_OF_INVOKEAI:
        if said.get(key):
            found.unread.append(key.replace("_", " "))
    return found


def _invokeai_2(text: str, texts: Mapping[str, str]) -> ForeignSettings:
    """`sd-metadata` of InvokeAI 2 and 3.0."""
    said = json.loads(text)
    image = said.get("image") or {}
    found = ForeignSettings("InvokeAI", model=str(said.get("model_weights", ""))[:200])
    found.model_hash = str(said.get("model_hash") or "")[:80]
    prompt = image.get("prompt")
    if isinstance(prompt, list):
        prompt = " ".join(str(one.get("prompt", "")) for one in prompt[:20])
    _set_bracketed(found, str(prompt or ""))
    for name, key in (("seed", "seed"), ("num_inference_steps", "steps"), ("guidance_scale", "cfg_scale")):
        found.set(name, image.get(key))
    _set_size(found, [image.get("width"), image.get("height")])
    found.set_sampler(image.get("sampler"))
    return found


def _dream(text: str, texts: Mapping[str, str]) -> ForeignSettings:
    """`Dream` of InvokeAI 1 and 2: a command line."""
    words = shlex.split(text[:20_000])
    said = dict(pairwise(words))
    found = ForeignSettings("InvokeAI")
    _set_bracketed(found, words[0])
    for name, key in (("seed", "-S"), ("num_inference_steps", "-s"), ("guidance_scale", "-C")):
        found.set(name, said.get(key))
    _set_size(found, [said.get("-W"), said.get("-H")])
    found.set_sampler(said.get("-A"))
    return found


def _fooocus(said: Mapping[str, Any]) -> ForeignSettings:
    found = ForeignSettings("Fooocus")
    names = {"prompt": "prompt", "negative_prompt": "negative_prompt", "seed": "seed", "num_inference_steps": "steps",
             "guidance_scale": "guidance_scale"}  # fmt: skip
    for name, key in names.items():
        found.set(name, said.get(key))
    _set_size(found, re.findall(r"\d+", str(said.get("resolution", ""))[:60])[:2])
    found.set_sampler(said.get("sampler"), said.get("scheduler"))
    found.model = str(said.get("base_model", ""))[:200]
    found.model_hash = str(said.get("base_model_hash", ""))[:80]
    for one in (said.get("loras") or [])[:MAX_LORAS]:
        found.add_lora(one[0], one[1])
    styles = said.get("styles")
    if styles and str(styles) != "[]":
        found.unread.append(f"styles {str(styles)[:60]}")
    for key in ("refiner_model", "sharpness", "performance"):
        if said.get(key) not in (None, "", "None"):
            found.unread.append(f"{key.replace('_', ' ')} {str(said[key])[:40]}")
    return found


def _swarm(content: Mapping[str, Any]) -> ForeignSettings:
    said = content["sui_image_params"]
    found = ForeignSettings("SwarmUI", model=str(said.get("model", ""))[:200])
    names = {"prompt": "prompt", "negative_prompt": "negativeprompt", "seed": "seed", "num_inference_steps": "steps",
             "guidance_scale": "cfgscale", "width": "width", "height": "height"}  # fmt: skip
    for name, key in names.items():
        value = said.get(key)
        found.set(name, _without_loras(value, found) if isinstance(value, str) and "prompt" in name else value)
    found.set_sampler(said.get("sampler"), said.get("scheduler"))
    return found


def _set_size(found: ForeignSettings, size: list[Any]) -> None:
    for name, value in zip(("width", "height"), size, strict=False):
        found.set(name, value)


def _set_bracketed(found: ForeignSettings, prompt: str) -> None:
    """A prompt whose negative part stands in square brackets."""
    found.set("prompt", re.sub(r"\s*\[[^\[\]]*\]", "", prompt).strip())
    found.set("negative_prompt", ", ".join(re.findall(r"\[([^\[\]]*)\]", prompt)))


# By keyword, the most telling first: Fooocus and InvokeAI may write `parameters` as well.
READERS: dict[str, Callable[[str, Mapping[str, str]], ForeignSettings]] = {
    "invokeai_metadata": _invokeai,
    "sd-metadata": _invokeai_2,
    "Dream": _dream,
    "parameters": _a1111,
    "prompt": _comfyui,
    "workflow": _comfyui,
}
