"""The application: commands in pipeline order, and the one place where exceptions become exit statuses.

0 all done; 1 failure, or every input skipped, or an extra not installed; 2 usage, or a missing path; 3 finished, but
some inputs were skipped; 4 wrong kind of file, newer schema, or another front end; 130 and 143 on SIGINT and SIGTERM.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from typing import Annotated, Any

import typer
import typer.completion
import typer.core

from soundssl import SoundsslError, __version__
from soundssl.commands import (
    cluster,
    detect,
    embed,
    evaluate,
    export,
    featurize,
    infer,
    info,
    label_clusters,
    labels,
    sample_triplets,
    search,
    separate,
    train,
)
from soundssl.commands.terminal import say

# Pipeline order, under the headings of --help.
COMMANDS: dict[str, dict[str, Any]] = {
    "Sound to features": {"featurize": featurize.featurize, "sample-triplets": sample_triplets.sample_triplets},
    "Mixtures to tracks": {"separate": separate.separate},
    "Features to embeddings": {"train": train.train, "embed": embed.embed},
    "Experience to categories": {"cluster": cluster.cluster, "label-clusters": label_clusters.label_clusters},
    "Labels to labels": {"labels": labels.app},
    "Recordings to events": {"detect": detect.detect, "search": search.search, "infer": infer.infer},
    "Measure": {"evaluate": evaluate.app},
    "Models for other programs": {"export": export.export},
    "Look": {"info": info.info},
}


class Headed(typer.core.TyperGroup):
    """List commands under their headings."""

    def format_commands(self, ctx, formatter) -> None:
        """Write one section a heading."""
        for heading, commands in COMMANDS.items():
            with formatter.section(heading):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(100)) for name in commands])


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"soundssl {__version__}")
        raise typer.Exit


def _show_completion(shell: str | None) -> None:
    if shell:
        if shell not in ("bash", "zsh", "fish", "powershell"):
            raise typer.BadParameter("choose bash, zsh, fish or powershell")
        typer.echo(typer.completion.get_completion_script(prog_name="soundssl", complete_var=COMPLETE, shell=shell))
        raise typer.Exit


COMPLETE = "_SOUNDSSL_COMPLETE"


def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    completion: Annotated[
        str | None,
        typer.Option(
            metavar="SHELL",
            callback=_show_completion,
            is_eager=True,
            help='Print the completion script of bash, zsh, fish or powershell: eval "$(soundssl --completion bash)".',
        ),
    ] = None,
) -> None:
    """From a folder of unlabelled video or sound to a sound recogniser with a handful of labels.

    Unix tools that read and write HDF5, NPY and safetensors files, in one pipeline:

    soundssl featurize videos/ -o features.h5

    soundssl sample-triplets features.h5 -o triplets.h5

    soundssl train features.h5 --triplets triplets.h5 -o model.safetensors

    soundssl embed features.h5 -m model.safetensors -o embeddings.h5

    soundssl evaluate retrieval embeddings.h5 --labels labels.h5
    """


def application(only: str = "") -> typer.Typer:
    """Return the application with the command that is asked for, else with all: their options take 0.07 s to build."""
    app = typer.Typer(
        name="soundssl",
        cls=Headed,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,  # rich keeps the line ends of docstrings, and gives half the width to types of options
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback()(root)
    every = {name: command for members in COMMANDS.values() for name, command in members.items()}
    for name, command in [(only, every[only])] if only in every else every.items():
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
    return app


def _terminate(number, frame) -> None:
    raise SystemExit(128 + number)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its status; every error is one line on standard error."""
    arguments = sys.argv[1:] if arguments is None else arguments
    signal.signal(signal.SIGTERM, _terminate)
    if COMPLETE in os.environ:  # asked by a script of --completion; typer knows the shells only after this
        typer.completion.completion_init()
    try:
        typer.main.get_command(application("".join(arguments[:1]))).main(
            arguments, prog_name="soundssl", complete_var=COMPLETE
        )
    except Exception as error:  # the one place where an error ends a run
        if os.environ.get("SOUNDSSL_DEBUG"):
            raise
        name = next((word for word in arguments if not word.startswith("-")), "")
        say(name, _fact(error))
        raise SystemExit(getattr(error, "status", 1)) from None


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what a disk says that takes no more, or no more of one file
EXPECTED = (SoundsslError, ValueError, OSError, MemoryError, RuntimeError, ImportError)


def _fact(error: Exception) -> str:
    """Return what an error says, in one line, with what to do about it."""
    fact = " ".join((str(error) or type(error).__name__).splitlines())
    if isinstance(error, OSError) and error.errno in FULL:
        where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        return f"{where}{os.strerror(error.errno)}; make room, and give the same command again"
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _lacks_memory(fact)):
        return f"{fact}; a smaller --batch-size takes less"
    if not isinstance(error, EXPECTED):
        return f"{type(error).__name__}: {fact}; this is a fault of soundssl, SOUNDSSL_DEBUG=1 shows where"
    return fact


def _lacks_memory(fact: str) -> bool:
    """Return whether torch says that it lacks memory, on a card or on a processor."""
    return "out of memory" in fact.lower() or "can't allocate memory" in fact
