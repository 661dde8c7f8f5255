"""Pictures with settings as other programs write them: the texts are our own, their form is theirs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

PROMPT = 'a fox, (red:1.3) "fire": dusk,\nstars: 夜空, café'
NEGATIVE = "blurry, text: none,\nlow, bad"
LINE = "Steps: 28, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5, Seed: 1234567890, Size: 512x768, "


def png(path: Path, **texts: str) -> Path:
    info = PngInfo()
    for keyword, text in texts.items():
        (info.add_text if text.isascii() else info.add_itxt)(keyword, text)
    Image.new("RGB", (8, 8), (9, 8, 7)).save(path, pnginfo=info)
    return path


def a1111(path: Path) -> Path:
    text = (
        f"{PROMPT} <lora:film grain:0.7>\nNegative prompt: {NEGATIVE}\n{LINE}Model hash: 6ce0161689, Model: "
        "v1-5-pruned-emaonly, VAE hash: 63aeecb90f, VAE: vae-ft-mse.safetensors, Clip skip: 2, "
        'Lora hashes: "film grain: b5f0, other: 12ab", Version: v1.10.1'
    )
    return png(path, parameters=text)


def forge(path: Path) -> Path:
    text = (
        f"{PROMPT}\nNegative prompt: {NEGATIVE}\nSteps: 20, Sampler: Euler a, Schedule type: Automatic, CFG scale: 7, "
        "Distilled CFG Scale: 3.5, Seed: 7, Size: 896x1152, Model hash: bdb59bac77, Model: sdxl, "
        "Denoising strength: 0.4, Hires Module 1: Use same choices, "
        'Hires prompt: "a fox, big: yes\\nmore", Hires CFG Scale: 5, Hires upscale: 1.5, '
        'Hashes: {"model": "137ebf59ea", "lora": {"a": "b"}}, '
        "Version: f2.0.1v1.10.1-previous-659-gc055f2d4, Module 1: vae"
    )
    return png(path, parameters=text)


def sd_next(path: Path) -> Path:
    text = (
        f"{PROMPT}\nNegative prompt: {NEGATIVE}\nSteps: 20, Size: 640x640, Sampler: UniPC, Seed: 55, CFG scale: 6, "
        "App: SD.Next, Version: 0eb4a98, Parser: A1111, Model: dreamshaper_8, Model hash: 9d40847d, Operations: txt2img"
    )
    return png(path, parameters=text)


def exif(path: Path, kind: str, *, big: bool = True, make: str = "", model: str = "", comment: str = "") -> Path:
    tags = Image.Exif()
    if make:
        tags[0x010F] = make
    if model:
        tags[0x0110] = model
    if comment:
        tags.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + comment.encode("utf-16-be" if big else "utf-16-le")
    Image.new("RGB", (8, 8)).save(path, kind, exif=tags.tobytes())
    return path


def a1111_jpeg(path: Path) -> Path:
    return exif(path, "JPEG", comment=f"{PROMPT}\nNegative prompt: {NEGATIVE}\n{LINE}Version: v1.9.4")


def a1111_webp(path: Path) -> Path:
    return exif(path, "WEBP", big=False, comment=f"{PROMPT}\nNegative prompt: {NEGATIVE}\n{LINE}Version: v1.9.4")


def graph() -> dict[str, Any]:
    """Two samplers, the second over the first one's latents; a LoRA; a text from another node."""
    return {
        "3": {"class_type": "KSampler", "inputs": {
            "seed": 4321, "steps": 25, "cfg": 8.0, "sampler_name": "euler_ancestral", "scheduler": "normal",
            "denoise": 1.0, "model": ["10", 0], "positive": ["12", 0], "negative": ["12", 1],
            "latent_image": ["5", 0]}},
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "SD1.5/realistic.safetensors"}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": ["20", 0], "height": 512, "batch_size": 1}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": ["21", 0], "clip": ["10", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": NEGATIVE, "clip": ["10", 1]}},
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["11", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "ComfyUI", "images": ["8", 0]}},
        "10": {"class_type": "LoraLoader", "inputs": {
            "lora_name": "detail.safetensors", "strength_model": 0.8, "strength_clip": 1.0, "model": ["4", 0],
            "clip": ["4", 1]}},
        "11": {"class_type": "KSampler", "is_changed": [float("nan")], "inputs": {
            "seed": 99, "steps": 10, "cfg": 4.0, "sampler_name": "dpmpp_2m", "scheduler": "karras", "denoise": 0.5,
            "model": ["10", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["13", 0]}},
        "12": {"class_type": "ControlNetApplyAdvanced", "inputs": {"positive": ["6", 0], "negative": ["7", 0]}},
        "13": {"class_type": "LatentUpscale", "inputs": {"samples": ["3", 0], "width": 1024, "height": 1024}},
        "20": {"class_type": "PrimitiveInt", "inputs": {"value": 768}},
        "21": {"class_type": "PrimitiveStringMultiline", "inputs": {"value": PROMPT}},
    }  # fmt: skip


