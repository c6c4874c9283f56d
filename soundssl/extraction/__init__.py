"""Extraction: media to features, clip by clip, in a pool of processes that no file can bring down.

features   inputs to one features file
sources    what a features file is made of
decode     media clips to frames and images
skipping   what is said of inputs that gave no clip
waveforms  the clips of a waveform file to frames
pool       processes for tasks that may crash or hang
"""

from soundssl.extraction.features import Extraction, featurize
from soundssl.extraction.sources import Recipe, Source, collect
from soundssl.extraction.waveforms import given_waveforms

__all__ = ["Extraction", "Recipe", "Source", "collect", "featurize", "given_waveforms"]
