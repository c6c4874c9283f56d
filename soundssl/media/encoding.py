"""Sound and pictures as small files in memory, as a browser plays and shows them."""

from __future__ import annotations

import io
import os
from fractions import Fraction

import av
import numpy as np
import soundfile
import soxr

from soundssl.media.opening import DecodeError, open_container

MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)  # Hz
MP3_QUALITY = 0.9  # of libsndfile's 0 (best) to 1 (smallest): about 40 kbit/s of one channel at 44.1 kHz
JPEG_QUANTISER = 5  # of FFmpeg's 1 (best) to 31 (smallest)


def sound_rate(path: str | os.PathLike) -> int:
    """Return the samples a second of a file's sound, as it is stored; raise DecodeError where it has none."""
    try:
        return int(soundfile.info(os.fsencode(path)).samplerate)
    except soundfile.SoundFileError:
        with open_container(path) as container:
            streams = container.streams.audio
            if not streams or not streams[0].rate:
                raise DecodeError(path, "no audio stream") from None
            return int(streams[0].rate)


def playable_rate(rate: int) -> int:
    """Return the lowest rate of an MP3 that keeps what a rate keeps, or the highest there is.

    >>> playable_rate(6000), playable_rate(44100), playable_rate(192000)
    (8000, 44100, 48000)
    """
    return next((each for each in MP3_RATES if each >= rate), MP3_RATES[-1])


def mp3(waveform: np.ndarray, rate: int) -> bytes:
    """Return sound as an MP3 of one channel. Shape: `[samples]`, float32 from -1 to 1; `rate` in Hz, 8000 or more.

    Rates that MP3 does not have are resampled to the next that it has.
    """
    played = playable_rate(rate)
    sound = waveform if played == rate else soxr.resample(waveform, rate, played)
    file = io.BytesIO()
    settings = {"format": "MP3", "compression_level": MP3_QUALITY, "bitrate_mode": "VARIABLE"}
    soundfile.write(file, np.clip(sound, -1, 1), played, **settings)
    return file.getvalue()


def jpeg(picture: np.ndarray) -> bytes:
    """Return a picture as a JPEG. Shape: `[height, width]` grey or `[height, width, 3]` RGB, uint8."""
    rgb = picture if picture.ndim == 3 else np.repeat(picture[:, :, None], 3, axis=2)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24").reformat(format="yuvj420p")
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, "yuvj420p"
    encoder.time_base = Fraction(1)
    encoder.options = {"qmin": str(JPEG_QUANTISER), "qmax": str(JPEG_QUANTISER)}
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


def sound_length(path: str | os.PathLike) -> tuple[float, int, int]:
    """Return seconds, samples a second and channels of a file's sound, as it says; raise DecodeError where it has none.

    What its header leaves open is 0.
    """
    try:
        about = soundfile.info(os.fsencode(path))
        return about.frames / about.samplerate, int(about.samplerate), int(about.channels)
    except soundfile.SoundFileError:
        with open_container(path) as container:
            if not container.streams.audio:
                raise DecodeError(path, "no audio stream") from None
            stream = container.streams.audio[0]
            length = (stream.duration or 0) * (stream.time_base or 0) or (container.duration or 0) / av.time_base
            return float(length), int(stream.rate or 0), int(stream.codec_context.channels)


def write_wav(path: str | os.PathLike, waveform: np.ndarray, rate: int) -> None:
    """Write sound as a WAV file of 16 bits. Shape: `[samples]`, float32 from -1 to 1."""
    soundfile.write(path, np.clip(waveform, -1, 1), rate, "PCM_16", format="WAV")