def comfyui(path: Path) -> Path:
    return png(path, prompt=json.dumps(graph()), workflow=json.dumps({"nodes": [], "links": []}))


def comfyui_webp(path: Path) -> Path:
    return exif(path, "WEBP", make="workflow:{}", model="prompt:" + json.dumps(graph()))


def comfyui_custom(path: Path) -> Path:
    nodes = {
        "1": {"class_type": "SamplerCustomAdvanced", "inputs": {
            "noise": ["2", 0], "guider": ["3", 0], "sampler": ["4", 0], "sigmas": ["5", 0], "latent_image": ["6", 0]}},
        "2": {"class_type": "RandomNoise", "inputs": {"noise_seed": 4321}},
        "3": {"class_type": "CFGGuider", "inputs": {
            "cfg": 5.0, "model": ["7", 0], "positive": ["8", 0], "negative": ["9", 0]}},
        "4": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}},
        "5": {"class_type": "BasicScheduler", "inputs": {
            "scheduler": "simple", "steps": 25, "denoise": 1.0, "model": ["7", 0]}},
        "6": {"class_type": "EmptySD3LatentImage", "inputs": {"width": 768, "height": 512, "batch_size": 1}},
        "7": {"class_type": "UNETLoader", "inputs": {"unet_name": "unet.safetensors"}},
        "8": {"class_type": "CLIPTextEncode", "inputs": {"text": PROMPT, "clip": ["7", 0]}},
        "9": {"class_type": "CLIPTextEncode", "inputs": {"text": NEGATIVE, "clip": ["7", 0]}},
        "10": {"class_type": "VAEDecode", "inputs": {"samples": ["1", 0]}},
        "11": {"class_type": "SaveImage", "inputs": {"images": ["10", 0]}},
    }  # fmt: skip
    return png(path, prompt=json.dumps(nodes))


def comfyui_workflow(path: Path) -> Path:
    """Only the editor's workflow, as pictures have it whose `prompt` was removed."""
    nodes = [
        {"id": 3, "type": "KSampler", "widgets_values": [4321, "randomize", 25, 8, "euler", "normal", 1],
         "inputs": [{"name": "model", "link": 1}, {"name": "positive", "link": 4}, {"name": "negative", "link": 6},
                    {"name": "latent_image", "link": 2}]},
        {"id": 4, "type": "CheckpointLoaderSimple", "widgets_values": ["realistic.safetensors"]},
        {"id": 5, "type": "EmptyLatentImage", "widgets_values": [768, 512, 1]},
        {"id": 6, "type": "CLIPTextEncode", "widgets_values": [PROMPT], "inputs": [{"name": "clip", "link": 3}]},
        {"id": 7, "type": "CLIPTextEncode", "widgets_values": [NEGATIVE], "inputs": [{"name": "clip", "link": 5}]},
    ]  # fmt: skip
    links = [[1, 4, 0, 3, 0, "MODEL"], [2, 5, 0, 3, 3, "LATENT"], [3, 4, 1, 6, 0, "CLIP"], [4, 6, 0, 3, 1, "C"],
             [5, 4, 1, 7, 0, "CLIP"], [6, 7, 0, 3, 2, "C"]]  # fmt: skip
    return png(path, workflow=json.dumps({"last_node_id": 7, "nodes": nodes, "links": links, "version": 0.4}))


