import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from oprd.cli.errors import CommandError, one_sentence, setting_up, show_tracebacks
from oprd.cli.main import app
from oprd.text import one_line
from oprd.version import __version__

HEAVY = {"torch", "transformers", "trl", "datasets", "accelerate", "peft", "pyarrow", "rich"}


def invoke(*arguments: str):
    return CliRunner().invoke(app, arguments)


@pytest.fixture(autouse=True)
def tracebacks_hidden():
    yield
    show_tracebacks(False)


def test_help_and_version_import_no_heavy_library():
    script = (
        "import sys\n"
        "from oprd.cli.main import app\n"
        "for option in ('--help', '--version'):\n"
        "    app([option], standalone_mode=False)\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)))\n"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "train" in out.stdout and "doctor" in out.stdout
    assert out.stdout.splitlines()[-1] == "[]"


def test_version_is_the_package_version():
    result = invoke("--version")
    assert (result.exit_code, result.stdout) == (0, f"oprd {__version__}\n")


def test_help_lists_the_commands():
    result = invoke("--help")
    assert result.exit_code == 0
    assert {"train", "eval", "doctor"} <= set(result.stdout.split())


@pytest.mark.parametrize("argument", ["trian", "--verbose"])
def test_an_unknown_command_or_option_is_named(argument: str):
    result = invoke(argument)
    assert result.exit_code == 2
    assert argument in result.stderr and "Traceback" not in result.stderr


def raising(error: Exception, *, in_library: bool = False, in_setup: bool = False):
    """A command of a module of this package that fails, itself or in a library it calls."""
    module = {"error": error, "__name__": "somelib.deep" if in_library else "oprd.somewhere"}
    exec("def fail(): raise error", module)

    def command():
        if not in_setup:
            module["fail"]()
        with setting_up():
            module["fail"]()

    return one_sentence(command)


@pytest.mark.parametrize("error", [ValueError("a\n  b"), FileNotFoundError("a b"), OSError("a b")])
def test_an_error_of_our_own_making_is_one_line_on_stderr(error: Exception, capsys):
    with pytest.raises(typer.Exit) as caught:
        raising(error)()
    assert caught.value.exit_code == 1
    assert capsys.readouterr() == ("", "oprd: a b\n")


def test_a_library_error_is_expected_while_setting_up_and_a_bug_later(capsys):
    with pytest.raises(typer.Exit):
        raising(OSError("no such model"), in_library=True, in_setup=True)()
    assert capsys.readouterr().err == "oprd: no such model\n"
    with pytest.raises(OSError, match="no such model"):
        raising(OSError("no such model"), in_library=True)()


@pytest.mark.parametrize("error", ["ConnectError", "ConnectTimeout", "ReadTimeout"])
@pytest.mark.parametrize("library", ["httpx", "httpx2", "requests"])
def test_a_network_that_is_not_there_is_one_sentence_whoever_found_out(library, error, capsys):
    found = type(error, (Exception,), {"__module__": f"{library}._exceptions"})("refused")
    with pytest.raises(typer.Exit):
        raising(found, in_library=True)()
    said = capsys.readouterr().err
    assert said.startswith("oprd: the Hugging Face hub") and "(refused)" in said
    assert said.count("\n") == 1 and "leave push_to_hub out" in said


@pytest.mark.parametrize("error", [TypeError("x"), RuntimeError("x"), KeyError("x")])
def test_a_bug_keeps_its_traceback(error: Exception):
    with pytest.raises(type(error)):
        raising(error, in_setup=True)()


def test_debug_shows_the_traceback_of_an_expected_error(capsys):
    show_tracebacks(True)
    with pytest.raises(CommandError) as caught:
        raising(ValueError("a"), in_setup=True)()
    assert isinstance(caught.value.__cause__, ValueError)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("arguments", [["--debug"], []])
def test_debug_is_an_option_and_an_environment_variable(arguments, monkeypatch):
    if not arguments:
        monkeypatch.setenv("OPRD_DEBUG", "1")
    result = invoke(*arguments, "train", "--no_such_field", "1")
    assert isinstance(result.exception, CommandError)


def test_control_characters_in_a_message_are_escaped():
    assert one_line("a\x1b[31mb\r\n\tc\u202e") == "a\\x1b[31mb c\\u202e"
