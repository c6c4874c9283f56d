"""Codecs: sound and pictures out of media files, block by block; the only room that decodes.

Sound files are read by soundfile, everything else by PyAV with one decoding thread. Content decides, not the name.
Blocks keep memory bounded: a recording of 24 hours never lies in memory as a whole.

opening  what can be opened, and what is wrong with what cannot
sound    sound as mono blocks at one rate, placed in time
images   pictures of a video at a steady rate
"""

from soundssl.media.images import is_sound_only, read_images
from soundssl.media.opening import DecodeError
from soundssl.media.sound import RESAMPLER, Heard, channel_count, read_audio, resample, write_audio

__all__ = [
    "RESAMPLER",
    "DecodeError",
    "Heard",
    "channel_count",
    "is_sound_only",
    "read_audio",
    "read_images",
    "resample",
    "write_audio",
]
