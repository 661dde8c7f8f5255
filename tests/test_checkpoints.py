"""Single files as they are found: markers, old names, every dtype, scaled float8, and what is something else."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from tiny import make_sdxl
from torch import Tensor

from dev.full_size.ldm import to_single_file, unet_name, vae_name
from oms_app import StudioError
from oms_app.models import single_file
from oms_app.models.catalog import Catalog
from oms_app.models.file_kinds import identify
from oms_app.models.folders import load_part
from oms_app.models.ldm_names import unet_names, vae_names
from oms_app.models.prediction import in_float32, prediction_type
from oms_app.models.scheduler_factory import make_scheduler
from oms_app.models.single_file import load_single_file, unread_tensors
from oms_app.paths import EMBEDDED_FOLDER, PRESETS
from oms_app.prestep.schedule import rescale_zero_terminal_snr
from oms_app.schedulers import SCHEDULERS

FAMILIES = ("sd15", "sd21", "sdxl")
UNET = "model.diffusion_model."


@pytest.fixture(scope="module")
def folders(lumen: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny pipeline folder of each family."""
    root = tmp_path_factory.mktemp("families")
    parts = shutil.ignore_patterns("oms", "singdiffusion", "signal_leak")
    made = {family: Path(shutil.copytree(lumen, root / family, ignore=parts)) for family in ("sd15", "sd21")}
    config = made["sd21"] / "text_encoder/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"hidden_act": "gelu"}))
    return made | {"sdxl": make_sdxl(root / "sdxl")}


@pytest.fixture(scope="module")
def tensors(folders: dict[str, Path]) -> dict[str, dict[str, Tensor]]:
    """The same as single files' tensors."""
    made = {}
    for family, folder in folders.items():
        kind = StableDiffusionXLPipeline if family == "sdxl" else StableDiffusionPipeline
        made[family] = to_single_file(kind.from_pretrained(folder, local_files_only=True), family)
    return made


