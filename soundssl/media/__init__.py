"""Codecs: sound and pictures out of media files, block by block; the only room that decodes.

Sound files are read by soundfile, everything else by PyAV with one decoding thread. Content decides, not the name.
Blocks keep memory bounded: a recording of 24 hours never lies in memory as a whole.

opening     what can be opened, and what is wrong with what cannot
headers     how much sound a file states, and how much it holds
ogg         what the pages of an Ogg file tell
clock       packets of sound and pictures on one time line
request     what is wanted of a file, and what was heard of it
sndfile     sound files by libsndfile
containers  sound by FFmpeg, placed in time
sound       sound as mono blocks at one rate, by the one or the other
images      pictures of a video at a steady rate
"""

from soundssl.media.images import is_sound_only, read_images
from soundssl.media.opening import DecodeError
from soundssl.media.request import Heard
from soundssl.media.sound import RESAMPLER, channel_count, read_audio, resample, write_audio

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
