"""The command `hhdelay`: its subcommands, and what becomes of an error in any of them.

Nothing imported here may import numpy or numba at its head: `hhdelay --help` has to answer at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from hhdelay import __version__
from hhdelay.cli.bench import bench
from hhdelay.cli.check import check
from hhdelay.cli.plot import plot
from hhdelay.cli.recipes import recipes
from hhdelay.cli.reproduce import reproduce
from hhdelay.cli.resume import resume
from hhdelay.cli.search import search
from hhdelay.cli.simulate import simulate
from hhdelay.cli.status import status
from hhdelay.cli.sweep import sweep
from hhdelay.config.errors import HHDelayError

INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it


class OneLineErrors(TyperGroup):
    """What a person can mend is one line on stderr and an exit status."""

    def invoke(self, ctx: Any) -> Any:
        """Run the subcommand; an HHDelayError ends with its exit status, Ctrl-C with 130, no traceback."""
        try:
            return super().invoke(ctx)
        except HHDelayError as error:
            print(f"hhdelay: {error}", file=sys.stderr)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    cls=OneLineErrors, rich_markup_mode=None, no_args_is_help=True, pretty_exceptions_enable=False
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"hhdelay {__version__}")
        raise typer.Exit()


@app.callback()
def hhdelay(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Hodgkin-Huxley neurons with noise, coupled through delayed synapses.

    \b
      hhdelay recipes                               what ships with the package
      hhdelay simulate ei motif.delay_ms=26         two neurons; how regularly do they fire?
      hhdelay sweep ei --out ei.zarr                R over delay and strength, in tiles
      hhdelay resume ei.zarr                        go on with a sweep that was stopped
      hhdelay reproduce --out gallery               every claim as a figure and a sentence
      hhdelay check                                 is the neuron the one of the textbooks?

    Settings are given as key=value, such as noise.D_uA2_ms_cm4=2. Results go to stdout, progress to stderr.
    """


for command in (bench, check, plot, recipes, reproduce, resume, search, simulate, status, sweep):
    app.command()(command)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (default: that of the process) and return its exit status.

    0 done, 1 failed, 2 a wrong setting or option, or a step too large, 130 stopped by Ctrl-C.
    A reader that goes away, as `head` does, is no error worth a word: status 1.
    """
    try:
        try:
            app(args=argv, prog_name="hhdelay")
        finally:
            sys.stdout.flush()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        raise  # a text: the interpreter prints it
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the flush at exit must find no pipe
        return 1
    return 0
