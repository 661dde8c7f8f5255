"""ZeroGPU Spaces: there is a GPU only inside a function that the package `spaces` runs in another process.

Nothing but arguments and results crosses to that process. So there are no previews, Stop does not end the work there,
and pictures, embeddings and models are not reused unless Hugging Face keeps the process. Previews of OMS and drafts
run on the CPU of the page's own process.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oms_app.schema import GenerateResult

if TYPE_CHECKING:
    from oms_app.engine.stages import ResolvedRequest
    from oms_app.engine.studio import Studio

logger = logging.getLogger(__name__)
SECONDS = 120  # that a request may keep the GPU
NOTE = (
    "This Space has ZeroGPU, where pictures are made in another process: there are no previews, Stop only stops "
    "waiting, and nothing is reused from earlier requests"
)
_studios: list[Studio] = []  # of this process, once it has one


def remote_generate(
    precision: str, memory: str, home: Path | None
) -> Callable[[ResolvedRequest], GenerateResult] | None:
    """What makes pictures where the GPU is; None on other hardware. Call it before torch is imported.

    precision, memory, home: as for Studio. The function raises what `Studio.generate` raises.
    """
    if os.environ.get("SPACES_ZERO_GPU", "").lower() not in ("1", "true"):
        return None
    try:
        import spaces
    except ImportError:
        logger.warning("this Space has ZeroGPU, but not the package `spaces`: it runs on the CPU")
        return None

    def generate(request: ResolvedRequest) -> GenerateResult:
        if not _studios:
            from oms_app.engine.studio import Studio

            options: dict[str, Any] = {"precision": precision, "memory": memory, "home": home}
            _studios.append(Studio(**options))
        result = _studios[0].generate(request)
        return result.model_copy(update={"notes": (*result.notes, NOTE)})

    return spaces.GPU(generate, duration=SECONDS)
