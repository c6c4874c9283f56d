"""The subcommands of evaluate that look at pictures: coincidence of sound and picture, on-screen separation."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from soundssl.commands import scoring
from soundssl.commands.options import Device, Precision, Seed, Threads, words
from soundssl.commands.target import check_ending
from soundssl.commands.terminal import Terminal, print_table

Scores = Annotated[Path | None, typer.Option("-o", "--output", help="Write the scores here as JSON lines.")]
Split = Annotated[str | None, typer.Option(help="Only clips of these splits, separated by commas.")]


def coincidence(
    features: Annotated[Path, typer.Argument(help="Features file with pictures, as log-mel frames.")],
    model: Annotated[
        Path, typer.Option("-m", "--model", help="Model of --objective coincidence --set modality=image, or both.")
    ],
    at_least: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="List only clips of this probability or more: their keys, one a line, for train --clips."
        ),
    ] = None,
    split: Split = None,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the probabilities, or the list, to this file.")
    ] = None,
) -> None:
    """Sound and pictures of each clip: how surely do they belong together?

    Writes a line of JSON a clip: its key and the mean probability that a picture and the sound about it coincide.
    Tzinis et al. 2021 train on clips of 0.8 or more (--at-least 0.8).

    Example:

    soundssl evaluate coincidence features.h5 -m coincidence.safetensors --at-least 0.8 -o list.txt
    """
    from soundssl import coincidence as task
    from soundssl import device as hardware
    from soundssl import files

    if output:
        files.guard(output, no_clobber=False, through=True)
        files.guard_inputs(output, [features, model])
        check_ending(output, *(("text",) if at_least is not None else ("JSON lines", "JSON", "text")))
    source, trained, terminal = files.Features(features), files.read_model(model), Terminal("evaluate")
    chosen = source.clips.in_splits(words(split), source.path)
    with hardware.start(device, precision, threads) as accelerator:
        found = task.probabilities(source, trained, accelerator, chosen, terminal)
    # As printed, so that a clip reaches the probability that was printed for it.
    known = [
        (str(key), round(float(value), 6)) for key, value in zip(source.clips.key, found, strict=True) if value == value
    ]
    if lacking := int(chosen.sum()) - len(known):
        terminal.say(f"{lacking} of {int(chosen.sum())} clips have no pictures or are shorter than a window; left out")
    if at_least is not None:
        kept = [key for key, value in known if value >= at_least]
        terminal.say(f"{len(kept)} of {len(known)} clips reach {at_least}")
        _write([*kept], output)
    elif output or not sys.stdout.isatty():
        _write([json.dumps({"key": key, "probability": value}) for key, value in known], output)
    else:
        print_table(["key", "probability"], [[key, f"{value:.3f}"] for key, value in known])


def _write(lines: list[str], output: Path | None) -> None:
    """Print lines, or write them to a file whole."""
    from soundssl import files

    content = "".join(line + "\n" for line in lines)
    if output is None:
        sys.stdout.write(content)
        return
    with files.replace(output, through=True) as partial:
        partial.write_text(content, "utf-8")


def onscreen(
    waves: Annotated[Path, typer.Argument(help="Features file of waveforms with pictures.")],
    model: Annotated[Path, typer.Option("-m", "--model", help="Model written by train --objective onscreen.")],
    labels: Annotated[
        Path, typer.Option(help="Labels file that says of clips whether their sound is on screen (1) or not (0).")
    ],
    on_screen_class: Annotated[str, typer.Option(help="The class of the labels that says so.")] = "on-screen",
    split: Split = None,
    count: Annotated[int, typer.Option(min=1, help="Mixtures drawn, of either kind.")] = 100,
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of the mixtures.")] = 5.0,
    batch_size: Annotated[int, typer.Option(min=1, help="Mixtures in one batch.")] = 8,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    bootstrap: Annotated[int, typer.Option(min=0, help="Bootstrap replicates over mixtures; 0: none.")] = 0,
    seed: Seed = 0,
    output: Scores = None,
) -> None:
    """On-screen separation: what is kept of sounds that are seen, and of sounds that are not?

    Sounds on screen are mixed with sounds off screen, and sounds off screen with one another, at equal energy, with the
    pictures of the first. Beside every figure stands that of half the mixture, the trivial estimate: 0 dB of
    improvement and 6.02 dB of suppression.

    Example:

    soundssl evaluate onscreen waves.h5 -m onscreen.safetensors --labels labels.h5 --split test --bootstrap 1000
    """
    from soundssl.evaluations.onscreen import Options
    from soundssl.separation import onscreen as scored

    report = scoring.begin(scoring.Report("onscreen", waves, output, None, None, False), labels)
    rows = scored.score(
        waves, model, labels, name=on_screen_class, splits=words(split), count=count, seconds=seconds,
        batch_size=batch_size, options=Options(bootstrap), seed=seed, device=device, precision=precision,
        threads=threads,
    )  # fmt: skip
    scoring.show(rows, report)
