"""The catalogue: presets/models/*.json, validated. It lists what can be loaded, from where and under which licence."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from oms_app.errors import StudioError, describe_entry
from oms_app.fields import REQUEST_FIELDS
from oms_app.models.file_kinds import DOMAINS, NATIVE, family_of, identify
from oms_app.models.folder_kinds import USUAL_SCALE, check_folder, parts_of, refuse_format, refuse_pickles, snapshot_of
from oms_app.models.lora_formats import lora_in
from oms_app.models.reading import is_safetensors, read_json, read_text, weight_files
from oms_app.paths import PRESETS, user_folder
from oms_app.records import read_record
from oms_app.schema import Frozen

MARKER = "download.json"  # in a folder whose download is complete
MAX_OWN = 2_000  # models of the user's own
MAX_WARNINGS = 20  # that are remembered
OWN = "own.json"  # the user's own models, in the folder of downloads: entries with an absolute folder or file
Kind = Literal["base", "oms", "singdiffusion", "signal_leak", "lora", "text"]
SPREAD_FOLDER = "oms_spread"  # of an OMS module's spread head (spread_files.py), in the module's folder
OWN_KINDS: tuple[Kind, ...] = ("base", "oms", "lora")
# Of a VAE's scaling_factor: what a folder's latents most likely are. If a module has a fingerprint, that decides.
SCALES = {0.18215: "sd", 0.13025: "sdxl"}
# How models are sampled that adversarial diffusion distillation made (Sauer et al. 2023).
TURBO: dict[str, Any] = {"scheduler": "euler-a", "num_inference_steps": 4, "guidance_scale": 1.0}
_EULER = ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler")
PixelSize = Annotated[int, Field(ge=8, le=2048, multiple_of=8)]


class Defaults(Frozen):
    """What a request takes for what it leaves open. Sizes in pixels.

    needs_oms: False for a model that starts from pure noise: a request for raw and OMS, which is what a request that
    names no variants asks for, then gives raw alone.
    """

    width: PixelSize = 512
    height: PixelSize = 512
    min_size: PixelSize = 64
    max_size: PixelSize = 1024
    num_inference_steps: Annotated[int, REQUEST_FIELDS["num_inference_steps"].required] = 20
    guidance_scale: Annotated[float, REQUEST_FIELDS["guidance_scale"].required] = 5.0
    guidance_rescale: Annotated[float, REQUEST_FIELDS["guidance_rescale"].required] = 0.0
    scheduler: Annotated[str, REQUEST_FIELDS["scheduler"].required] = "ddim"
    needs_oms: bool = True


class Entry(Frozen):
    """One model of the catalogue.

    folder: relative to the project's root; "" for what is downloaded from the hub: `files` (patterns) of `repository`
    at `revision`. size: bytes of its files. note: what a user should know before downloading it. needs: ids of
    entries that it requires, such as its text encoder. domain: the name of its latent domain (see domain.py); None is
    unknown.
    second_moment: mean of the squared scaled latents over its training data, m2 of the paper's Table 1, if measured.
    adapts: of a base that is stored as a LoRA, the id of the base whose weights it changes; `folder` then contains the
    LoRA and, in scheduler/, the configuration of the scheduler.
    """

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")]
    kind: Kind
    title: str
    description: str = ""
    folder: str = ""
    repository: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")] | None = None
    revision: Annotated[str, Field(pattern=r"^[\w.-]+$")] = "main"
    files: tuple[str, ...] = ()
    size: Annotated[int, Field(gt=0)] | None = None
    note: str = ""
    needs: tuple[str, ...] = ()
    domain: str | None = None
    licence: str = "unknown"
    second_moment: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    defaults: Defaults | None = None
    adapts: str = ""

    @model_validator(mode="after")
    def _it_lies_somewhere(self) -> Entry:
        if bool(self.folder) == bool(self.repository):
            raise ValueError(f"{self.id!r} needs either a folder or a repository to download it from, not both")
        if self.repository and not (self.files and self.size):
            raise ValueError(f"{self.id!r} must list the files of {self.repository} to download, and their size")
        if any(".." in pattern or pattern.startswith("/") for pattern in self.files):
            raise ValueError(f"{self.id!r} lists files outside its repository")
        return self

    @model_validator(mode="after")
    def _a_base_has_defaults(self) -> Entry:
        if self.kind == "base" and self.defaults is None:
            raise ValueError(f"the base model {self.id!r} has no defaults")
        if self.adapts and (self.kind != "base" or self.repository or self.adapts == self.id):
            raise ValueError(f"{self.id!r} adapts {self.adapts!r}: only a base in a folder can adapt another base")
        return self


class ModelInfo(Frozen):
    """An entry as the page and the command line show it.

    available: its files are on this machine. own: the user added it; else it is in the catalogue. size: bytes of its
    files, None if they come with the app. needs: ids of what a base also needs to run with One More Step (a module
    of its latent domain and that module's text encoder), or of a module's text encoder.
    """

    id: str
    kind: Kind
    title: str
    description: str
    domain: str | None
    licence: str
    size: int | None
    note: str
    needs: tuple[str, ...] = ()
    available: bool
    own: bool = False
    defaults: Defaults | None


class Catalog:
    """The entries of a presets folder, by id; their folders are in `root`, downloaded ones in
    `downloads`. A base may be a single file (models/single_file.py). `own`: ids of those that the user added (own.py);
    what their list holds that is not valid is left out, and `warnings` says why.

    Raises StudioError if a file is not a valid entry or two share an id.
    """

    def __init__(self, presets: Path | None = None, root: Path | None = None, home: Path | None = None) -> None:
        self.downloads = user_folder(home) / "models"
        self.presets = (presets or PRESETS / "models").resolve()
        if not self.presets.is_dir():
            raise StudioError(f"the catalogue folder {self.presets} does not exist: give one with *.json entries")
        self.root = (root or self.presets.parents[1]).resolve()
        self.entries: dict[str, Entry] = {}
        for path in sorted(self.presets.glob("*.json")):
            try:
                entry = Entry.model_validate_json(read_text(path))
            except ValidationError as error:
                raise StudioError(f"{path.name} is not a catalogue entry: {describe_entry(error)}") from error
            if entry.id in self.entries:
                raise StudioError(f"{path.name}: the id {entry.id!r} is taken by another file of {self.presets}")
            self.entries[entry.id] = entry
        for entry in self.entries.values():
            on = self.entries.get(entry.adapts)
            if entry.adapts and (on is None or on.kind != "base" or on.adapts):
                raise StudioError(f"{entry.id!r} adapts {entry.adapts!r}, which is not a whole base of the catalogue")
        self.own: frozenset[str] = frozenset()
        self.warnings: deque[str] = deque(maxlen=MAX_WARNINGS)
        self._read_own()

    def _read_own(self) -> None:
        path = self.downloads / OWN
        try:
            given = own_entries(read_record(path) or {"models": []}, path)
        except StudioError as error:
            self.warnings.append(f"{error}: add your models again; the file is kept under another name then")
            return
        for one in given[:MAX_OWN]:
            try:
                self.include(Entry.model_validate(one))
            except ValidationError as error:
                self.warnings.append(f"{path}: an entry was skipped: {describe_entry(error)}")
            except StudioError as error:
                self.warnings.append(f"{path}: an entry was skipped: {error}")

    def include(self, entry: Entry) -> None:
        """Adds a model of the user's own. Raises StudioError if it cannot be one."""
        if entry.kind not in OWN_KINDS or entry.repository or entry.adapts or not Path(entry.folder).is_absolute():
            raise StudioError(f"{entry.id!r} is not a {' or '.join(OWN_KINDS)} with an absolute path: add it again")
        if entry.id in self.entries:
            raise StudioError(f"the id {entry.id!r} is taken: add it under another name")
        # Replaced, not changed: another thread may be iterating over them.
        self.entries = self.entries | {entry.id: entry}
        self.own = self.own | {entry.id}

    def exclude(self, own: str) -> None:
        """Removes one of the user's models from the list."""
        self.entries = {name: entry for name, entry in self.entries.items() if name != own}
        self.own = self.own - {own}

    def folder(self, entry: Entry) -> Path:
        return self.root / entry.folder if entry.folder else self.downloads / entry.id

    def weights(self, base: Entry) -> Path:
        """The folder or file of a base's weights: of one that is stored as a LoRA, those that the LoRA changes."""
        return self.folder(self.entries[base.adapts] if base.adapts else base)

    def available(self, entry: Entry) -> bool:
        folder = self.folder(entry)
        if entry.adapts:
            return lora_in(folder) is not None and self.available(self.entries[entry.adapts])
        try:
            if entry.repository:
                return (folder / MARKER).is_file()
            return folder.is_file() or (folder / "model_index.json").is_file()
        except (OSError, ValueError):  # a path that cannot be
            return False

    def infos(self) -> list[ModelInfo]:
        fields = set(ModelInfo.model_fields) - {"available", "own", "needs"}
        return [
            ModelInfo(
                available=self.available(entry),
                own=entry.id in self.own,
                needs=self.companions(entry),
                **{name: getattr(entry, name) for name in fields},
            )
            for entry in sorted(self.entries.values(), key=lambda entry: (entry.kind, entry.id))
        ]

    def companions(self, entry: Entry) -> tuple[str, ...]:
        """Ids of what `entry` also needs: for a base, an OMS module of its latent domain and what that needs. A module
        on this machine comes before one to download. Empty if the domain is unknown or has no module."""
        if entry.kind != "base" or entry.domain is None:
            return entry.needs
        fitting = [one for one in self.entries.values() if one.kind == "oms" and one.domain == entry.domain]
        if not fitting:
            return entry.needs
        module = min(fitting, key=lambda one: not self.available(one))
        return (*entry.needs, module.id, *module.needs)

    def has_spread_head(self, base: Entry) -> bool:
        """Whether an OMS module that the base can get has a spread head, going by the names of latent domains."""
        modules = [self.folder(base) / "oms"]
        if not (modules[0] / "model_index.json").is_file():
            fitting = (one for one in self.entries.values() if one.kind == "oms" and base.domain in (None, one.domain))
            modules = [self.folder(one) for one in fitting if self.available(one)]
        return any((module / SPREAD_FOLDER).is_dir() for module in modules)

    def ids(self, kind: Kind) -> list[str]:
        return [entry.id for entry in self.entries.values() if entry.kind == kind]

    def find(self, source: str, kind: Kind) -> Entry:
        """The entry for a catalogue id or a folder. Raises StudioError for anything else, with the reason.

        A folder becomes an entry of its own: defaults from its UNet's config, its domain unknown until it is measured.
        """
        if source in self.entries:
            entry = self.entries[source]
            if entry.kind != kind:
                wanted = ", ".join(self.ids(kind)) or "none yet"
                raise StudioError(f"{source!r} is a model of kind {entry.kind}, not {kind}: choose one of {wanted}")
            if not self.available(entry) and entry.repository:
                raise StudioError(to_fetch(entry))
            if not self.available(entry):
                raise StudioError(f"the files of {source!r} are not at {self.folder(entry)}: restore that folder")
            if not entry.folder:
                _refuse_links(self.downloads, self.folder(entry))
            return entry
        path = snapshot_of(local_path(source))
        if not path.is_dir():
            refuse_format(path, source)
        if is_safetensors(path) and path.is_file() and kind == "base":
            return self._single_file(path.absolute())  # not resolved: the hub's cache links to files without a name
        if not path.is_dir():
            known = ", ".join(self.ids(kind)) or "none yet"
            raise StudioError(f"unknown model {source!r}: choose one of {known}, or give a diffusers folder")
        path = path.resolve()
        for entry in self.entries.values():
            if entry.kind == kind and self.folder(entry).resolve() == path:
                return entry
        if kind == "base":
            check_folder(path)
        elif not (path / "model_index.json").is_file():
            raise StudioError(f"{source!r} contains no model_index.json: give a folder in the diffusers layout")
        return Entry(
            id=re_id(path.name),
            kind=kind,
            title=path.name,
            folder=str(path),
            domain=_domain_of(path) if kind == "base" else None,
            defaults=_defaults_of(path) if kind == "base" else None,
        )

    def lora(self, source: str) -> Path:
        """The file of a LoRA: a catalogue id, or the path of a file or of a folder with one, as PEFT writes it.

        Raises StudioError for anything else, and for a pickle.
        """
        entry = self.entries.get(source)
        if entry and entry.kind == "lora":
            if not self.available(entry):
                raise StudioError(
                    to_fetch(entry) if entry.repository else f"{source!r} is no longer at {entry.folder}: restore it"
                )
            if not entry.folder:
                _refuse_links(self.downloads, self.folder(entry))
            folder = self.folder(entry)
            file = folder if folder.is_file() else next(iter(weight_files(folder)), None)
            if file is None:
                raise StudioError(f"the files of {source!r} are not at {folder}: restore them or download it again")
            return file
        path = snapshot_of(local_path(source))
        if path.is_dir():
            if file := lora_in(path):
                return file.absolute()
            refuse_pickles(path)
            raise StudioError(f"{source} is a folder without a LoRA: give a .safetensors file, or PEFT's folder")
        refuse_format(path, source)
        if not is_safetensors(path) or not path.is_file():
            known = ", ".join(self.ids("lora")) or "none yet"
            raise StudioError(
                f"unknown LoRA {source!r}: choose one of {known}, or give a .safetensors file or its folder"
            )
        return path.absolute()

    def _single_file(self, path: Path) -> Entry:
        family = family_of(path)
        turbo = identify(path).is_turbo
        native = NATIVE["sd15" if turbo else family]
        sampling = TURBO if turbo else {"guidance_scale": 7.5}
        defaults = Defaults(width=native, height=native, max_size=2 * native, **sampling)
        return Entry(
            id=re_id(path.stem),
            kind="base",
            title=path.stem,
            folder=str(path),
            domain=DOMAINS[family],
            defaults=defaults,
        )


def own_entries(record: dict[str, Any], path: Path) -> list[Any]:
    """The entries of the user's list, as they are in the file. Raises StudioError if it has none."""
    entries = record.get("models")
    if not isinstance(entries, list):
        raise StudioError(f"{path} cannot be read (it has no list of models)")
    return entries


def local_path(text: str) -> Path:
    """The path that a text names; it need not exist. Raises StudioError if it cannot be accessed."""
    try:
        path = Path(text).expanduser()
        path.exists()
    except (OSError, RuntimeError) as error:  # no permission, a name that is too long, an unknown user's home
        reason = getattr(error, "strerror", None) or error
        raise StudioError(f"{text[:200]!r} cannot be read ({reason}): check the path and its permissions") from error
    return path


def _refuse_links(models: Path, folder: Path) -> None:
    """Raises StudioError for a link that leads out of the models folder: downloads contain plain files only."""
    for path in (folder, *folder.rglob("*")):
        if path.is_symlink() and not path.resolve().is_relative_to(models.resolve()):
            raise StudioError(
                f"{path} is a link that leads out of the models folder: remove it, and give the path that it leads to "
                "with --model if you trust it"
            )


def open_catalog(presets: Path | None = None, home: Path | None = None) -> Catalog:
    """presets: the catalogue's folder, else $OMS_PRESETS, else the shipped one. home: the user's folder."""
    named = os.environ.get("OMS_PRESETS")
    return Catalog(presets or (Path(named) if named else None), home=home)


def to_fetch(entry: Entry) -> str:
    """A message that an entry is not on this machine, and how to download it."""
    size = f"{(entry.size or 0) / 1e9:.1f} GB"
    return (
        f"{entry.id!r} is not on this machine yet: `python -m oms_app download {entry.id}` downloads it "
        f"({size} from {entry.repository}, licence {entry.licence})"
    )


def re_id(name: str) -> str:
    """A folder's name as an id: lower case, other characters become hyphens."""
    cleaned = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in name.lower()).strip("._-")
    return cleaned[:100] or "folder"


