"""LoRAs that PEFT itself writes, against what PEFT itself merges; and adapters that must be refused."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from oms_app import StudioError
from oms_app.cli.options import parse_lora
from oms_app.models import user_models
from oms_app.models.catalog import Catalog
from oms_app.models.lora import fuse_loras
from oms_app.models.lora_formats import read_lora

TO_Q = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"


def adapter(lumen: Path, folder: Path, config: Any) -> tuple[Path, dict[str, torch.Tensor]]:
    """The file that PEFT saves with random factors, and the UNet's weights as PEFT merges them."""
    pipeline = StableDiffusionPipeline.from_pretrained(lumen, local_files_only=True)
    model = peft.get_peft_model(pipeline.unet, config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "magnitude" not in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    model.save_pretrained(folder)
    return folder / "adapter_model.safetensors", model.merge_and_unload().state_dict()


CONFIGS = {
    "alpha": peft.LoraConfig(r=4, lora_alpha=8, target_modules=["to_q", "to_out.0"]),
    "rslora": peft.LoraConfig(r=4, lora_alpha=8, use_rslora=True, target_modules=["to_q"]),
    "convolutions": peft.LoraConfig(r=2, lora_alpha=6, target_modules=["conv1", "to_k"]),
    "biases": peft.LoraConfig(r=4, lora_alpha=8, lora_bias=True, target_modules=["to_out.0", "conv1"]),
    "dora": peft.LoraConfig(r=4, lora_alpha=8, use_dora=True, target_modules=["to_q"]),
    "first pattern": peft.LoraConfig(
        r=4, lora_alpha=4, alpha_pattern={"attn1.to_q": 8, "to_q": 2}, target_modules=["to_q"]
    ),
    "anchored pattern": peft.LoraConfig(r=4, lora_alpha=4, alpha_pattern={f"^{TO_Q}": 8}, target_modules=["to_q"]),
    "loha": peft.LoHaConfig(r=4, alpha=8, target_modules=["to_q"]),
    "lokr": peft.LoKrConfig(r=2, alpha=8, target_modules=["to_q"]),
    "lokr of whole factors": peft.LoKrConfig(r=64, alpha=4, target_modules=["to_q"]),
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.filterwarnings("ignore")  # of PEFT, about ranks larger than a module
def test_the_weights_are_those_that_peft_merges(name: str, lumen: Path, tmp_path: Path) -> None:
    path, merged = adapter(lumen, tmp_path, CONFIGS[name])
    pipeline = StableDiffusionPipeline.from_pretrained(lumen, local_files_only=True)
    before = {key: value.clone() for key, value in pipeline.unet.state_dict().items()}
    fuse_loras(pipeline, [(path, 1.0)])
    changed = 0
    for key, value in pipeline.unet.state_dict().items():
        change = merged[key] - before[key]
        torch.testing.assert_close(value, merged[key], rtol=1e-5, atol=1e-6)
        changed += int(change.abs().max() > 1e-4)
    assert changed


@pytest.mark.filterwarnings("ignore")
def test_the_folder_that_peft_saves_names_the_lora(lumen: Path, presets: Path, own_home: Path, tmp_path: Path) -> None:
    path, _ = adapter(lumen, tmp_path / "style", CONFIGS["alpha"])
    assert Catalog(presets, home=own_home).lora(str(tmp_path / "style")) == path


@pytest.mark.filterwarnings("ignore")
def test_what_peft_keeps_beside_its_file_is_needed(lumen: Path, tmp_path: Path) -> None:
    path, _ = adapter(lumen, tmp_path, CONFIGS["alpha"])
    pipeline = StableDiffusionPipeline.from_pretrained(lumen, local_files_only=True)
    renamed = path.rename(tmp_path / "style.safetensors")
    fuse_loras(pipeline, [(renamed, 0.5)])  # the config is still beside it
    (tmp_path / "adapter_config.json").unlink()
    with pytest.raises(StudioError, match=r"is a PEFT adapter.*adapter_config\.json"):
        fuse_loras(pipeline, [(renamed, 1.0)])


def set_config(path: Path, **changes: Any) -> None:
    config = json.loads(path.read_text())
    config = {key: value for key, value in (config | changes).items() if value != "absent"}
    path.write_text(json.dumps(config))


@pytest.mark.filterwarnings("ignore")
def test_an_alpha_that_the_config_leaves_out_is_pefts_own(lumen: Path, tmp_path: Path) -> None:
    path, merged = adapter(lumen, tmp_path, CONFIGS["alpha"])  # with α = 8, which is PEFT's default
    set_config(tmp_path / "adapter_config.json", lora_alpha="absent")
    pipeline = StableDiffusionPipeline.from_pretrained(lumen, local_files_only=True)
    fuse_loras(pipeline, [(path, 1.0)])
    torch.testing.assert_close(pipeline.unet.get_submodule(TO_Q).weight, merged[f"{TO_Q}.weight"], rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"use_dora": True}, "a DoRA without the magnitude of base_model.model.down_blocks"),
        ({"use_qalora": True}, "with use_qalora, which is not supported"),
        ({"lora_alpha": None}, "an invalid lora_alpha"),
        ({"alpha_pattern": 5}, "an invalid alpha_pattern"),
        ({"alpha_pattern": {"(": 5}}, "an invalid alpha_pattern"),
        ({"alpha_pattern": {"(a+)+$": 5}}, "an invalid alpha_pattern"),
        ({"init_lora_weights": "pissa_niter_4"}, "changes the base model (pissa_niter_4)"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("where", ["beside", "header"])
def test_settings_of_peft_that_are_not_understood_are_named(
    where: str, changes: dict[str, Any], said: str, lumen: Path, tmp_path: Path
) -> None:
    path, _ = adapter(lumen, tmp_path, CONFIGS["alpha"])
    beside = tmp_path / "adapter_config.json"
    set_config(beside, **changes)
    if where == "header":
        metadata = {"lora_adapter_metadata": beside.read_text()}
        beside.unlink()
        save_file(load_file(path), path, metadata)
    with pytest.raises(StudioError) as refused:
        read_lora(path)
    assert said in str(refused.value)


@pytest.mark.filterwarnings("ignore")
def test_a_folder_of_peft_is_added_and_kept_with_its_config(
    lumen: Path, presets: Path, own_home: Path, tmp_path: Path
) -> None:
    path, merged = adapter(lumen, tmp_path / "style", CONFIGS["alpha"])
    catalog = Catalog(presets, home=own_home)
    assert user_models.add(catalog, str(path.parent)).title == "style"
    user_models.forget(catalog, "style")
    entry = user_models.keep(catalog, path)
    kept = Path(entry.folder)
    assert kept.is_relative_to(catalog.downloads / "own") and not path.exists()
    pipeline = StableDiffusionPipeline.from_pretrained(lumen, local_files_only=True)
    fuse_loras(pipeline, [(kept, 1.0)])
    key = f"{TO_Q}.weight"
    torch.testing.assert_close(pipeline.unet.state_dict()[key], merged[key], rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_a_folder_may_be_given_instead_of_its_file(lumen: Path, presets: Path, own_home: Path, tmp_path: Path) -> None:
    path, _ = adapter(lumen, tmp_path / "C: styles/style", CONFIGS["alpha"])
    catalog = Catalog(presets, home=own_home)
    folder = str(path.parent)
    assert parse_lora(folder).id == folder and parse_lora(f"{folder}:0.5").scale == 0.5
    assert catalog.lora(folder) == path
    single = tmp_path / "models--a--lcm-lora/snapshots/0123"
    single.mkdir(parents=True)
    shutil.copy(path, single / "pytorch_lora_weights.safetensors")
    assert catalog.lora(str(tmp_path / "models--a--lcm-lora")).parent == single
    shutil.copy(path, single / "second.safetensors")
    for source in (single, tmp_path / "models--a--lcm-lora"):
        for use in (catalog.lora, partial(user_models.add, catalog)):
            with pytest.raises(StudioError, match=r"several LoRAs \(pytorch_lora_weights\S+, second"):
                use(str(source))
    (tmp_path / "old").mkdir()
    with pytest.raises(StudioError, match="is a folder without a LoRA"):
        catalog.lora(str(tmp_path / "old"))
    (tmp_path / "old/adapter_model.bin").write_bytes(b"")
    with pytest.raises(StudioError, match=r"adapter_model\.bin is a pickle"):
        catalog.lora(str(tmp_path / "old"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["IA3Config", "VeraConfig", "AdaLoraConfig", "FourierFTConfig"])
def test_other_kinds_of_peft_are_refused_by_name(
    kind: str, lumen: Path, presets: Path, own_home: Path, tmp_path: Path
) -> None:
    settings: dict[str, dict[str, Any]] = {
        "IA3Config": {"feedforward_modules": []},
        "AdaLoraConfig": {"total_step": 10},
        "FourierFTConfig": {"n_frequency": 8},
    }
    config = getattr(peft, kind)(target_modules=[TO_Q], **settings.get(kind, {}))
    unet = StableDiffusionPipeline.from_pretrained(lumen, local_files_only=True).unet
    peft.get_peft_model(unet, config).save_pretrained(tmp_path)
    catalog = Catalog(presets, home=own_home)
    for source in (tmp_path, tmp_path / "adapter_model.safetensors"):
        with pytest.raises(StudioError, match=f"PEFT adapter of the kind {config.peft_type.value}, which is not"):
            read_lora(catalog.lora(str(source)))
        with pytest.raises(StudioError, match=f"PEFT adapter of the kind {config.peft_type.value}, which is not"):
            user_models.add(catalog, str(source))


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_that_changes_the_base_is_refused(lumen: Path, tmp_path: Path) -> None:
    config = peft.LoraConfig(r=4, init_lora_weights="olora", target_modules=["to_q"])
    path, _ = adapter(lumen, tmp_path, config)
    pipeline = StableDiffusionPipeline.from_pretrained(lumen, local_files_only=True)
    with pytest.raises(StudioError, match="changes the base model"):
        fuse_loras(pipeline, [(path, 1.0)])


@pytest.mark.filterwarnings("ignore")
def test_one_module_under_two_names_is_refused(lumen: Path, tmp_path: Path) -> None:
    path, _ = adapter(lumen, tmp_path, CONFIGS["alpha"])
    tensors = load_file(path)
    stem = f"base_model.model.{TO_Q}"
    two = {f"unet.{TO_Q}.lora_{kind}.weight": tensors[f"{stem}.lora_{kind}.weight"] for kind in "AB"}
    two |= {
        f"lora_unet_{TO_Q.replace('.', '_')}.lora_{name}.weight": tensors[f"{stem}.lora_{kind}.weight"].clone()
        for name, kind in (("down", "A"), ("up", "B"))
    }
    save_file(two, tmp_path / "twice.safetensors")
    pipeline = StableDiffusionPipeline.from_pretrained(lumen, local_files_only=True)
    with pytest.raises(StudioError, match="names a module twice"):
        fuse_loras(pipeline, [(tmp_path / "twice.safetensors", 1.0)])
