"""One exported classifier of the packaged tiny CLIP, made once for all tests."""

from pathlib import Path

import pytest

from pixelclip import PixelCLIP
from pixelclip.engine.setup import load_config
from pixelclip.export import export_model

ROOT = Path(__file__).resolve().parents[2]
TOY_CONFIG = str(ROOT / "configs" / "demo" / "toy.yaml")
TOY_NAMES = ("sky", "grass", "house, building", "tree")
EXTRA = ("onnx", "onnxscript", "onnxruntime")


@pytest.fixture(scope="session")
def toy_model() -> PixelCLIP:
    return PixelCLIP(load_config(TOY_CONFIG)).eval()


@pytest.fixture(scope="session")
def toy_classifier(toy_model: PixelCLIP, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX file of the tiny CLIP with ``TOY_NAMES`` in a folder that did not exist."""
    for package in EXTRA:
        pytest.importorskip(package)
    path = tmp_path_factory.mktemp("export") / "new" / "scenes.onnx"
    export_model(toy_model, "classifier", path, TOY_NAMES, test_sizes=(96, 400))
    return path
