"""Clustering: embeddings to categories, up to a million of them; from a matrix or a file that may exceed memory.

rows     embeddings by block, averaged over their surroundings, of some splits
fit      centres learnt by entropy in the training loop, or found by k-means
assign   every row to one of given centres
summary  what is said of the clusters
picture  the clusters drawn
job      from rows to clusters, and what stands for all of it

    centres = clustering.fit("embeddings.h5", k=50)
    found = clustering.assign("embeddings.h5", centres)
    found.cluster, found.confidence, found.summary.figures()
"""

from soundssl.clustering.assign import Assignment, Centres, Memory, assign, attributes, nearness, read_centres, write
from soundssl.clustering.fit import (
    CONTEXT,
    PRESETS,
    SEED_STEP,
    Method,
    Optimiser,
    Options,
    Preset,
    Runs,
    Stopped,
    stability,
)
from soundssl.clustering.job import EVERY, Job, fit
from soundssl.clustering.rows import MAGIC, Rows, read_rows
from soundssl.clustering.summary import Summary, largest, table

__all__ = [
    "CONTEXT",
    "EVERY",
    "MAGIC",
    "PRESETS",
    "SEED_STEP",
    "Assignment",
    "Centres",
    "Job",
    "Memory",
    "Method",
    "Optimiser",
    "Options",
    "Preset",
    "Rows",
    "Runs",
    "Stopped",
    "Summary",
    "assign",
    "attributes",
    "fit",
    "largest",
    "nearness",
    "read_centres",
    "read_rows",
    "stability",
    "table",
    "write",
]
