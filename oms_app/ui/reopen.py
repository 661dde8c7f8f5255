"""A saved picture opened in Create again: its pair, and the settings that made it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oms_app.engine.service import StudioService
from oms_app.errors import StudioError
from oms_app.pictures import saved_picture
from oms_app.ui import restore
from oms_app.ui.form import CreateValues
from oms_app.ui.result_view import Picture, ShownResult

if TYPE_CHECKING:
    from pathlib import Path

    from oms_app.output.history import History


def shown(history: History, name: str, service: StudioService, notes: tuple[str, ...] = ()) -> ShownResult:
    """A picture of the history with its counterpart. Raises StudioError if it is gone."""
    restored = history.settings(name)

    def picture(path: Path | None) -> Picture | None:
        if path is None:
            return None
        image, variant = saved_picture(path), history.settings(path.name).chosen
        return Picture(path, service.measure(image), service.reached(variant, image))

    raw, corrected = (picture(path) for path in history.pair(name))
    return ShownResult(
        prompt=restored.request.prompt,
        seed=restored.seed,
        raw=raw,
        oms=corrected,
        details=("from the history",),
        notes=notes,
    )


def opened(
    history: History, name: str, values: CreateValues, service: StudioService
) -> tuple[ShownResult, CreateValues]:
    """As `shown`, and the fields with the picture's settings; as they were if Create cannot take those, with the reason
    as a note."""
    try:
        after = restore.values_of(service.read_picture(history.path(name)), values, service)
    except StudioError as error:
        return shown(history, name, service, notes=(f"the settings are not restored: {error}",)), values
    return shown(history, name, service), after
