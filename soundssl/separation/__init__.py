"""Separation: mixtures to tracks, and what a separator makes of mixtures of known sources.

tracks    whole recordings to tracks, in bounded memory
mixtures  mixtures of known sources, to score a separator
"""

from soundssl.separation.mixtures import Scored, plot, score
from soundssl.separation.tracks import Separation, export, guard_folder, separate

__all__ = ["Scored", "Separation", "export", "guard_folder", "plot", "score", "separate"]
