"""The command line program as a whole."""

from __future__ import annotations

from importlib.metadata import version

from click.testing import CliRunner

from simgap.cli.main import main


def test_the_version_is_that_of_the_package() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert (result.exit_code, result.output) == (0, f"simgap {version('simgap')}\n")


def test_every_command_and_option_of_the_program_has_a_help_text() -> None:
    for command in main.commands.values():
        assert command.help
        if command.name not in ("convert", "export"):
            assert all(getattr(option, "help", "") for option in command.params if option.param_type_name == "option")
