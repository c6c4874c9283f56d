"""soundssl evaluate strong: windows, the clips they make up, and the events they are decided to."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from soundssl.commands import scoring as reports
from soundssl.commands.detect import potential_of
from soundssl.commands.options import Seed, words
from soundssl.commands.scoring import Baseline, Classes, Scores, Topline
from soundssl.commands.terminal import Terminal

if TYPE_CHECKING:
    import numpy as np

    from soundssl.detection import scoring
    from soundssl.detection.decisions import Rule
    from soundssl.evaluations.strong import Options
    from soundssl.files import Embeddings


def strong(
    scores: Annotated[Path, typer.Argument(help="Scores of windows, written by embed --layer probabilities.")],
    labels: Annotated[Path, typer.Option(help="Labels file with events, or with rated spans (explicit negatives).")],
    split: Annotated[str | None, typer.Option(help="Only clips of these splits, separated by commas.")] = None,
    least: Annotated[
        int, typer.Option(min=1, help="Windows with a class, and without it, that it needs to be scored (inferred).")
    ] = 5,
    overlap: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Share of a window or of an event, whichever is shorter, that they overlap for the class to be "
            "present; 0: any (inferred).",
        ),
    ] = 0.0,
    threshold: Annotated[
        float, typer.Option(help="Score from which a class is heard, for the scores of events.")
    ] = 0.5,
    gap: Annotated[float, typer.Option(min=0, help="Seconds between events of a class that make them one.")] = 0.0,
    min_length: Annotated[float, typer.Option(min=0, help="Seconds that an event lasts at least.")] = 0.0,
    smooth: Annotated[
        str | None,
        typer.Option(metavar="X|FILE", help="Let the windows of a clip agree before all scores, as detect --smooth."),
    ] = None,
    collar: Annotated[float, typer.Option(min=0, help="Seconds by which onset and offset of an event may miss.")] = 0.2,
    bootstrap: Annotated[
        int, typer.Option(min=0, help="Bootstrap replicates over recordings, for 95 % intervals; 0: none.")
    ] = 0,
    seed: Seed = 0,
    output: Scores = None,
    baseline: Baseline = None,
    topline: Topline = None,
    classes: Classes = False,
) -> None:
    """Window scores of a classifier: do they tell when a class is heard, and when not?

    frame_dprime is the mean over classes of the d-prime of windows; where labels have explicit negatives a class is
    scored on rated windows alone (Hershey et al. 2021). weak_mAP and the like are of the same scores, averaged over
    each clip, as evaluate tagging has them. With labels that have events and the extra sed installed there are also
    segment_F1, onset_F1 and event_F1 (sed_eval) and psds1 and psds2 (sed_scores_eval).

    Example:

    soundssl evaluate strong probabilities.h5 --labels strong.labels.h5 --bootstrap 1000
    """
    from soundssl.detection.decisions import Rule
    from soundssl.detection.scoring import Options as Agreement
    from soundssl.evaluations.strong import Options

    report = reports.begin(reports.Report("strong", scores, output, baseline, topline, classes), labels)
    job = Job(
        scores, labels, words(split), Options(least, bootstrap), Agreement(collar=collar, bootstrap=bootstrap), overlap,
        Rule(threshold, None, gap, min_length), smooth, seed,
    )  # fmt: skip
    reports.show(rows(job, Terminal("evaluate strong")), report)


class Job(NamedTuple):
    """Say what is scored, and how."""

    scores: Path
    labels: Path
    splits: list[str] | None
    options: Options
    agreement: scoring.Options
    overlap: float
    rule: Rule
    smooth: str | None
    seed: int


def rows(job: Job, terminal: Terminal) -> list[dict[str, Any]]:
    """Return the rows of windows, clips and events; say which are left out, and why."""
    from soundssl import files
    from soundssl.evaluations import reading, strong, tagging
    from soundssl.labels.scores import classes_of

    known, source = files.Labels(job.labels), files.Embeddings(job.scores)
    classes = classes_of(source)
    score = _revised(job, source, classes)
    found = strong.evaluate(
        reading.read_strong(job.scores, known, job.splits, job.overlap, score), job.options, job.seed
    )
    clips = reading.read_scores(job.scores, known, job.splits)
    weak = tagging.evaluate(clips, tagging.Options(job.options.bootstrap), job.seed)
    beside = [{**one, "metric": f"weak_{one['metric']}"} for one in weak if one["class"] is None]
    of_all, of_classes = ([one for one in found if (one["class"] is None) is overall] for overall in (True, False))
    return [*of_all, *beside, *_events(job, source, classes, score, terminal), *of_classes]


def _revised(job: Job, source: Embeddings, classes: list[str]) -> np.ndarray | None:
    """Return the scores of all windows, smoothed; None where they are not."""
    import numpy as np

    from soundssl.detection import smoothing
    from soundssl.labels import labelset

    if job.smooth is None:
        return None
    window = float(source.attributes["window"])
    try:
        potential = potential_of(job.smooth)
        if potential is not None:
            change = smoothing.staying(potential)
        else:
            change = smoothing.learn(labelset.of_file(job.smooth), classes, float(source.attributes["hop"]), window)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--smooth") from None
    clip, start = np.asarray(source.clip[:]), np.asarray(source.start[:])
    score = np.array(source.embedding[:], np.float32)
    edges = np.append(np.flatnonzero(np.diff(clip, prepend=-1)), len(clip)).tolist()
    for first, end in itertools.pairwise(edges):
        score[first:end] = smoothing.smooth(score[first:end], start[first:end], window, change)
    return score


def _events(
    job: Job, source: Embeddings, classes: list[str], score: np.ndarray | None, terminal: Terminal
) -> list[dict[str, Any]]:
    """Return the rows of events; none, with a line that says why, without events or without the packages."""
    from soundssl import files
    from soundssl.dependencies import DependencyError
    from soundssl.detection import scoring

    given = files.Labels(job.labels)
    if given.events is None:
        terminal.say("the labels have no events; windows and clips alone are scored")
        return []
    clips = scoring.clips_of(source, given, classes, job.splits, score)
    window, found = float(source.attributes["window"]), []
    for name, score_events in {
        "F1": lambda: scoring.evaluate(clips, window, job.rule, classes, job.agreement, job.seed),
        "PSDS": lambda: scoring.psds(clips, window, classes),
    }.items():
        try:
            found += score_events()
        except DependencyError as error:
            terminal.say(f"{name} of events is left out: {error}")
    return found
