"""The command line as a whole: help, version, completion, wrong use, how errors end; the rest is beside it."""

from __future__ import annotations

import inspect
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

import nni_dynconv
from nni_dynconv.commands import cli
from nni_dynconv.commands.shared import telling
from nni_dynconv.errors import ConfigError, LaunchError

ROOT = Path(__file__).parents[2]
NAMES = [command.__name__ for command in cli.COMMANDS]
CODES = "0 fine, 1 a finding or a run that failed, 2 wrong use, 130 interrupted"


@pytest.fixture
def command(capsys):
    def run(*arguments):
        status = cli.main(arguments)
        return status, *capsys.readouterr()

    return run


def words(text):
    return " ".join(text.split())


# Help


@pytest.mark.parametrize("one", cli.COMMANDS, ids=NAMES)
def test_the_help_of_each_command_teaches_with_an_example(one, command):
    status, output, error = command(one.__name__, "--help")
    assert status == 0 and not error
    examples = re.findall(r"^ {8}(\S.*)$", one.__doc__, re.MULTILINE)
    assert examples and examples[0].startswith(f"nni-dynconv {one.__name__}")
    assert [line.strip() for line in output.splitlines() if line.startswith(" " * 6 + "n")] == examples
    assert CODES in words(output)


@pytest.mark.parametrize("name", NAMES)
def test_the_options_in_the_examples_exist(name, command):
    output = command(name, "--help")[1]
    examples, options = output.split("Options:")
    used = set(re.findall(r"(--\w+)", " ".join(re.findall(rf"nni-dynconv {name} .*", examples))))
    assert used <= {*re.findall(r"--\w+", options), "--help"}


def test_the_help_lists_every_command_in_a_sentence_that_is_whole(command):
    status, output, error = command("--help")
    assert status == 0 and CODES in words(output)
    table = output.split("Commands:\n")[1].split("\n\n")[0]
    listed = dict(re.findall(r"^  (\w+) +(\S.*)$", table, re.MULTILINE))
    assert listed == {one.__name__: inspect.cleandoc(one.__doc__).splitlines()[0] for one in cli.COMMANDS}
    assert command("-h")[1] == output


def test_the_version_is_the_packages(command):
    assert command("--version") == (0, f"nni-dynconv {nni_dynconv.__version__}\n", "")


TORCH = {"torch", "pytorch_lightning", "nni.nas"}
HEAVY = TORCH | {"nni", "scipy", "requests"}


@pytest.mark.parametrize(
    ("arguments", "heavy"),
    [
        (["--help"], HEAVY),
        (["doctor", "--help"], HEAVY),
        (["--version"], HEAVY),
        (["lunch"], HEAVY),
        (["check", "configs/one_shot.yml"], TORCH),
    ],
)
def test_what_needs_no_torch_loads_none(arguments, heavy):
    code = "import sys; from nni_dynconv.commands.cli import main; main(sys.argv[1:]); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert "nni_dynconv.commands.cli" in loaded and not heavy & loaded


def on_a_terminal(*arguments, **environment):
    """What the command shows on a terminal of 100 columns."""
    ours, theirs = pty.openpty()
    variables = {"TERM": "xterm-256color", "COLUMNS": "100"} | environment
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    run = [sys.executable, "-m", "nni_dynconv.commands", *arguments]
    with subprocess.Popen(run, stdout=theirs, stderr=theirs, env=kept | variables):
        os.close(theirs)
        shown = b""
        while True:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
    os.close(ours)
    return shown.decode()


COLOUR = re.compile(r"\x1b\[[\d;]*3\d[\d;]*m")


def test_help_has_colours_on_a_terminal_unless_they_are_not_wanted(command):
    assert COLOUR.search(on_a_terminal("check", "--help"))
    plain = on_a_terminal("check", "--help", NO_COLOR="1")
    assert "nni-dynconv check configs/one_shot.yml" in plain and not COLOUR.search(plain)
    piped = command("check", "--help")[1]
    assert piped.isascii() and "\x1b" not in piped


# Completion


