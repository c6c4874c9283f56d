"""Make ten kinds of sound from their physics, and record each through a microphone in a noisy room.

Each sound is a function of a generator, a number of samples and a sample rate, and returns a waveform; `record` then
puts it into a world of its own. The sources: Karplus and Strong 1983 (string), Fletcher and Rossing 1998 (bar),
Minnaert 1933 and van den Doel 2005 (drops).
"""

from collections.abc import Callable, Iterator

import numpy as np

Array = np.ndarray
Sound = Callable[[np.random.Generator, int, int], Array]

# ---------------------------------------------------------------------------------------------------------------------
# Building blocks of sound
# ---------------------------------------------------------------------------------------------------------------------


def slow_curve(generator: np.random.Generator, count: int, knots: int) -> Array:
    """Draw a smooth random walk of unit deviation through the given number of equally spaced knots."""
    return np.interp(np.linspace(0, knots - 1, count), np.arange(knots), generator.normal(size=knots))


def onsets(generator: np.random.Generator, seconds: float, rate: float, jitter: float) -> Iterator[float]:
    """Yield event times at a mean rate per second; jitter 0 is a clock and 1 nearly a Poisson process."""
    time = generator.uniform(0, 1 / rate)
    while time < seconds:
        yield time
        time += (1 - jitter + jitter * generator.exponential()) / rate


def add(waveform: Array, start: float, grain: Array) -> None:
    """Add a grain to the waveform from a sample position onwards, cut at the end."""
    first = int(start)
    length = max(0, min(len(grain), len(waveform) - first))
    waveform[first : first + length] += grain[:length]


def filtered(waveform: Array, response: Array) -> Array:
    """Multiply the spectrum of a waveform by a response given on its `rfft` bins."""
    return np.fft.irfft(np.fft.rfft(waveform) * response, len(waveform))


def resonances(frequency: Array, centres: Array, quality: float) -> Array:
    """Return the summed response of second-order resonators at the given centres (Hz)."""
    ratio = frequency[:, None] / centres[None, :]
    return (1 / (1 - ratio**2 + 1j * ratio / quality)).sum(axis=1)


def ringing(frequency: Array, decay: Array, gain: Array, length: int, rate: int) -> Array:
    """Return the sum of exponentially decaying sinusoids (Hz, seconds, amplitude): the modes of a struck body."""
    time = np.arange(length) / rate
    return sum(
        g * np.exp(-time / d) * np.sin(2 * np.pi * f * time) for f, d, g in zip(frequency, decay, gain, strict=True)
    )


def harmonic(frequency: Array, gains: Array, rate: int) -> Array:
    """Return a sum of harmonics over a frequency track (Hz), `gains` being [harmonics] or [harmonics, samples]."""
    turn = np.exp(2j * np.pi * np.cumsum(frequency) / rate).astype(np.complex64)
    partial, waveform = turn.copy(), np.zeros(len(turn), np.float32)
    for number, gain in enumerate(gains, 1):
        waveform += np.where(number * frequency < 0.45 * rate, gain, 0) * partial.imag
        partial *= turn
    return waveform


# ---------------------------------------------------------------------------------------------------------------------
# The ten sounds: generator, samples, samples per second -> waveform
# ---------------------------------------------------------------------------------------------------------------------


def string(generator: np.random.Generator, count: int, rate: int) -> Array:
    """Pluck a string: a noise-filled delay line with a two-point average (Karplus and Strong 1983)."""
    waveform = np.zeros(count)
    root, loss = generator.uniform(110, 330), generator.uniform(0.985, 0.997)
    for time in onsets(generator, count / rate, generator.uniform(1.2, 3.5), 0.3):
        pitch = root * 2 ** (generator.choice([0, 2, 4, 7, 9, 12, 14]) / 12)
        line = generator.uniform(-1, 1, round(rate / pitch))
        periods = np.empty((int(pitch * 0.9), len(line)))
        for row in periods:
            row[:] = line
            line = loss * 0.5 * (line + np.roll(line, 1))
        add(waveform, time * rate, generator.uniform(0.4, 1) * periods.ravel())
    return waveform


