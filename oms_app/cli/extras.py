"""Which optional packages a command needs: the extras of pyproject.toml."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from types import MappingProxyType

from oms_app.errors import StudioError

# Extra → the modules that it installs and that our code imports.
EXTRAS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "app": ("gradio",),
        "train": ("matplotlib", "peft"),
        "evaluate": ("joblib", "matplotlib", "prdc", "torchmetrics"),
    }
)


def require(extra: str, purpose: str) -> None:
    """Raise StudioError, with the command that installs them, if modules of the extra are missing.

    purpose: the subject of the message, e.g. "the page". A missing module is reported before any work begins.
    """
    missing = [module for module in EXTRAS[extra] if not _is_installed(module)]
    if missing:
        raise StudioError(
            f"{purpose} needs {', '.join(missing)}: run pip install 'oms-studio[{extra}]', "
            "or in a checkout pip install --requirement requirements.txt"
        )


def _is_installed(module: str) -> bool:
    """False for the folder without code that an uninstalled package can leave behind, too."""
    spec = find_spec(module)
    return spec is not None and spec.origin is not None
