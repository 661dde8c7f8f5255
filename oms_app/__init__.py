"""OMS Studio: raw and corrected pictures of one noise, side by side.

from oms_app import Studio, GenerateRequest, Variant
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oms_app.engine.studio import Studio
    from oms_app.errors import StudioError
    from oms_app.schema import GenerateRequest, GenerateResult, ImageResult, Lora, Progress, Variant

__all__ = ["GenerateRequest", "GenerateResult", "ImageResult", "Lora", "Progress", "Studio", "StudioError", "Variant"]
__version__ = "0.2.0"

_HOMES = {"Studio": "oms_app.engine.studio", "StudioError": "oms_app.errors"}


def __getattr__(name: str) -> Any:
    """Imports on first use, because importing the package must not load torch: errors should be instant."""
    if name in __all__:
        return getattr(importlib.import_module(_HOMES.get(name, "oms_app.schema")), name)
    raise AttributeError(f"module 'oms_app' has no attribute {name!r}")