def bell(generator: np.random.Generator, count: int, rate: int) -> Array:
    """Strike a free bar: inharmonic modes, the higher the shorter."""
    waveform = np.zeros(count)
    root, decay = generator.uniform(350, 900), generator.uniform(0.15, 0.5)
    ratios = np.array([1, 2.76, 5.40, 8.93])  # free-free bar (Fletcher and Rossing 1998, section 2.15)
    for time in onsets(generator, count / rate, generator.uniform(0.9, 2.5), 0.4):
        modes = root * 2 ** (generator.choice([0, 3, 5, 7, 10, 12]) / 12) * ratios
        modes = modes[modes < 0.45 * rate]
        gain = generator.uniform(0.3, 1, len(modes))
        add(waveform, time * rate, ringing(modes, decay / np.sqrt(modes / root), gain, rate, rate))
    return waveform


def bird(generator: np.random.Generator, count: int, rate: int) -> Array:
    """Whistle phrases of swept tones, a few motifs per bird."""
    waveform = np.zeros(count)
    centre = generator.uniform(1800, 4200)
    motifs = [(generator.uniform(0.05, 0.16), *generator.uniform(-0.55, 0.55, 3)) for _ in range(3)]
    for time in onsets(generator, count / rate, generator.uniform(0.9, 1.8), 0.5):
        length, start, middle, end = motifs[generator.integers(3)]
        samples = int(length * rate)
        shift = generator.normal(0, 0.1)
        bend = np.interp(np.linspace(0, 2, samples), [0, 1, 2], np.array([start, middle, end]) + shift)
        note = harmonic(centre * 2**bend, np.array([1, 0.15]), rate) * np.hanning(samples)
        for repeat in range(generator.integers(2, 6)):
            add(waveform, (time + repeat * length * 1.3) * rate, generator.uniform(0.6, 1) * note)
    return waveform


def cricket(generator: np.random.Generator, count: int, rate: int) -> Array:
    """Rub a comb over a resonant wing: short pulses of one carrier, in trains."""
    waveform = np.zeros(count)
    carrier, pulses = generator.uniform(2600, 4800), generator.uniform(28, 55)
    train = generator.integers(5, 14)
    samples = int(rate / pulses * 0.6)
    for time in onsets(generator, count / rate, generator.uniform(0.5, 0.9) * pulses / train, 0.15):
        pulse = np.hanning(samples) * np.sin(
            2 * np.pi * carrier * generator.normal(1, 0.01) * np.arange(samples) / rate
        )
        for number in range(train):
            add(waveform, (time + number / pulses) * rate, pulse)
    return waveform


def drops(generator: np.random.Generator, count: int, rate: int) -> Array:
    """Let drops fall: each closes a bubble that rings and rises in pitch (Minnaert 1933; van den Doel 2005)."""
    waveform = np.zeros(count)
    centre = generator.uniform(900, 2200)
    for time in onsets(generator, count / rate, generator.uniform(4, 14), 1.0):
        length = np.arange(int(0.12 * rate)) / rate
        pitch = centre * 2 ** generator.normal(0, 0.55)
        phase = 2 * np.pi * pitch * (length + generator.uniform(1, 5) * length**2)
        grain = np.sin(phase) * np.exp(-length * pitch / generator.uniform(12, 30))
        add(waveform, time * rate, generator.uniform(0.2, 1) * grain)
    return waveform


