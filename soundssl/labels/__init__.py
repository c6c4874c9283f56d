"""Labels: what is said of sounds, and what can be done to it; labels in, labels out, vectorised.

moments    what labels say of a clip, of a window, of a moment
events     strong labels: what is heard from when to when, as targets of windows
recordings  labels that name recordings by their paths, brought to the clips of a file
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
from soundssl.labels.events import Moments, Timeline, diffuse, from_events, negatives, targets, weak
from soundssl.labels.hierarchy import merge, propagate, tree
from soundssl.labels.labelset import LabelSet, of_file, write
from soundssl.labels.moments import Index, Segments, align, clips_in_splits, of_segments, rows_of, splits_of
from soundssl.labels.nomination import nominate
from soundssl.labels.recordings import joined
from soundssl.labels.splits import contamination, least_contaminated, stratified

__all__ = [
    "Draw",
    "Index",
    "LabelSet",
    "Moments",
    "Noise",
    "Segments",
    "Timeline",
    "add_noise",
    "align",
    "clips_in_splits",
    "compare",
    "contamination",
    "diffuse",
    "flag",
    "from_events",
    "joined",
    "least_contaminated",
    "lq_loss",
    "merge",
    "negatives",
    "nominate",
    "of_file",
    "of_segments",
    "propagate",
    "prune",
    "rows_of",
    "sample",
    "splits_of",
    "stratified",
    "targets",
    "top",
    "tree",
    "weak",
    "write",
]
