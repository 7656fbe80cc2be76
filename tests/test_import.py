import os
import subprocess
import sys

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
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    result = subprocess.run(
        [sys.executable, "-B", "-c", code],
        cwd=tmp_path / "work",
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home"), "PYTHONPATH": root},
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