def _defaults_of(folder: Path) -> Defaults:
    config, vae = read_json(folder / "unet/config.json"), read_json(folder / "vae/config.json")
    try:
        factor = 2 ** (len(vae["block_out_channels"]) - 1)
        sample = config.get("sample_size") or 64
        height, width = (int(side) * factor for side in (sample if isinstance(sample, list) else (sample, sample)))
        small, large = max(8, min(height, width) // 2), min(2048, 2 * max(height, width))
        sizes = Defaults(width=width, height=height, min_size=small, max_size=large)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise StudioError(f"{folder} has no valid size in its unet and vae config.json: restore them") from error
    return sizes.model_copy(update=_sampling_of(folder, config))


def _sampling_of(folder: Path, unet: Mapping[str, Any]) -> dict[str, Any]:
    """How a distilled model is meant to be sampled, as far as its folder shows it; nothing for other models."""
    _, scheduler = parts_of(read_json(folder / "model_index.json"))["scheduler"]
    if scheduler == "LCMScheduler":
        guided = unet.get("time_cond_proj_dim") is not None  # the UNet reads the guidance scale
        return {"scheduler": "lcm", "num_inference_steps": 4, "guidance_scale": 8.0 if guided else 1.0}
    config = read_json(folder / "scheduler/scheduler_config.json")
    published = unet.get("sample_size") == 64 and unet.get("cross_attention_dim") in (1024, 2048)
    usual = config.get("prediction_type", "epsilon") == "epsilon" and not config.get("rescale_betas_zero_snr")
    if published and usual and config.get("timestep_spacing") == "trailing" and scheduler in _EULER:
        return TURBO  # SD-Turbo and SDXL-Turbo were published so
    return {}


def _domain_of(folder: Path) -> str | None:
    """Its latent domain, as far as the VAE's scaling factor determines it."""
    scale = read_json(folder / "vae/config.json").get("scaling_factor", USUAL_SCALE)
    return SCALES.get(scale) if isinstance(scale, float) else None