def engine(generator: np.random.Generator, count: int, rate: int) -> Array:
    """Fire unequal cylinders with jitter into an exhaust of a few resonances; the speed wanders."""
    waveform = np.zeros(count)
    cylinders, speed = generator.uniform(0.4, 1, 4), generator.uniform(28, 75)
    pace = speed * 2 ** (0.35 * slow_curve(generator, count, 8))
    firing = np.searchsorted(np.cumsum(pace) / rate, np.arange(int(pace.sum() / rate)))
    firing = np.clip(firing + generator.normal(0, 0.04 * rate / speed, len(firing)), 0, count - 1).astype(int)
    np.add.at(waveform, firing, np.resize(cylinders, len(firing)) * generator.uniform(0.7, 1.1, len(firing)))
    frequency = np.fft.rfftfreq(count, 1 / rate)
    centres = generator.uniform(1, 1.4) * np.array([140, 420, 900, 2000]) * generator.uniform(0.8, 1.25, 4)
    return filtered(waveform, resonances(frequency, centres, 4))


def knocks(generator: np.random.Generator, count: int, rate: int) -> Array:
    """Step or knock: a burst of noise and the short modes of the board under it."""
    waveform = np.zeros(count)
    modes = generator.uniform(1, 2.2) * np.array([170, 390, 830])
    length = int(0.2 * rate)
    time = np.arange(length) / rate
    for start in onsets(generator, count / rate, generator.uniform(1.6, 4.5), 0.12):
        board = ringing(
            modes * generator.normal(1, 0.05), np.full(3, 0.025), generator.uniform(0.3, 1, 3), length, rate
        )
        burst = generator.normal(size=length) * np.exp(-time / generator.uniform(0.006, 0.02))
        add(waveform, start * rate, generator.uniform(0.5, 1) * (board + 0.5 * burst))
    return waveform


def siren(generator: np.random.Generator, count: int, rate: int) -> Array:
    """Sweep a harmonic horn slowly up and down, or between two tones."""
    phase = 2 * np.pi * (generator.uniform(0.25, 0.9) * np.arange(count) / rate + generator.uniform())
    swing = np.sin(phase) if generator.uniform() < 0.6 else np.tanh(6 * np.sin(phase))
    track = generator.uniform(600, 1000) * 2 ** (generator.uniform(0.25, 0.7) * swing)
    return harmonic(track, generator.uniform(0.2, 1, 5) / np.arange(1, 6), rate)


def babble(generator: np.random.Generator, count: int, rate: int) -> Array:
    """Speak nonsense: glottal harmonics under gliding formants, in syllables and short phrases."""
    waveform = np.zeros(count)
    pitch, tract = generator.uniform(95, 230), generator.uniform(0.9, 1.15)
    vowels = tract * np.array(
        [[730, 1090, 2440], [270, 2290, 3010], [300, 870, 2240], [530, 1840, 2480], [570, 840, 2410]]
    )
    for time in onsets(generator, count / rate, generator.uniform(3, 4.5), 0.25):
        if generator.uniform() < 0.15:  # a breath
            continue
        samples = int(generator.uniform(0.12, 0.24) * rate)
        track = pitch * 2 ** (generator.normal(0, 0.15) + np.linspace(0.12, -0.12, samples) * generator.normal(1, 1))
        numbers = np.arange(1, int(3800 / pitch))
        ends = [abs(resonances(numbers * pitch, vowels[generator.integers(5)], 9)) / numbers for _ in range(2)]
        gains = ends[0][:, None] + (ends[1] - ends[0])[:, None] * np.linspace(0, 1, samples)
        add(waveform, time * rate, harmonic(track, gains, rate) * np.hanning(samples) ** 0.5)
    return waveform


def frog(generator: np.random.Generator, count: int, rate: int) -> Array:
    """Croak: a low harmonic carrier, its amplitude pulsed, in bursts that swell."""
    waveform = np.zeros(count)
    carrier, pulses, length = generator.uniform(450, 1300), generator.uniform(32, 70), generator.uniform(0.2, 0.5)
    time = np.arange(int(length * rate)) / rate
    for start in onsets(generator, count / rate, generator.uniform(0.8, 1.4), 0.35):
        tone = harmonic(
            carrier * (1 + 0.15 * time / length) * generator.normal(1, 0.05), np.array([1, 0.6, 0.35]), rate
        )
        comb = (0.5 - 0.5 * np.cos(2 * np.pi * pulses * time)) ** 2
        add(waveform, start * rate, tone * comb * np.sin(np.pi * time / length) ** 0.7)
    return waveform


