"""Shared by all tests: a tiny real world of models, built once, and a user's folder of its own for every test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """OMS_HOME in a temporary folder, so that no test touches the user's pictures."""
    monkeypatch.setenv("OMS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="session")
def presets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The catalogue of tiny.make_world: lumen, lumen-oms, alien-oms (another latent domain), absent."""
    from diffusers.utils import logging as diffusers_logging
    from tiny import make_world
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def lumen(presets: Path) -> Path:
    """The tiny base model's folder."""
    return presets.parents[1] / "assets/lumen"


@pytest.fixture(scope="session")
def _shared_studio(presets: Path, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    from oms_app import Studio

    return Studio(presets=presets, device="cpu", home=tmp_path_factory.mktemp("home"))


@pytest.fixture
def studio(_shared_studio) -> Iterator:  # type: ignore[no-untyped-def, type-arg]
    """A Studio over the tiny world: its models stay loaded from test to test, its other caches start cold."""
    _shared_studio.forget()
    yield _shared_studio
