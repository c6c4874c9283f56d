"""Training: features to a model, by any objective or curriculum; a run that was stopped goes on where it was.

loop        the one loop, which trains every objective, stage after stage
checkpoint  the private state from which a stopped run goes on
job         from files to a model file
speed       windows a second of a net on this machine
"""

from soundssl.training.checkpoint import Checkpoint
from soundssl.training.job import Job
from soundssl.training.loop import (
    Heads,
    MultiTaskLoss,
    Order,
    Outcome,
    build_stage,
    heads_of,
    learning_rate,
    load,
    loader_workers,
    take_step,
    tensors_of,
    train,
)
from soundssl.training.speed import Speed, measure

__all__ = [
    "Checkpoint",
    "Heads",
    "Job",
    "MultiTaskLoss",
    "Order",
    "Outcome",
    "Speed",
    "build_stage",
    "heads_of",
    "learning_rate",
    "load",
    "loader_workers",
    "measure",
    "take_step",
    "tensors_of",
    "train",
]
