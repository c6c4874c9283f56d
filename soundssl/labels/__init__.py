"""Labels: what is said of sounds, and what can be done to it; labels in, labels out, vectorised.

moments    what labels say of a clip, of a window, of a moment
labelset   everything a labels file says, as arrays
hierarchy  propagate, merge, tree: up an ontology
splits     split: who validates, and what is shared with training
errors     flag, prune, noise, compare: missing and wrong labels
choice     top, sample
nomination nominate: classes that titles and tags name
balance    how often clips of rare classes are drawn
scores     a recogniser's scores of segments
"""

from soundssl.labels.choice import Draw, sample, top
from soundssl.labels.errors import Noise, add_noise, compare, flag, lq_loss, prune
from soundssl.labels.hierarchy import merge, propagate, tree
from soundssl.labels.labelset import LabelSet, of_file, write
from soundssl.labels.moments import Index, Segments, align, clips_in_splits, of_segments, rows_of, splits_of
from soundssl.labels.nomination import nominate
from soundssl.labels.splits import contamination, least_contaminated, stratified

__all__ = [
    "Draw",
    "Index",
    "LabelSet",
    "Noise",
    "Segments",
    "add_noise",
    "align",
    "clips_in_splits",
    "compare",
    "contamination",
    "flag",
    "least_contaminated",
    "lq_loss",
    "merge",
    "nominate",
    "of_file",
    "of_segments",
    "propagate",
    "prune",
    "rows_of",
    "sample",
    "splits_of",
    "stratified",
    "top",
    "tree",
    "write",
]
