"""Labelling: from clusters and a few answers to labels of many windows (Jansen et al. 2020).

windows  the windows that may be asked about
plan     which clusters to ask about, and which of their windows
sheets   CSV tables that people fill in, and the journal of answers
answers  where answers come from, and how they spread
agreement  the sheets of several annotators to one set of answers
page     questions to hear and see, in one HTML file

    windows = labelling.read_windows("clusters.h5")
    asked = labelling.questions(windows, labelling.PRESETS["best"], budget=40)
    answers = labelling.consult(windows, soundssl.files.Labels("labels.h5"), asked, labelling.Cost(40))
    labelling.Labelling(windows, answers, share=0.5).label
"""

from soundssl.labelling.agreement import Panel, read_panel
from soundssl.labelling.answers import (
    Answers,
    Conversation,
    Cost,
    Labelling,
    Upcoming,
    consult,
    encode,
    read_sheet,
    spent,
    spread,
    summary,
    understood,
    write_sheet,
)
from soundssl.labelling.plan import ASKS, BASELINE, ORDERS, PRESETS, Plan, ask, draw, order, questions
from soundssl.labelling.windows import Windows, read_windows

__all__ = [
    "ASKS",
    "BASELINE",
    "ORDERS",
    "PRESETS",
    "Answers",
    "Conversation",
    "Cost",
    "Labelling",
    "Panel",
    "Plan",
    "Upcoming",
    "Windows",
    "ask",
    "consult",
    "draw",
    "encode",
    "order",
    "questions",
    "read_panel",
    "read_sheet",
    "read_windows",
    "spent",
    "spread",
    "summary",
    "understood",
    "write_sheet",
]