def invokeai(path: Path) -> Path:
    said = {
        "app_version": "5.4.2", "generation_mode": "txt2img", "positive_prompt": PROMPT, "negative_prompt": NEGATIVE,
        "width": 768, "height": 512, "seed": 4321, "rand_device": "cpu", "cfg_scale": 7.5, "cfg_rescale_multiplier": 0,
        "steps": 30, "scheduler": "euler_a", "clip_skip": 0, "vae": None, "positive_style_prompt": PROMPT,
        "model": {"key": "4cbb", "hash": "blake3:af58", "name": "Deliberate", "base": "sd-1", "type": "main"},
        "loras": [{"model": {"name": "detail", "hash": "x"}, "weight": 0.6}], "controlnets": [{"weight": 1}],
    }  # fmt: skip
    return png(path, invokeai_metadata=json.dumps(said), invokeai_graph="{}")


def invokeai_2(path: Path) -> Path:
    image = {"prompt": [{"prompt": "a fox at dusk [blurry]", "weight": 1.0}], "steps": 30, "cfg_scale": 7.5, "seed": 43,
             "width": 768, "height": 512, "sampler": "k_euler_a", "type": "txt2img"}  # fmt: skip
    said = {
        "model": "stable diffusion",
        "model_weights": "sd-1.5",
        "model_hash": "cc6c",
        "app_version": "2.3",
        "image": image,
    }
    return png(path, **{"sd-metadata": json.dumps(said), "Dream": '"a fox at dusk [blurry]" -s 30 -S 43'})


def dream(path: Path) -> Path:
    return png(path, Dream='"a fox at dusk [blurry]" -s 30 -S 43 -W 768 -H 512 -C 7.5 -A k_euler_a')


def fooocus(path: Path) -> Path:
    said = {
        "adm_guidance": "(1.5, 0.8, 0.3)", "base_model": "juggernautXL_v8", "base_model_hash": "aeb7e9e6",
        "full_negative_prompt": [NEGATIVE], "full_prompt": ["cinematic " + PROMPT], "guidance_scale": 4.0,
        "loras": [["offset.safetensors", 0.1, "4852686128"]], "metadata_scheme": "fooocus", "negative_prompt": NEGATIVE,
        "performance": "Speed", "prompt": PROMPT, "refiner_model": "None", "resolution": "(1152, 896)",
        "sampler": "dpmpp_2m_sde_gpu", "scheduler": "karras", "seed": "4321", "sharpness": 2.0, "steps": 30,
        "styles": "['Fooocus V2']", "version": "Fooocus v2.5.5",
    }  # fmt: skip
    return png(path, parameters=json.dumps(said), fooocus_scheme="fooocus")


def swarm(path: Path) -> Path:
    said = {"prompt": PROMPT + " <lora:detail:0.5>", "negativeprompt": NEGATIVE, "model": "OfficialStableDiffusion/sd",
            "seed": 4321, "steps": 20, "cfgscale": 7.0, "width": 768, "height": 512, "sampler": "euler",
            "scheduler": "normal", "swarm_version": "0.9.2.0"}  # fmt: skip
    return png(path, parameters=json.dumps({"sui_image_params": said}))


SAMPLES: dict[str, Callable[[Path], Path]] = {
    one.__name__: one
    for one in (a1111, forge, sd_next, a1111_jpeg, a1111_webp, comfyui, comfyui_webp, comfyui_custom, comfyui_workflow,
                invokeai, invokeai_2, dream, fooocus, swarm)
}  # fmt: skip
