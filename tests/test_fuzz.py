"""Damaged files at everything that reads files of others: planned errors only, ids of the catalogue, little memory."""

from __future__ import annotations

import contextlib
import gc
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from foreign_samples import SAMPLES
from gradio.data_classes import ImageData
from mutations import damaged
from PIL import Image
from safetensors.numpy import save_file
from test_app import CREATE
from test_history import STATS

from oms_app import GenerateRequest, GenerateResult, StudioError, Variant, light
from oms_app.engine.picture_settings import read_picture
from oms_app.engine.service import StudioService
from oms_app.models import user_models
from oms_app.models.catalog import open_catalog
from oms_app.output import png
from oms_app.output.history import History
from oms_app.schema import RAW, ImageResult, Lora, Seconds
from oms_app.ui import restore
from oms_app.ui.light_picture import _light_of
from oms_app.ui.uploads import Uploads

# Pillow warns of odd pictures that it reads all the same.
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
]
FAST, LONG = 200, 10_000  # files of each kind
MEMORY = 200 * 10**6  # bytes that reading them may add
SLOWEST = 10.0  # seconds for one file, on a busy machine
HOW_MANY = pytest.mark.parametrize(
    "count", [FAST, pytest.param(LONG, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]
)


class Peak:
    """The most memory that this process has had since the start, in bytes more than at the start."""

    def __init__(self) -> None:
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")
        self._before = self._of("VmRSS")

    @staticmethod
    def _of(name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))

    def added(self) -> int:
        return max(0, self._of("VmHWM") - self._before)


def our_pictures(folder: Path) -> list[Path]:
    """PNG files of this program: raw, One More Step, the dial, with LoRAs and long Chinese prompts; and a sheet."""
    variants = (
        RAW,
        Variant(name="oms", correction="oms", prompt="dark", prompt_b="light", mix=0.4, module="lumen-oms"),
        Variant(name="dial", correction="dial", luminance=20.0, tint="#ff8000", tint_strength=0.5, light="left"),
    )
    request = GenerateRequest(
        prompt="夜" * 200, negative_prompt="fog", seed=7, count=2, variants=variants, width=64, height=64,
        num_inference_steps=5, guidance_scale=4.0, scheduler="ddim", loras=(Lora(id="style", scale=0.5),),
    )  # fmt: skip
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    images = tuple(ImageResult(variant=v.name, index=1, seed=8, image=noise, stats=STATS) for v in variants)
    seconds = Seconds(**dict.fromkeys(Seconds.model_fields, 0.0))
    result = png.save(GenerateResult(request=request, seed=7, images=images, seconds=seconds), folder)
    sheet = png.save_sheet([[(request, image) for image in images]], ["a"], ["b", "c", "d"], folder)
    return [*(image.path for image in result.images if image.path), sheet]


def pictures_of_cameras(folder: Path) -> list[Path]:
    """The kinds of PNG, JPEG and WebP that Pillow decodes in ways of their own."""
    shade = Image.fromarray(np.random.default_rng(1).integers(0, 255, (48, 64, 4), np.uint8), "RGBA")
    saved: list[tuple[str, str, dict[str, Any]]] = [
        ("P", "PNG", {"transparency": 3}), ("I;16", "PNG", {}), ("1", "PNG", {}), ("LA", "PNG", {}),
        ("RGBA", "PNG", {"save_all": True, "append_images": [shade.rotate(90)]}),
        ("RGB", "JPEG", {"progressive": True}), ("CMYK", "JPEG", {}), ("L", "JPEG", {}),
        ("RGBA", "WEBP", {"lossless": True}), ("RGBA", "WEBP", {"save_all": True, "append_images": [shade.rotate(90)]}),
    ]  # fmt: skip
    paths = []
    for number, (mode, kind, options) in enumerate(saved):
        paths.append(folder / f"camera-{number}.{kind.lower()}")
        shade.convert("I").convert(mode).save(paths[-1], kind, **options) if mode == "I;16" else shade.convert(
            mode
        ).save(paths[-1], kind, **options)
    return paths


def model_files(folder: Path) -> list[Path]:
    """A LoRA of kohya's and one of PEFT's names, one of LyCORIS, and the start of a checkpoint."""
    two = np.zeros((2, 2), np.float32)
    lora = {f"lora_unet_mid_block_attentions_0_proj_in.{one}": two for one in ("lora_down.weight", "lora_up.weight")}
    files: dict[str, dict[str, np.ndarray]] = {
        "kohya": lora | {"lora_unet_mid_block_attentions_0_proj_in.alpha": np.full(1, 2, np.float32)},
        "peft": {f"unet.mid_block.attentions.0.proj_in.lora_{one}.weight": two for one in "AB"},
        "loha": {f"lora_unet_mid_block_attentions_0_proj_in.hada_w{i}_{one}": two for i in (1, 2) for one in "ab"},
        "checkpoint": {
            "model.diffusion_model.input_blocks.0.0.weight": np.zeros((4, 4, 3, 3), np.float16),
            "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight": np.zeros((9, 8), np.float16),
        },
    }
    for name, tensors in files.items():
        save_file(tensors, folder / f"{name}.safetensors", {"ss_network_args": '{"algo": "lora"}', "format": "pt"})
    return [folder / f"{name}.safetensors" for name in files]


