"""The command `fathom`: its subcommands by section, and what becomes of an error in any of them.

Nothing imported here may import torch or numpy at its head: `fathom --help` has to answer at once.
Help is plain text for the same reason (docs/decisions/0003-plain-help.md).
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from fathom import __version__
from fathom.cli import config, data, plan, reproduce
from fathom.cli.chat import chat
from fathom.cli.demo import demo
from fathom.cli.doctor import doctor
from fathom.cli.exchange import export_app, import_app
from fathom.cli.generate import generate
from fathom.cli.params import params
from fathom.cli.report import report
from fathom.cli.serve import serve
from fathom.cli.sft import sft
from fathom.cli.train import train
from fathom.config.errors import FathomError

TRY_AGAIN = 75       # EX_TEMPFAIL of sysexits.h
INTERRUPTED = 130   # 128 + SIGINT, as a shell reports it
SECTIONS = {        # of the help text, in the order in which a person meets them
    "Start here": ("demo", "doctor"),
    "Plan": ("config", "params", "plan"),
    "Train": ("data", "train", "sft", "report"),
    "Exchange": ("import", "export"),
    "Talk": ("generate", "chat", "serve"),
    "Reproduce": ("reproduce",),
}


class Sections(TyperGroup):
    """Subcommands listed by section; what a person can mend is one line on stderr and an exit status."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write each section's commands, one line each."""
        width = formatter.width - max(map(len, self.commands)) - 6   # 6: the formatter's own margins
        for title, names in SECTIONS.items():
            with formatter.section(title):
                commands = {name: self.commands[name] for name in names}
                formatter.write_dl([(name, one.get_short_help_str(width)) for name, one in commands.items()])

    def invoke(self, ctx: Any) -> Any:
        """Run the subcommand; a FathomError ends with its exit status, Ctrl-C with 130, no traceback."""
        try:
            return super().invoke(ctx)
        except FathomError as error:
            print(f"fathom: {error}", file=sys.stderr)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(cls=Sections, rich_markup_mode=None, no_args_is_help=True, pretty_exceptions_enable=False)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"fathom {__version__}")
        raise typer.Exit()


@app.callback()
def fathom(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """From raw text to a DeepSeek-V3 that talks.

    \b
      fathom demo --minutes 6                     train a small one here, then chat with it
      fathom train small --out runs/small         train by a recipe; `fathom config recipes` lists them

    Settings are given as key=value, such as train.lr=3e-4. Results go to stdout, progress to stderr.
    """


GROUPS = {
    "config": config.app, "plan": plan.app, "data": data.app, "import": import_app, "export": export_app,
    "reproduce": reproduce.app,
}  # fmt: skip
for command in (chat, demo, doctor, generate, params, report, serve, sft, train):
    app.command()(command)
for name, group in GROUPS.items():
    app.add_typer(group, name=name)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (default: that of the process) and return its exit status.

    0 done, 1 failed, 2 a wrong setting or option, 3 a run that diverged, 75 stopped by SIGTERM and
    saved, 130 stopped by Ctrl-C.
    A reader that goes away, as `head` does, is no error worth a word: status 1.
    """
    with contextlib.suppress(ValueError):   # not the main thread: then nobody sends it signals
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(TRY_AGAIN))   # so that nothing half-written is left
    try:
        try:
            app(args=argv, prog_name="fathom")
        finally:
            sys.stdout.flush()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        raise   # a text: the interpreter prints it
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())   # the flush at exit must find no pipe
        return 1
    return 0
