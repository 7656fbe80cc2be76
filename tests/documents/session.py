"""A reader who runs a document's code blocks one after the other, in one terminal."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

from tests.documents.code_blocks import DATA, PYTHON, SHELL, TEXT, CodeBlock
from tests.documents.small_world import SmallWorld

TIMEOUT = 600.0

# What a Python block may begin with, by name. The documents say where the reader has it from.
GIVEN = {
    "model": """
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from pixelclip import add_pixelclip_config
cfg = get_cfg()
add_pixelclip_config(cfg)
cfg.merge_from_file("configs/pixelclip_vitb16.yaml")
cfg.MODEL.DEVICE = "cpu"
model = build_model(cfg).eval()
model.set_vocabulary(["sky", "sofa, couch", "traffic light"])
""",
    "image": "import torch\nimage = torch.randint(0, 256, (3, 48, 64), dtype=torch.uint8)\n",
    "masks": "import torch\nmasks = torch.rand(2, 48, 64) > 0.5\n",
    "labels": "import torch\nlabels = torch.randint(0, 3, (48, 64))\n",
}


class Session:
    """One terminal: what a block exports, and where it goes, the next one finds.

    Args:
        world: in which blocks run.
        timeout: seconds after which a block has failed.

    Attributes:
        is_stopped: whether :meth:`stop` was called.
    """

    def __init__(self, world: SmallWorld, timeout: float = TIMEOUT) -> None:
        self._world = world
        self._timeout = timeout
        self._environment = world.environment
        self._folder = str(world.root)
        self._process: subprocess.Popen | None = None
        self.is_stopped = False

    def stop(self) -> None:
        """From another thread: end what runs now, and let every later block fail."""
        self.is_stopped = True
        if self._process is not None:
            _kill(self._process)

    def run(self, block: CodeBlock) -> str | None:
        """Run a block; return None, or what was run and printed, and why that is a failure."""
        if self.is_stopped:
            return "not run: the session was stopped before"
        if block.language == TEXT:
            return None
        if block.language == DATA:
            (self._world.root / block.written_to).write_text(block.code)
            return None
        code = self._world.fit(block.code)
        script = _write_script(self._world.root / "home", block, code)
        log = script.with_suffix(".log")
        problem = self._execute(script, log, block.until)
        if problem is None:
            return None
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-40:])
        return f"{code}\n{tail}\n{problem}"

    def _execute(self, script: Path, log: Path, until: str) -> str | None:
        program = "python" if script.suffix == ".py" else "bash"
        exported = script.with_suffix(".env")
        with open(log, "w") as output:
            self._process = subprocess.Popen(
                [program, str(script)],
                cwd=self._folder,
                env={**self._environment, "DOCS_CHECK_EXPORTED": str(exported)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            problem = _wait(self._process, log, until, self._timeout)
        if problem is None and exported.exists():
            self._continue_from(exported.read_text())
        return problem

    def _continue_from(self, exported: str) -> None:
        pairs = [entry.partition("=") for entry in exported.split("\0") if entry]
        self._environment = {name: value for name, _, value in pairs}
        self._folder = self._environment["PWD"]


def _write_script(folder: Path, block: CodeBlock, code: str) -> Path:
    """Write what is run, next to which its log is to lie."""
    path = folder / f"line_{block.line}"
    if block.language == PYTHON:
        path = path.with_suffix(".py")
        path.write_text("".join(GIVEN[name] for name in block.given) + code)
        return path
    assert block.language == SHELL
    path = path.with_suffix(".sh")
    head = "set -euo pipefail\ntrap 'env -0 > \"$DOCS_CHECK_EXPORTED\"' EXIT\n"
    path.write_text(head + (_at_the_same_time(code) if block.together else code))
    return path


def _at_the_same_time(code: str) -> str:
    commands = [line for line in code.replace("\\\n", " ").splitlines() if line.strip()]
    started = "\n".join(f"{{ {command}\n}} &\npids+=($!)" for command in commands)
    return f'pids=()\n{started}\nfor pid in "${{pids[@]}}"; do wait "$pid"; done\n'


def _wait(process: subprocess.Popen, log: Path, until: str, timeout: float) -> str | None:
    """Wait for the end, or for a text in the log; leave no process behind."""
    end = time.monotonic() + timeout
    try:
        while process.poll() is None and time.monotonic() < end:
            if until and until in log.read_text(errors="replace"):
                return None
            time.sleep(0.05)
        if process.returncode is None:
            return f"not finished after {timeout:.0f} seconds"
        if until and until not in log.read_text(errors="replace"):
            return f"ended with exit code {process.returncode} and never printed {until!r}"
        return f"exit code {process.returncode}" if process.returncode and not until else None
    finally:
        _kill(process)


def _kill(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
