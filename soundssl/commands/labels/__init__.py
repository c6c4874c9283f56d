"""soundssl labels: small verbs, labels in and labels out.

remaking  what the verbs share: one labels file to another
upwards   propagate, merge, tree: along an ontology
sides     split, sample, nominate: who is chosen
faults    flag, prune, noise, compare: missing and wrong labels
machine   top: a recogniser's scores as labels
"""

from __future__ import annotations

from collections.abc import Callable

import typer

from soundssl.commands.labels import faults, machine, sides, upwards

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Change labels: up an ontology, into splits, missing, wrong."
)

# In the order of the work: what the classes are, who validates, what is missing or wrong, what a recogniser says.
VERBS: dict[str, Callable[..., None]] = {
    "propagate": upwards.propagate,
    "merge": upwards.merge,
    "tree": upwards.tree,
    "split": sides.split,
    "sample": sides.sample,
    "nominate": sides.nominate,
    "flag": faults.flag,
    "prune": faults.prune,
    "noise": faults.noise,
    "compare": faults.compare,
    "top": machine.top,
}

for _name, _verb in VERBS.items():
    app.command(_name)(_verb)
