"""The packaged tiny CLIP behind the page, loaded once."""

from pathlib import Path

import pytest

from pixelclip.web.models import PageModels

TOY_CONFIG = str(Path(__file__).resolve().parents[2] / "configs" / "demo" / "toy.yaml")


@pytest.fixture(scope="session")
def toy_models() -> PageModels:
    return PageModels(TOY_CONFIG, seconds=600.0)
