"""What running a block does, in a world that is an empty folder."""

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.documents.code_blocks import DATA, PYTHON, SHELL, TEXT, CodeBlock
from tests.documents.session import GIVEN, Session


class EmptyWorld:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def fit(self, code: str) -> str:
        return code.replace("/data/", f"{self.root}/data/")


@pytest.fixture
def world(tmp_path: Path) -> EmptyWorld:
    (tmp_path / "home").mkdir()
    return EmptyWorld(tmp_path)


def shell(code: str, **attributes: object) -> CodeBlock:
    return CodeBlock("PAGE.md", 1, SHELL, code, **attributes)


def has_ended(pid: int, patience: float = 600.0) -> bool:
    """Whether a process is gone, or dead and only kept by what started it, before long."""
    stat = Path(f"/proc/{pid}/stat")
    end = time.monotonic() + patience
    while time.monotonic() < end:
        try:
            if stat.read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


def test_exports_and_the_folder_last_until_the_next_block(world):
    session = Session(world)
    code = "export WORD='two words\nand a line'\nHERE=1\nmkdir inner\ncd inner\n"
    assert session.run(shell(code)) is None
    code = '[ "$WORD" = "two words\nand a line" ]\n[ -z "${HERE-}" ]\n[ "$PWD" = /data/../inner ]'
    problem = session.run(shell(code))
    assert problem is not None and f"{world.root}/data/../inner" in problem, "paths are fitted"
    assert session.run(shell(code.replace("/data/..", str(world.root)))) is None


@pytest.mark.parametrize(
    "code", ["false\ntrue", "false | true", "echo $NOT_SET", "nowhere --flag", "(exit 3)"]
)
def test_any_command_that_fails_fails_the_block(world, code):
    problem = Session(world).run(shell(f"echo before\n{code}\n"))
    assert problem is not None
    assert problem.startswith("echo before\n") and "\nbefore\n" in problem, "the code and its log"
    assert "exit code" in problem.splitlines()[-1]


def test_lines_at_the_same_time_wait_for_each_other(world):
    wait = "touch {}; for i in $(seq 12000); do [ -e {} ] && exit 0; sleep 0.05; done; exit 1"
    code = f"({wait.format('a', 'b')})\n({wait.format('b', 'a')})\n"
    assert Session(world).run(shell(code, together=True)) is None
    assert Session(world).run(shell("true\nfalse\n", together=True)) is not None
    assert Session(world).run(shell("echo \\\n  one >c\n", together=True)) is None
    assert (world.root / "c").read_text() == "one\n"


def test_what_never_ends_is_stopped_once_it_has_printed_its_text(world):
    code = "(sleep 3600; touch late) &\necho $! >pid\necho ready\nsleep 3600\n"
    assert Session(world).run(shell(code, until="ready")) is None
    assert has_ended(int((world.root / "pid").read_text()))
    problem = Session(world).run(shell("echo other", until="ready"))
    assert problem is not None and "never printed 'ready'" in problem


def test_a_block_that_hangs_has_failed(world):
    problem = Session(world, timeout=0.3).run(shell("sleep 3600"))
    assert problem is not None and "not finished after" in problem


def test_a_stopped_session_ends_its_command_and_runs_no_other(world):
    session = Session(world)

    def stop_once_it_runs() -> None:
        while not (world.root / "runs").exists():
            time.sleep(0.05)
        session.stop()

    threading.Thread(target=stop_once_it_runs, daemon=True).start()
    problem = session.run(shell("touch runs\nsleep 3600"))
    assert problem is not None and "exit code" in problem
    problem = session.run(shell("touch later"))
    assert problem is not None and "stopped" in problem
    assert not (world.root / "later").exists()


def test_python_finds_what_it_is_given(world, monkeypatch):
    monkeypatch.setitem(GIVEN, "number", "number = 3\n")
    block = CodeBlock("PAGE.md", 5, PYTHON, "assert number == 3\n", given=("number",))
    assert Session(world).run(block) is None
    block = CodeBlock("PAGE.md", 5, PYTHON, "assert number == 3\n")
    problem = Session(world).run(block)
    assert problem is not None and "NameError" in problem


def test_data_is_written_and_text_is_left_alone(world):
    session = Session(world)
    assert session.run(CodeBlock("PAGE.md", 1, DATA, "a: 1\n", written_to="a.yaml")) is None
    assert session.run(shell("grep 'a: 1' a.yaml")) is None
    assert session.run(CodeBlock("PAGE.md", 1, TEXT, "false")) is None