@pytest.fixture(autouse=True)
def _tiny_families(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The configurations of the tiny families, with the schedulers that are shipped."""
    for family, folder in folders.items():
        shutil.copytree(folder, tmp_path / "configs" / family, ignore=shutil.ignore_patterns("*.safetensors"))
        shipped = PRESETS / "configs" / family / "scheduler/scheduler_config.json"
        shutil.copy(shipped, tmp_path / "configs" / family / "scheduler/scheduler_config.json")
    monkeypatch.setattr(single_file, "CONFIGS", tmp_path / "configs")
    yield


def saved(tmp_path: Path, content: dict[str, Tensor], metadata: dict[str, str] | None = None) -> Path:
    path = tmp_path / "model.safetensors"
    save_file({name: value.contiguous() for name, value in content.items()}, path, metadata)
    return path


def weights(pipeline: Any) -> dict[str, Tensor]:
    parts = {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}
    return {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_weight_is_the_folders(
    family: str, folders: dict[str, Path], tensors: dict[str, dict[str, Tensor]], tmp_path: Path
) -> None:
    kind = StableDiffusionXLPipeline if family == "sdxl" else StableDiffusionPipeline
    wanted = weights(kind.from_pretrained(folders[family], local_files_only=True))
    got = weights(load_single_file(saved(tmp_path, tensors[family]), torch.float32))
    assert got.keys() == wanted.keys()
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("names", ["_orig_mod.{}", "model._orig_mod.{}"])
def test_names_of_compiled_models_are_read(
    names: str, tensors: dict[str, dict[str, Tensor]], folders: dict[str, Path], tmp_path: Path
) -> None:
    """Saved from what torch.compile made of a whole model, or of one level."""
    renamed = {
        names.format(name) if names.startswith("_") else name.replace("model.", names.format(""), 1): value
        for name, value in tensors["sd15"].items()
    }
    wanted = weights(load_single_file(saved(tmp_path, tensors["sd15"]), torch.float32))
    (tmp_path / "compiled").mkdir()
    got = weights(load_single_file(saved(tmp_path / "compiled", renamed), torch.float32))
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)
    compiled = tmp_path / "folder"
    shutil.copytree(folders["sd15"] / "unet", compiled)
    (file,) = compiled.glob("*.safetensors")
    save_file({f"_orig_mod.{name}": value for name, value in load_file(file).items()}, file)
    unet = load_part(UNet2DConditionModel, compiled, torch.float32).state_dict()
    assert all(torch.equal(unet[name], wanted[f"unet.{name}"]) for name in unet)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_markers_of_v_prediction_and_zero_terminal_snr(
    family: str, tensors: dict[str, dict[str, Tensor]], tmp_path: Path
) -> None:
    marked = tensors[family] | {"v_pred": torch.tensor([]), "ztsnr": torch.tensor([])}
    scheduler = load_single_file(saved(tmp_path, marked), torch.float32).scheduler
    config = scheduler.config
    assert (config.prediction_type, config.rescale_betas_zero_snr) == ("v_prediction", True)
    assert config.timestep_spacing == "trailing" and float(scheduler.alphas_cumprod[-1]) < 1e-6
    plain = load_single_file(saved(tmp_path, tensors[family] | {"v_pred": torch.tensor([])}), torch.float32)
    assert (plain.scheduler.config.prediction_type, plain.scheduler.config.get("rescale_betas_zero_snr")) in (
        ("v_prediction", False),
        ("v_prediction", None),
    )


def test_a_single_file_is_sampled_as_the_published_folder_is(
    tensors: dict[str, dict[str, Tensor]], tmp_path: Path
) -> None:
    """Stable Diffusion 1.5's folder names no timestep spacing, so each sampler has its own; SDXL's names `leading`."""
    published = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    of_folder = diffusers.PNDMScheduler(**published, skip_prk_steps=True).config
    of_file = load_single_file(saved(tmp_path, tensors["sd15"]), torch.float32).scheduler.config
    of_xl = load_single_file(saved(tmp_path, tensors["sdxl"]), torch.float32).scheduler.config
    for name in SCHEDULERS:
        folder, file, xl = (make_scheduler(one, name, 7, torch.device("cpu")) for one in (of_folder, of_file, of_xl))
        assert torch.equal(folder.timesteps, file.timesteps) and torch.equal(folder.betas, file.betas)
        assert name == "lcm" or xl.config.timestep_spacing == "leading"


@pytest.mark.parametrize(
    ("key", "said", "meant"),
    [
        ("modelspec.prediction_type", "v", "v_prediction"),
        ("modelspec.prediction_type", "epsilon", "epsilon"),
        ("prediction_type", "v_prediction", "v_prediction"),
        ("prediction_type", "v-prediction", "v_prediction"),
        ("modelspec.prediction_type", "vpred", "v_prediction"),
        ("prediction_type", "eps", "epsilon"),
        ("modelspec.predict_key", "v", "v_prediction"),  # ComfyUI's name
        ("modelspec.prediction_type", "sample", "sample"),
        ("prediction_type", "x0", "sample"),
    ],
)
def test_the_metadata_may_say_what_is_predicted(
    key: str, said: str, meant: str, tensors: dict[str, dict[str, Tensor]], tmp_path: Path
) -> None:
    for family in FAMILIES:
        path = saved(tmp_path, tensors[family], {key: said, "format": "pt"})
        assert load_single_file(path, torch.float32).scheduler.config.prediction_type == meant


def test_a_file_that_says_it_is_a_flow_is_refused(tensors: dict[str, dict[str, Tensor]], tmp_path: Path) -> None:
    path = saved(tmp_path, tensors["sdxl"], {"modelspec.prediction_type": "rectified_flow"})
    assert "says that it is a flow-matching model (rectified_flow)" in refusal(path)
    path = saved(tmp_path, tensors["sdxl"], {"modelspec.prediction_type": "edm"})
    assert "says that it is a model of EDM (edm)" in refusal(path)


def test_betas_of_its_own_are_the_models(tensors: dict[str, dict[str, Tensor]], tmp_path: Path) -> None:
    usual = load_single_file(saved(tmp_path, tensors["sd15"]), torch.float32).scheduler.alphas_cumprod
    same = load_single_file(saved(tmp_path, tensors["sd15"] | {"alphas_cumprod": usual.clone()}), torch.float32)
    assert same.scheduler.config.trained_betas is None
    other = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)
    read = load_single_file(saved(tmp_path, tensors["sd15"] | {"alphas_cumprod": other}), torch.float32)
    torch.testing.assert_close(read.scheduler.alphas_cumprod, other, rtol=1e-4, atol=1e-6)


def zero_snr_table(name: str, usual: Tensor) -> Tensor:
    """The table of this name of the same schedule rescaled to zero terminal SNR."""
    betas = rescale_zero_terminal_snr(1 - torch.cat([usual[:1], usual[1:] / usual[:-1]]))
    alphas = torch.cumprod(1 - betas, 0)
    if name == "denoiser.sigmas":
        return ((1 - alphas.clamp(min=5e-8)) / alphas.clamp(min=5e-8)).sqrt().flip(0)
    return betas if name == "betas" else alphas


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["alphas_cumprod", "betas", "denoiser.sigmas"])
def test_zero_snr_in_any_table_of_any_precision(
    name: str, dtype: torch.dtype, tensors: dict[str, dict[str, Tensor]], tmp_path: Path
) -> None:
    usual = load_single_file(saved(tmp_path, tensors["sd15"]), torch.float32).scheduler.alphas_cumprod.double()
    zero = tensors["sd15"] | {name: zero_snr_table(name, usual).to(dtype)}
    scheduler = load_single_file(saved(tmp_path, zero), torch.float32).scheduler
    assert make_scheduler(scheduler.config, "ddim", 20, torch.device("cpu")).alphas_cumprod[-1] < 1e-6
    sigmas = ((1 - usual) / usual).sqrt()
    table = {"alphas_cumprod": usual, "denoiser.sigmas": sigmas.flip(0)}.get(name)
    if table is not None:
        plain = load_single_file(saved(tmp_path, tensors["sd15"] | {name: table.to(dtype)}), torch.float32)
        assert plain.scheduler.config.trained_betas is None
        assert not plain.scheduler.config.get("rescale_betas_zero_snr")


class AsV(torch.nn.Module):
    """A UNet that predicts ε, seen as one that predicts v: the same model in another parametrisation."""

    def __init__(self, unet: Any, alphas: Tensor) -> None:
        super().__init__()
        self.unet, self.alphas, self.config = unet, alphas, unet.config

    def forward(self, x: Tensor, t: int, **given: Any) -> Any:
        out = self.unet(x, t, **given)
        out.sample = (out.sample - (1 - self.alphas[t]).sqrt() * x) / self.alphas[t].sqrt()
        return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_trained_unet_shows_what_it_predicts(dtype: torch.dtype) -> None:
    unet = UNet2DConditionModel.from_pretrained(EMBEDDED_FOLDER / "unet").float().eval()
    alphas = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0)
    unet.to(dtype)
    for otherwise in ("epsilon", "v_prediction"):
        assert prediction_type(unet, otherwise) == "epsilon"
        assert prediction_type(AsV(unet, alphas), otherwise) == "v_prediction"
    with torch.no_grad():
        unet.conv_out.weight.normal_()
    assert [prediction_type(unet, otherwise) for otherwise in ("epsilon", "v_prediction")] == [
        "epsilon",
        "v_prediction",
    ]


def test_half_precision_weights_compute_in_float32_for_the_probe() -> None:
    half = UNet2DConditionModel.from_pretrained(EMBEDDED_FOLDER / "unet").half().eval()
    before = {name: value.clone() for name, value in half.state_dict().items()}
    x, hidden = torch.randn(1, 4, 16, 16), torch.randn(1, 77, half.config.cross_attention_dim)
    with torch.no_grad(), in_float32(half):
        got = half(x, 500, encoder_hidden_states=hidden).sample
    with torch.no_grad():
        wanted = copy.deepcopy(half).float()(x, 500, encoder_hidden_states=hidden).sample
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(half.state_dict()[name], value) for name, value in before.items())


@pytest.mark.parametrize("scale_name", ["scale_weight", "weight_scale"])
@pytest.mark.parametrize("per_output", [False, True])
@pytest.mark.parametrize("column", [False, True], ids=["flat", "column"])
def test_scaled_float8_is_multiplied_by_its_scales(
    scale_name: str, per_output: bool, column: bool, tensors: dict[str, dict[str, Tensor]], tmp_path: Path
) -> None:
    content: dict[str, Tensor] = {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}
    content[f"{UNET}scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)
    rounded = {}
    for name, value in tensors["sdxl"].items():
        content[name] = value
        if name.startswith(UNET) and value.ndim in (2, 4):
            scale = (value.abs().flatten(1).amax(1) if per_output else value.abs().max()) / 448
            factor = scale.view(-1, *[1] * (value.ndim - 1)) if per_output else scale
            content[name] = (value / factor).to(torch.float8_e4m3fn)
            stem = name.removesuffix("weight")
            content |= {stem + scale_name: scale[..., None] if column else scale, stem + "scale_input": torch.ones(())}
            rounded[name] = content[name].float() * factor
    unet = load_single_file(saved(tmp_path, content), torch.float32).unet
    for module, theirs in unet_names(unet).items():
        if f"{UNET}{theirs}.weight" in rounded:
            weight = unet.get_submodule(module).weight
            assert torch.equal(weight, rounded[f"{UNET}{theirs}.weight"].view_as(weight))


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]
)
def test_every_floating_dtype_is_read(
    dtype: torch.dtype, tensors: dict[str, dict[str, Tensor]], tmp_path: Path
) -> None:
    content = {name: value.to(dtype) for name, value in tensors["sd15"].items()}
    pipeline = load_single_file(saved(tmp_path, content), torch.float32)
    name = "input_blocks.0.0.weight"
    assert torch.equal(pipeline.unet.conv_in.weight, tensors["sd15"][UNET + name].to(dtype).float())
    assert all(value.dtype == torch.float32 for value in weights(pipeline).values())


def test_old_names_and_shapes_are_read(
    folders: dict[str, Path], tensors: dict[str, dict[str, Tensor]], tmp_path: Path
) -> None:
    old = {name.replace("transformer.text_model.", "transformer."): value for name, value in tensors["sd15"].items()}
    old["cond_stage_model.transformer.embeddings.position_ids"] = torch.arange(16.0)[None]
    old |= {"model_ema.decay": torch.ones(()), "global_step": torch.ones((), dtype=torch.int64)}
    got = weights(load_single_file(saved(tmp_path, old), torch.float32))
    wanted = weights(StableDiffusionPipeline.from_pretrained(folders["sd15"], local_files_only=True))
    assert got.keys() == wanted.keys() and all(torch.equal(got[name], wanted[name]) for name in wanted)
    assert unread_tensors(saved(tmp_path, old)) == ()
    for name in ("learned_thing.weight", "lora_unet_conv_in.lora_up.weight"):
        extra = saved(tmp_path, old | {name: torch.zeros(1)})
        assert unread_tensors(extra) == (name,) and identify(extra).kind == "checkpoint"


def test_stable_diffusion_2_under_sdxls_names_is_read(
    tensors: dict[str, dict[str, Tensor]], presets: Path, own_home: Path, tmp_path: Path
) -> None:
    """SD-Turbo was published so."""
    turbo = {n.replace("cond_stage_model.", "conditioner.embedders.0."): v for n, v in tensors["sd21"].items()}
    got = load_single_file(saved(tmp_path, turbo), torch.float32)
    wanted = load_single_file(saved(tmp_path, tensors["sd21"]), torch.float32)
    assert all(torch.equal(got.text_encoder.state_dict()[n], v) for n, v in wanted.text_encoder.state_dict().items())
    timesteps = make_scheduler(got.scheduler.config, "euler-a", 4, torch.device("cpu")).timesteps
    assert timesteps.tolist() == [999.0, 749.0, 499.0, 249.0]  # of its authors
    defaults = Catalog(presets, home=own_home).find(str(tmp_path / "model.safetensors"), "base").defaults
    assert defaults and defaults.width == 768  # Stable Diffusion 2.x, which was saved last
    defaults = Catalog(presets, home=own_home).find(str(saved(tmp_path, turbo)), "base").defaults
    assert defaults
    assert (defaults.width, defaults.num_inference_steps, defaults.guidance_scale) == (512, 4, 1.0)


def refusal(path: Path) -> str:
    with pytest.raises(StudioError) as refused:
        load_single_file(path, torch.float32)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_incomplete_and_foreign_checkpoints_are_named(tensors: dict[str, dict[str, Tensor]], tmp_path: Path) -> None:
    whole = tensors["sd15"]
    no_vae = {name: value for name, value in whole.items() if not name.startswith("first_stage_model.")}
    assert "contains no VAE" in refusal(saved(tmp_path, no_vae))
    name = "cond_stage_model.transformer.text_model.final_layer_norm.weight"
    short = {n: v for n, v in whole.items() if n != name}
    assert f"its text encoder is incomplete ({name} missing)" in refusal(saved(tmp_path, short))
    wrong = whole | {f"{UNET}out.2.weight": torch.zeros(3, 3)}
    assert "its UNet does not fit (conv_out.weight is (3, 3), not (4, 16, 3, 3))" in refusal(saved(tmp_path, wrong))
    adapter = whole | {f"{UNET}input_blocks.1.9.weight": torch.zeros(1)}
    said = refusal(saved(tmp_path, adapter))
    assert (
        "do not belong to it (model.diffusion_model.input_blocks.1.9.weight)" in said
        and "Stable Diffusion 1.x, 2.x" in said
    )
    nf4 = whole | {f"{UNET}out.2.weight.quant_state.bitsandbytes__nf4": torch.zeros(3, dtype=torch.uint8)}
    assert "quantised weights (bitsandbytes NF4" in refusal(saved(tmp_path, nf4))
    for name in (
        f"{UNET}time_embed.0.weight",
        "first_stage_model.decoder.conv_out.weight",
        "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
    ):
        integers = whole | {name: torch.zeros(whole[name].shape, dtype=torch.int8)}
        assert "quantised weights (the integer type I8)" in refusal(saved(tmp_path, integers))


def test_parts_of_sdxl_that_are_missing_are_named(tensors: dict[str, dict[str, Tensor]], tmp_path: Path) -> None:
    first = {n: v for n, v in tensors["sdxl"].items() if not n.startswith("conditioner.embedders.1.")}
    assert "is an SDXL checkpoint without its second text encoder" in refusal(saved(tmp_path, first))
    refiner = {n: v for n, v in first.items() if not n.startswith("conditioner.")}
    refiner["conditioner.embedders.0.model.ln_final.weight"] = torch.zeros(1)
    assert "is an SDXL refiner" in refusal(saved(tmp_path, refiner))


def test_float8_with_a_scale_for_each_block_is_named(tensors: dict[str, dict[str, Tensor]], tmp_path: Path) -> None:
    name = f"{UNET}time_embed.0.weight"
    weight = tensors["sd15"][name]
    blocks = torch.ones(len(weight), weight.shape[1] // 8)
    scaled = {name: weight.to(torch.float8_e4m3fn), name.replace("weight", "weight_scale"): blocks}
    assert "quantised weights (float8 with a scale for each block)" in refusal(
        saved(tmp_path, tensors["sd15"] | scaled)
    )


def sdxl_names(distilled: bool) -> dict[str, Tensor]:
    """Names of SDXL's UNet at its full size, or of SSD-1B's: fewer transformer blocks, none in the middle."""
    config = UNet2DConditionModel.load_config(PRESETS / "configs/sdxl/unet")
    with init_empty_weights():
        unet = UNet2DConditionModel.from_config(config)
    names = {f"{UNET}{theirs}.weight" for theirs in unet_names(unet).values()}
    if distilled:
        gone = ("middle_block.1.", *(f"blocks.{i}.1.transformer_blocks.{n}." for i in (7, 8) for n in range(4, 10)))
        names = {name for name in names if not any(part in name for part in gone)}
    made = {name: torch.zeros(1) for name in names} | {"conditioner.embedders.1.model.ln_final.weight": torch.zeros(1)}
    return made | {f"{UNET}input_blocks.0.0.weight": torch.zeros(320, 4, 3, 3)}


def test_sdxl_and_its_distilled_relatives_are_told_apart(tmp_path: Path) -> None:
    assert identify(saved(tmp_path, sdxl_names(distilled=False))).family == "sdxl"
    assert "SSD-1B" in refusal(saved(tmp_path, sdxl_names(distilled=True)))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_original_names_at_full_size(family: str) -> None:
    """Against the mapping in tests/ldm.py, which was written by itself."""
    folder = PRESETS / "configs" / family
    with init_empty_weights():
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder / "unet"))
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(folder / "vae"))
    attention_up = {i for i, kind in enumerate(unet.config.up_block_types) if "CrossAttn" in kind}
    for module, theirs in unet_names(unet).items():
        assert unet_name(f"{module}.weight", 2, attention_up) == f"{UNET}{theirs}.weight"
    attention = {"to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out", "group_norm": "norm"}
    for module, theirs in vae_names(vae).items():
        if "attentions" in module:
            half, kind = module.split(".")[0], module.partition("attentions.0.")[2]
            assert theirs == f"{half}.mid.attn_1.{attention[kind]}"
        else:
            assert vae_name(f"{module}.weight", 4) == f"first_stage_model.{theirs}.weight"
