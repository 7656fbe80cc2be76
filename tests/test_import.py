import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
APPLICATIONS = ("analysis", "export", "mask_generation", "toy", "web")
# What takes long to import, and only single functions need.
HEAVY = (
    *("diffusers", "gradio", "matplotlib", "onnx", "open_clip", "scipy.spatial", "skimage"),
    *("sklearn", "timm", "transformers"),
)

REFUSE_NETWORK = """
import socket
def refuse(*_, **__):
    raise OSError("network")
socket.socket.connect = socket.getaddrinfo = refuse
"""
LACK_OPTIONAL_PACKAGES = """
import sys
for name in ("onnx", "onnxruntime", "onnxscript", "gradio", "sklearn"):
    sys.modules[name] = None
"""


def test_import_is_silent_touches_nothing_and_needs_no_optional_package(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    code = REFUSE_NETWORK + LACK_OPTIONAL_PACKAGES + (
        "import random, numpy, torch\n"
        "before = random.getstate(), numpy.random.get_state()[1].tolist(), torch.initial_seed()\n"
        "import pixelclip.checkpoint, pixelclip.engine, pixelclip.utils.visualization\n"
        "after = random.getstate(), numpy.random.get_state()[1].tolist(), torch.initial_seed()\n"
        "assert before == after, 'seeded'\n"
        "assert not torch.cuda.is_initialized()\n"
        "import os\n"
        "assert not os.listdir() + os.listdir(os.environ['HOME'])\n"
        "import pixelclip.export, pixelclip.web.page\n"
    )
    result = subprocess.run(
        [sys.executable, "-B", "-c", code],
        cwd=tmp_path / "work",
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_import_loads_neither_heavy_packages_nor_applications():
    code = "import sys, detectron2.modeling, detectron2.data; before = set(sys.modules); "
    code += "import pixelclip; print(*sorted(set(sys.modules) - before))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    loaded = result.stdout.split()
    assert "pixelclip.meta_arch" in loaded
    assert not set(HEAVY) & set(loaded)
    applications = tuple(f"pixelclip.{name}" for name in APPLICATIONS)
    assert not [name for name in loaded if name.startswith(applications)]


def imports_of(path):
    """Names of our modules that a file imports anywhere, also inside of functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            yield f"{node.module}."
        elif isinstance(node, ast.Import):
            yield from (f"{alias.name}." for alias in node.names)


CORE = sorted(
    path
    for path in (ROOT / "pixelclip").rglob("*.py")
    if path.relative_to(ROOT / "pixelclip").parts[0] not in APPLICATIONS
)


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_core_never_imports_an_application(path):
    applications = tuple(f"pixelclip.{name}." for name in APPLICATIONS)
    assert not [name for name in imports_of(path) if name.startswith(applications)]


def test_the_package_has_few_loose_files_and_each_package_says_what_it_holds():
    package = ROOT / "pixelclip"
    assert len(list(package.glob("*.py"))) <= 4
    folders = [path for path in package.iterdir() if (path / "__init__.py").is_file()]
    assert len(folders) <= 12
    for folder in folders:
        docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
        assert docstring and docstring.endswith("."), folder
