"""Model files that earlier versions wrote, one of each objective, and what their nets gave then.

Weights are a pattern, so that a file of five megabytes packs to twenty kilobytes; configs, names, shapes and metadata
are as `soundssl train` wrote them. `values.json` holds what they map `WINDOWS` and `WAVE` to.
"""

import gzip
import json
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "stored" / "models"
VALUES = json.loads((FOLDER / "values.json").read_text("utf-8"))
CLASSES = ["low", "middle", "high", "top"]
WINDOWS = (40 * np.sin(np.arange(2 * 96 * 64) ** 2 * 0.37)).astype("f4").reshape(2, 96, 64)
WAVE = (0.3 * np.sin(np.arange(8000) * 0.05)).astype("f4")  # of which every 800th sample of the tracks is stored


def unpack(objective: str, folder: Path) -> Path:
    """Write the stored model of an objective into a folder and return its path."""
    path = folder / f"{objective}.safetensors"
    path.write_bytes(gzip.decompress((FOLDER / f"{objective}.safetensors.gz").read_bytes()))
    return path
