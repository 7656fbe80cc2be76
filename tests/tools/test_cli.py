"""The one command line: its help, its dispatch, and what it says of mistakes."""

import subprocess
import sys
from pathlib import Path

import cli
import pytest

import pixelclip

TOOLS = Path(cli.__file__).parent
NOT_COMMANDS = {"cli"}


def test_help_lists_every_tool_with_a_sentence(capsys):
    assert cli.main(["--help"]) == 0
    printed = capsys.readouterr().out
    for group, commands in cli.COMMANDS.items():
        assert f"\n{group}:\n" in printed
        for name in commands:
            (line,) = [line for line in printed.splitlines() if line.startswith(f"  {name} ")]
            assert line.endswith(".") and len(line) > 40
    modules = {module.partition(":")[0] for module in cli.MODULES.values()}
    assert modules == {path.stem for path in TOOLS.glob("*.py")} - NOT_COMMANDS
    assert cli.main([]) == 0
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize("name", cli.MODULES)
def test_every_command_explains_itself_with_its_own_name(name):
    command = [sys.executable, str(TOOLS / "cli.py"), *name.split(), "--help"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.startswith(f"usage: pixelclip {name} ")


def test_help_may_stand_first():
    command = [sys.executable, str(TOOLS / "cli.py"), "help", "datasets", "check"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.startswith("usage: pixelclip datasets check ")


def test_the_version_is_the_package_s(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"pixelclip {pixelclip.__version__}\n"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["predct"], "no command 'predct'. Did you mean predict?"),
        (["datasets", "chekc"], "no command 'datasets chekc'. Did you mean datasets check or"),
        (["photo.jpg"], "no command 'photo.jpg'. pixelclip --help lists all."),
    ],
)
def test_unknown_commands_are_refused_with_those_alike(words, hint, capsys):
    assert cli.main(words) == 2
    assert hint in capsys.readouterr().err


def test_the_first_of_two_words_lists_the_second(capsys):
    for words in (["datasets"], ["datasets", "--help"]):
        assert cli.main(words) == 0
        printed = capsys.readouterr().out
        assert "datasets check" in printed and "predict" not in printed


def test_errors_are_a_sentence_and_bugs_are_not_hidden(capsys):
    def fail(error):
        def main(_):
            raise error

        return main

    for error in (ValueError("x is 3"), FileNotFoundError(2, "gone", "a"), ImportError("b")):
        assert cli.run(fail(error), []) == 1
        assert capsys.readouterr().err == f"error: {error}\n"
    assert cli.run(fail(KeyboardInterrupt()), []) == 130
    assert "the same command starts it again" in capsys.readouterr().err
    with pytest.raises(TypeError):
        cli.run(fail(TypeError("a bug")), [])
