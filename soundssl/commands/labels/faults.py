"""soundssl labels flag, prune, noise and compare: labels that are missing or wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from soundssl.commands.labels.remaking import Flags, Given, Made, number_or_none, remake, report
from soundssl.commands.options import Force, NoClobber, NoProvenance, Quiet, Seed, words
from soundssl.commands.target import Target

if TYPE_CHECKING:
    from soundssl.labels import LabelSet

Scores = Annotated[
    list[Path],
    typer.Option(
        "--scores",
        help="Scores of the clips, as embed --layer probabilities writes them; several, of teachers that each scored "
        "clips they were not trained on, are ranked each alone.",
    ),
]


def flag(
    labels: Given,
    scores: Scores,
    share: Annotated[
        float, typer.Option(help="Percent of the implicit negatives of a class to flag (Fonseca et al. 2020: 2 to 6).")
    ] = 2.0,
    only: Annotated[str | None, typer.Option("--split", help="Flag only in these splits, separated by commas.")] = None,
    output: Made = None,
    force: Force = False,
    no_clobber: NoClobber = False,
    no_provenance: NoProvenance = False,
    quiet: Quiet = False,
) -> None:
    """Flag what is perhaps missing: the implicit negatives that a teacher scores highest become unknown.

    A negative is explicit where the labels' column rated says so; those are never flagged. Train again on the output:
    what is unknown touches neither loss nor gradient (Fonseca et al. 2020, the skeptical teacher).

    Example:

    soundssl labels flag labels.h5 --scores probabilities.h5 --share 2 -o flagged.labels.h5
    """
    if not 0 <= share < 100:
        raise typer.BadParameter(f"{share:g} percent does not lie from 0 to below 100", param_hint="--share")

    def make(target: Target, given: LabelSet) -> tuple[LabelSet, str]:
        from soundssl.labels import flag as flagged
        from soundssl.labels import labelset
        from soundssl.labels import scores as reading

        found = reading.of_segments(given, scores)
        found.score[~labelset.in_splits(given, words(only), labels)] = float("nan")
        made = flagged(given, found.score, share / 100, found.teacher)
        count = int((made.label != given.label).sum())
        unscored = int((found.score != found.score).all(1).sum())
        return made, f"{count} labels flagged as unknown" + (
            f", {unscored} segments without scores" if unscored else ""
        )

    flags = Flags(force, no_clobber, no_provenance, quiet)
    remake("flag", labels, output, {"scores": scores}, {"share": share, "split": only}, flags, make)


def prune(
    labels: Given,
    scores: Annotated[Path, typer.Option(help="Scores of the clips, as embed --layer probabilities writes them.")],
    percentile: Annotated[
        float, typer.Option(help="Clips whose loss is above this percentile go (Fonseca et al. 2019: 96.25 to 99.25).")
    ] = 97.0,
    q: Annotated[float, typer.Option(help="Exponent of the loss L_q, from 0 (cross-entropy) to 1.")] = 0.7,
    only: Annotated[
        str | None,
        typer.Option("--split", help="Splits to prune, separated by commas. Needed where the labels have splits."),
    ] = None,
    output: Made = None,
    force: Force = False,
    no_clobber: NoClobber = False,
    no_provenance: NoProvenance = False,
    quiet: Quiet = False,
) -> None:
    """Drop the clips of highest loss after a first training: their labels are likely wrong.

    The loss of a clip is the mean over its windows. The share that goes is printed for each class: rare ones are at
    risk. Go on with train --init MODEL on the output.

    Example:

    soundssl labels prune labels.h5 --scores probabilities.h5 --percentile 97 --split train -o pruned.labels.h5
    """
    if not 0 < percentile <= 100:
        raise typer.BadParameter(f"{percentile:g} does not lie above 0 to 100", param_hint="--percentile")
    if not 0 <= q <= 1:
        raise typer.BadParameter(f"{q:g} does not lie from 0 to 1", param_hint="--q")

    def make(target: Target, given: LabelSet) -> tuple[LabelSet, str]:
        from soundssl.labels import labelset
        from soundssl.labels import prune as pruned
        from soundssl.labels import scores as reading

        if only is None and given.split is not None and len(set(given.split)) > 1:
            names = ", ".join(sorted(map(str, set(given.split))))
            raise typer.BadParameter(f"say which of the splits {names} are trained on", param_hint="--split")
        chosen = labelset.in_splits(given, words(only), labels)
        stay = pruned(given, reading.losses(given, scores, q), percentile, chosen)
        report(_dropped(given, chosen, stay), target)
        return given.rows(stay), f"{int((~stay).sum())} of {int(chosen.sum())} segments dropped"

    flags = Flags(force, no_clobber, no_provenance, quiet)
    options = {"percentile": percentile, "q": q, "split": only}
    remake("prune", labels, output, {"scores": scores}, options, flags, make)


def _dropped(given: LabelSet, chosen, stay) -> list[dict[str, Any]]:
    present = (given.label == 1) & chosen[:, None]
    total, gone = present.sum(0), (present & ~stay[:, None]).sum(0)
    return [
        {"class": name, "segments": int(all_), "dropped": int(some), "share": round(float(some / max(all_, 1)), 4)}
        for name, all_, some in zip(given.classes, total, gone, strict=True)
    ]


def noise(
    labels: Given,
    wrong: Annotated[float, typer.Option(help="Share of segments that get a wrong label, 0 to 1.")] = 0.0,
    outside: Annotated[
        float, typer.Option(help="Share of the wrong ones that are sounds from outside the --vocabulary, 0 to 1.")
    ] = 0.0,
    missing: Annotated[float, typer.Option(help="Share of the labels present that become absent, 0 to 1.")] = 0.0,
    vocabulary: Annotated[
        str | None,
        typer.Option(help="Classes to keep, separated by commas; segments of others are the sounds from outside."),
    ] = None,
    confusion: Annotated[
        Path | None,
        typer.Option(
            help="Table with the columns class, becomes and share: what a class is taken for. Default: any other alike."
        ),
    ] = None,
    only: Annotated[
        str | None, typer.Option("--split", help="Spoil only these splits, separated by commas; others stay right.")
    ] = None,
    output: Made = None,
    seed: Seed = 0,
    force: Force = False,
    no_clobber: NoClobber = False,
    no_provenance: NoProvenance = False,
    quiet: Quiet = False,
) -> None:
    """Put errors into right labels, to measure what they cost and what helps; the column truth keeps the right ones.

    Examples:

    soundssl labels noise labels.h5 --wrong 0.4 --split 1,2,3,4 -o noisy.labels.h5

    soundssl labels noise labels.h5 --missing 0.4 --split train -o missing.labels.h5
    """
    for name, value in {"--wrong": wrong, "--outside": outside, "--missing": missing}.items():
        if not 0 <= value <= 1:
            raise typer.BadParameter(f"{value:g} does not lie from 0 to 1", param_hint=name)
    if outside and not vocabulary:
        raise typer.BadParameter("sounds from outside need a vocabulary; give --vocabulary", param_hint="--outside")

    def make(target: Target, given: LabelSet) -> tuple[LabelSet, str]:
        from soundssl.labels import Noise, add_noise, labelset

        names = words(vocabulary)
        kept = labelset.class_numbers(given, names) if names else None
        table = _confusion(confusion, [given.classes[i] for i in kept] if kept else given.classes)
        chosen = labelset.in_splits(given, words(only), labels)
        made = add_noise(given, Noise(wrong, outside, missing, table), kept, chosen, seed)
        return made, f"{int((made.label != made.truth).any(1).sum())} of {len(made)} segments spoilt"

    flags = Flags(force, no_clobber, no_provenance, quiet)
    options = {"wrong": wrong, "outside": outside, "missing": missing, "vocabulary": vocabulary, "split": only}
    remake("noise", labels, output, {"confusion": confusion}, {**options, "seed": seed}, flags, make)


def _confusion(path: Path | None, classes: list[str]) -> Any:
    """Return a table of confusions as a matrix, None where there is none."""
    import numpy as np

    from soundssl import tables

    if path is None:
        return None
    table = tables.read(path.read_bytes(), str(path))
    if lacking := [name for name in ("class", "becomes", "share") if name not in table.columns]:
        raise tables.TableError(f"{path} line {table.line} has no column {lacking[0]}; it needs class, becomes, share")
    chance = np.zeros((len(classes), len(classes)))
    for line, cells in table.rows:
        for name in (cells["class"], cells["becomes"]):
            if name not in classes:
                raise tables.TableError(f"{path} line {line}: no class is called {name!r}; name one of the vocabulary")
        try:
            share = tables.number(cells["share"])
        except ValueError:
            share = -1.0
        if share < 0:
            raise tables.TableError(f"{path} line {line}: share is {cells['share']!r}; give a number from 0 on")
        chance[classes.index(cells["class"]), classes.index(cells["becomes"])] = share
    return chance


def compare(
    labels: Given,
    checked: Annotated[Path, typer.Argument(help="Labels file of the same clips, or of a sample of them, checked.")],
    classes: Annotated[bool, typer.Option("--classes", help="Print a row for each class too.")] = False,
) -> None:
    """Set labels against checked ones: how many are right, and of which kind the wrong ones are.

    Of the labels given, the shares that are right, wrong while another class of the vocabulary is there, and wrong
    while none of it is (out of vocabulary); of the labels that the check found, the share missing; each with its
    interval of 95 %, and Cohen's kappa. A checked segment without any class is a sound out of the vocabulary.

    Example:

    soundssl labels compare noisy.labels.h5 checked.labels.h5 --classes
    """
    from soundssl import SoundsslError, files
    from soundssl.labels import align, of_segments
    from soundssl.labels import compare as compared

    given, truth = files.Labels(labels), files.Labels(checked)
    known = align(of_segments(truth, given.key, given.start, given.end), truth.classes, given.classes)
    if not (known >= 0).any():
        raise SoundsslError(
            f"{files.text(checked)} says nothing of {files.text(labels)}; are their keys and classes the same?"
        )
    rows = compared(given.label, known, given.classes)
    report([_row(one) for one in (rows if classes else rows[-1:])])


def _row(one: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"class": one.name, "given": one.given, "present": one.present}
    for name in ("right", "inside", "outside", "missing"):
        value, low, high = map(number_or_none, getattr(one, name))
        row |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return {**row, "kappa": number_or_none(one.kappa)}