def test_a_shell_can_complete_commands_and_options():
    def completions(line):
        asked = {"_NNI_DYNCONV_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
        run = [sys.executable, "-m", "nni_dynconv.commands"]
        return subprocess.run(run, env=os.environ | asked, capture_output=True, text=True).stdout.split()

    assert completions("nni-dynconv re") == ["register", "resume", "report"]
    assert completions("nni-dynconv rank x.yml supernet --ar") == ["--architectures"]


def test_completion_is_offered(command):
    assert {"--install-completion", "--show-completion"} <= set(command("--help")[1].split())


# Wrong use


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lunch", "x.yml"], "No such command 'lunch'. Did you mean 'launch'?\n  `nni-dynconv --help` tells"),
        ([], "Missing command"),
        (["check"], "Missing argument 'CONFIG'.\n  `nni-dynconv check --help` tells what it takes."),
        (["check", "a", "b"], "unexpected extra argument"),
        (["doctor", "x.yml", "--batchs", "3"], "No such option: --batchs (Possible options: --batches)"),
        (["doctor", "x.yml", "--batches", "few"], "Invalid value for '--batches'"),
        (["rank", "x.yml", "y", "--start", "zero"], "'zero' is not one of 'scratch', 'generated'"),
        (["launch", "x.yml", "--timeout"], "Option '--timeout' requires an argument"),
    ],
)
def test_wrong_use_ends_with_status_2_in_words(arguments, message, command):
    status, output, error = command(*arguments)
    assert status == 2 and not output
    assert error.startswith("nni-dynconv: ") and message in error and "Traceback" not in error


# What a command ends with


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ConfigError("wrong setting"), 2, "nni-dynconv: wrong setting\n"),
        (LaunchError("no server"), 1, "nni-dynconv: no server\n"),
        (KeyboardInterrupt(), 130, "nni-dynconv: interrupted; everything that was started is stopped.\n"),
        (EOFError("ran out of input"), 1, "nni-dynconv: EOFError: ran out of input (in "),
        (ZeroDivisionError("by zero"), 1, "NNI_DYNCONV_DEBUG=1 shows the traceback)\n"),
    ],
)
def test_an_error_of_a_command_is_told_in_words(error, status, message, command, monkeypatch):
    def check():
        raise error

    monkeypatch.delenv("NNI_DYNCONV_DEBUG", raising=False)
    monkeypatch.setattr(cli, "COMMANDS", (check, cli.doctor))
    found, output, told = command("check")
    assert (found, output) == (status, "") and message in told and "Traceback" not in told


def test_the_traceback_of_an_unexpected_error_can_be_had(command, monkeypatch):
    def check():
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(cli, "COMMANDS", (check, cli.doctor))
    monkeypatch.setenv("NNI_DYNCONV_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        command("check")


def test_arguments_of_nnictl_are_passed_on_as_they_are(command, monkeypatch):
    calls = []
    monkeypatch.setattr("nni_dynconv.launching.nnictl.nnictl", lambda arguments: calls.append(arguments) or 7)
    arguments = ["create", "--config", "x.yml", "--help", "--", "-f"]
    assert command("nnictl", *arguments)[0] == 7
    assert command("nnictl", "--version")[0] == 7
    assert calls == [arguments, ["--version"]]
    assert "Usage: nni-dynconv nnictl" in command("nnictl", "--help")[1]


def test_json_for_the_standard_output_stands_alone_there(capsys, tmp_path):
    with telling.aside(telling.STDOUT):
        print("a table")
    telling.write_json("{}", telling.STDOUT)
    assert capsys.readouterr() == ("{}\n", "a table\n")
    with telling.aside(tmp_path / "found.json"):
        print("a table")
    telling.write_json("{}", tmp_path / "found.json")
    assert capsys.readouterr() == ("a table\n", "") and (tmp_path / "found.json").read_text() == "{}\n"


# Check


def test_a_fresh_multi_trial_experiment_is_well_formed_and_what_makes_its_checkpoint_is_said(command, tmp_path):
    """It used to be an error that the checkpoint, which `launch` makes, was not there yet."""
    text = (ROOT / "configs" / "multi_trial.yml").read_text(encoding="utf-8")
    config = tmp_path / "multi_trial.yml"
    config.write_text(text.replace("../examples", str(ROOT / "examples")).replace("../runs", str(tmp_path / "runs")))
    status, output, error = command("check", str(config))
    assert status == 0 and not error
    assert "is well-formed" in output and f"`nni-dynconv launch {config}` makes it" in output
    assert f"`nni-dynconv warmup {config}` does" in output
    (tmp_path / "runs" / "shared").mkdir(parents=True)
    assert command("check", str(config))[1] == f"{config} is well-formed.\n"
