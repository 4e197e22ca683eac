"""The command ``zooft``: a file a command, loaded when it is called.

Owns the group. What a user sees of an error is `zooft.cli.exit_status`' matter: the message, notes, an exit status;
never a traceback unless ``ZOOFT_TRACEBACK`` is set.
"""

from __future__ import annotations

import difflib
import sys
from importlib import import_module

import click

from zooft.cli import exit_status, process
from zooft.compute import launcher
from zooft.errors import AmbiguousNameError, ConfigError, UnknownNameError
from zooft.version import __version__

COMMANDS = {
    "finetune": "Fine-tune a backbone on your data, export it to ONNX and verify the file.",
    "audit": "Look for leaks and shortcuts in data.",
    "evaluate": "Judge a run or an ONNX file on data.",
    "compare": "Put runs side by side.",
    "export": "Export a run to ONNX and verify the file.",
    "prune": "Take channels out of a run's backbone, train on, and compare with a smaller one.",
    "verify": "Compare a run's ONNX file with its model.",
    "predict": "Classify files with an ONNX file.",
    "serve": "Answer requests over HTTP with ONNX files, and show a page.",
    "index": "Keep pictures' embeddings in a file to search among.",
    "search": "Find the pictures of an index that are nearest to others.",
    "whois": "Tell which patient, series or file a salted id stands for.",
    "backbones": "List backbones: parameters, input, stages, weights.",
    "tasks": "List what can be trained.",
    "heads": "List what can replace a classifier.",
    "freezers": "List the rules for what stays as it is.",
    "plugins": "List plugins, check one, or begin a new one.",
    "weights": "Prepare pretrained weights for a machine without network.",
    "cache": "Show and clean the cache.",
    "demo": "Write a small real data set to try things on.",
    "doctor": "Show versions, devices and providers, and what is wrong with them.",
}
_MODULES = {"tasks": "listing", "heads": "listing", "freezers": "listing"}


class LazyGroup(click.Group):
    """Knows its commands by name and one line; imports one when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of a user's day, not of the alphabet."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"zooft.cli.{_MODULES.get(cmd_name, cmd_name)}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggest the nearest command for a mistyped one."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else " 'zooft --help' lists them."
            raise click.UsageError(f"No such command '{args[0]}'.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """From the table above, so that help imports nothing."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Example: zooft finetune --backbone timm:vit_base --task classification --data DIR",
)
@click.version_option(__version__, prog_name="zooft")
def zooft() -> None:
    """Turn a pretrained vision model into your own deployed one."""


def main() -> None:
    """Run a command; exit with 0, with 1 if the job can't be done, with 2 if it was misworded."""
    process.tune()
    process.write_safely()
    try:
        with exit_status.interrupt_on_signals():
            status = zooft.main(prog_name="zooft", standalone_mode=False)
    except click.exceptions.Abort as error:  # click's word for Ctrl-C; the notes are on the cause
        _stop(error.__cause__ or KeyboardInterrupt())
    except (click.ClickException, ConfigError, UnknownNameError, AmbiguousNameError, KeyboardInterrupt) as error:
        _stop(error)
    except BrokenPipeError:
        sys.exit(141)
    except Exception as error:
        if exit_status.wants_traceback():
            exit_status.point_at_plugin(error)
            raise
        _stop(error)
    else:
        sys.exit(status if isinstance(status, int) else 0)


def _stop(error: BaseException) -> None:
    as_json = exit_status.wants_json() and launcher.process() == 0
    sys.exit(exit_status.show(error, as_json=as_json))
