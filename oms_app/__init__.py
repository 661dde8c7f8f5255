"""OMS Studio: raw and corrected pictures of one noise, side by side.

from oms_app import Studio, GenerateRequest, Variant
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oms_app.engine.studio import Studio
    from oms_app.schema import GenerateRequest, GenerateResult, StudioError, Variant

__all__ = ["GenerateRequest", "GenerateResult", "Studio", "StudioError", "Variant"]
__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    """Lazily, because importing the package must not load torch: the command line's errors should be instant."""
    if name == "Studio":
        from oms_app.engine.studio import Studio

        return Studio
    if name in __all__:
        from oms_app import schema as requests

        return getattr(requests, name)
    raise AttributeError(f"module 'oms_app' has no attribute {name!r}")
