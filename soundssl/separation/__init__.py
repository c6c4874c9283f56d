"""Separation: mixtures to tracks, and what a separator makes of mixtures of known sources.

tracks    whole recordings to tracks, in bounded memory
networks  trained separators, and their on-screen classifiers
mixtures  mixtures of known sources, to score a separator
onscreen  mixtures of clips that are seen or not, to score an on-screen model, and where it looks
"""

from soundssl.separation.mixtures import Scored, plot, score
from soundssl.separation.networks import NO_CLASSIFIER
from soundssl.separation.tracks import Separation, export, guard_folder, separate

__all__ = ["NO_CLASSIFIER", "Scored", "Separation", "export", "guard_folder", "plot", "score", "separate"]