# ---------------------------------------------------------------------------------------------------------------------
# Microphone, room and noise
# ---------------------------------------------------------------------------------------------------------------------


def colour(generator: np.random.Generator, frequency: Array, slope: float, ripple: float) -> Array:
    """Draw a magnitude response: a slope (dB per octave) with ripples (dB) that are smooth over octaves."""
    octave = np.log2(np.maximum(frequency, 40) / 1000)
    knots = np.arange(-5, 5)
    return 10 ** ((slope * octave + np.interp(octave, knots, generator.normal(0, ripple, len(knots)))) / 20)


def normalised(waveform: Array) -> Array:
    """Scale a waveform to unit root mean square."""
    return waveform / max(1e-9, np.sqrt(np.mean(waveform**2)))


def blend(generator: np.random.Generator, pair: list[Array], rate: int) -> Array:
    """Move to and fro between two waveforms every few seconds."""
    count = len(pair[0])
    weight = 1 / (1 + np.exp(-3 * slow_curve(generator, count, max(2, count // (2 * rate)))))
    return pair[1] + weight * (pair[0] - pair[1])


def backdrop(generator: np.random.Generator, frequency: Array, count: int, rate: int) -> Array:
    """Draw background noise whose colour and level drift, with mains hum."""
    noises = []
    for _ in range(2):
        spectrum = generator.standard_normal((2, len(frequency)), np.float32)
        spectrum = (spectrum[0] + 1j * spectrum[1]) * colour(generator, frequency, generator.uniform(-9, -1), 4)
        noises.append(normalised(np.fft.irfft(spectrum, count)))
    swell = 10 ** (4 * slow_curve(generator, count, max(2, count // rate)) / 20)  # 4 dB
    mains = np.full(rate, generator.choice([50.0, 60.0]))  # Hz; whole periods in a second, which is repeated
    hum = generator.uniform(0, 0.8) * normalised(harmonic(mains, generator.uniform(0, 1, 6) / np.arange(1, 7), rate))
    return normalised(blend(generator, noises, rate) * swell + np.resize(hum, count))


def reverberation(generator: np.random.Generator, count: int, rate: int) -> Array:
    """Return the response of a room on `rfft` bins: the direct sound, then a diffuse tail."""
    tail, length = np.zeros(count), min(count, int(0.8 * rate))
    decay = 10 ** (-3 * np.arange(length) / rate / generator.uniform(0.1, 0.7))  # 60 dB in this many seconds
    tail[:length] = generator.normal(size=length) * decay
    return 1 + np.fft.rfft(tail) * generator.uniform(0, 0.6) / np.sqrt((tail**2).sum())


def record(sound: Sound, generator: np.random.Generator, seconds: float, rate: int) -> tuple[Array, Array]:
    """Make one recording: the sound, through a microphone in a room, over noise; return it dry and as recorded.

    The ratio of signal to noise, the level and the tilt of the microphone belong to the recording; part of the tilt
    and of the level drifts, as when a camera is carried.
    """
    count = int(seconds * rate)
    dry = normalised(sound(generator, count, rate))
    frequency = np.fft.rfftfreq(count, 1 / rate)
    wet = np.fft.rfft(dry) * reverberation(generator, count, rate)
    tilts = [np.fft.irfft(wet * colour(generator, frequency, generator.uniform(-2.5, 2.5), 3), count) for _ in range(2)]
    noise = backdrop(generator, frequency, count, rate) * 10 ** (-generator.uniform(6, 20) / 20)  # signal to noise, dB
    mixed = normalised(normalised(blend(generator, tilts, rate)) + noise)
    decibels = generator.uniform(-28, -20) + 2 * slow_curve(generator, count, max(2, count // rate))
    mixed *= 10 ** (decibels / 20)
    return dry, mixed / max(1.0, abs(mixed).max())