def fuzz(
    sources: list[Path], count: int, target: Path, read: Callable[[Path], Any], planned: tuple[type[BaseException], ...]
) -> Counter:
    """Gives `count` damaged copies of the sources to `read`. Returns how many were read, and how many refused."""
    contents, said = [path.read_bytes() for path in sources], Counter[str]()
    peak = Peak()
    for number in range(count):
        chance = random.Random(number)
        source = chance.randrange(len(contents))
        target.write_bytes(damaged(contents[source], chance))
        began = time.process_time()
        try:
            read(target)
            said["read"] += 1
        except planned as error:
            said["refused"] += 1
            if isinstance(error, StudioError):
                assert "\n" not in str(error) and len(str(error)) < 1_000, (number, sources[source].name, str(error))
        except BaseException as error:
            raise AssertionError(f"number {number}, of {sources[source].name}: {type(error).__name__}") from error
        taken = time.process_time() - began
        assert taken < SLOWEST, f"number {number}, of {sources[source].name}, took {taken:.1f} s"
    assert peak.added() <= MEMORY, f"{peak.added() / 1e6:.0f} MB"
    said["MB"] = round(peak.added() / 1e6)
    return said


@pytest.fixture
def samples(tmp_path: Path) -> list[Path]:
    (folder := tmp_path / "samples").mkdir()
    foreign = [make(folder / f"{name}.png") for name, make in SAMPLES.items()]
    return [*our_pictures(folder), *foreign, *pictures_of_cameras(folder)]


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> Iterator[Callable[[Counter], None]]:
    def show(said: Counter) -> None:
        with capsys.disabled():
            print(f"{request.node.name}: {dict(said)}")

    yield show


@HOW_MANY
def test_settings_are_restored_from_damaged_pictures(
    count: int, samples: list[Path], tmp_path: Path, late: StudioService, told: Callable[[Counter], None]
) -> None:
    known = {info.id for info in late.models()}

    def read(path: Path) -> None:
        try:
            found = read_picture(path, late.models())
        finally:
            with contextlib.suppress(StudioError):
                restore.read(path, CREATE, late)
        if found.restored is not None:
            request = found.restored.request
            named = {request.model, *(one.id for one in request.loras), *(v.module for v in request.variants)} - {None}
        else:
            named = {found.fields.get("model", "lumen"), *(one.id for one in found.fields["loras"])}
        assert named <= known, named - known

    told(fuzz(samples, count, tmp_path / "x.png", read, (StudioError,)))


@HOW_MANY
def test_uploads_of_damaged_pictures(
    count: int, samples: list[Path], tmp_path: Path, told: Callable[[Counter], None]
) -> None:
    """As they go: the check of uploads, Gradio's decoding for the component, and the light that is taken of them."""
    uploads, component = Uploads(models=False), gr.Image(type="pil")

    def read(path: Path) -> None:
        if fault := uploads._fault(path):
            assert "\n" not in fault and str(tmp_path) not in fault
            raise StudioError(fault)
        try:
            picture = component.preprocess(ImageData(path=str(path), orig_name=path.name))
        except Exception as error:  # the page phrases whatever it is: tests/test_hostile_values.py
            raise StudioError(type(error).__name__) from error
        assert light.is_layout(_light_of(picture))

    told(fuzz(samples, count, tmp_path / "x.png", read, (StudioError,)))


@HOW_MANY
def test_light_of_damaged_files(
    count: int, samples: list[Path], tmp_path: Path, told: Callable[[Counter], None]
) -> None:
    """The command line's `--light FILE`, which reads any picture."""

    def read(path: Path) -> None:
        assert light.is_layout(light.layout_text(path))

    told(fuzz(samples, count, tmp_path / "x", read, (OSError, ValueError)))


@HOW_MANY
def test_a_history_with_damaged_pictures(
    count: int, samples: list[Path], tmp_path: Path, told: Callable[[Counter], None]
) -> None:
    (folder := tmp_path / "pictures").mkdir()
    history = History(folder)

    def read(path: Path) -> None:
        found = history.find()
        history.thumbnails(["x.png", *(one.name for one in found.pictures)])

    told(fuzz(samples, count, folder / "x.png", read, ()))


@HOW_MANY
def test_damaged_models_are_refused_or_added(
    count: int, tmp_path: Path, presets: Path, own_home: Path, told: Callable[[Counter], None]
) -> None:
    (folder := tmp_path / "samples").mkdir()
    catalog = open_catalog(presets)
    (tmp_path / "up").mkdir()

    def read(path: Path) -> None:
        entry = user_models.keep(catalog, path)
        user_models.forget(catalog, entry.id)
        Path(entry.folder).unlink()
        assert entry.kind in ("lora", "base")

    told(fuzz(model_files(folder), count, tmp_path / "up/x.safetensors", read, (StudioError,)))
