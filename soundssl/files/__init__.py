"""Disk, and nothing but disk: the only room that imports h5py and safetensors.

schema      the five kinds of file as tables
checking    what the head of a file says is what its schema has
probe       what makes HDF5 loop or crash is found in a child process
trust       what a file fetches from others is refused
outputs     whole under their final name or not at all
writing     files with provenance inside
reading     checked readers of every kind
features    the features file: windows at any hop
spooling    the spool through which a features file is written
statistics  mean and deviation of what comes in blocks
copying     rows that lie in many files into one dataset
keeping     vectors that are done, until an embeddings file is whole
exports     embeddings as CSV and Parquet, for other programs
joining     several files of one kind as one
inspection  what is in a file, and whether it is sound
model       model files (safetensors)
"""

from soundssl.files.exports import ENDINGS, require_parquet, write_table
from soundssl.files.features import Features
from soundssl.files.inspection import chain, inspect, parts, skipped, verify
from soundssl.files.joining import Join, are_features, join
from soundssl.files.keeping import Vectors
from soundssl.files.listing import among, read_classes, read_keys
from soundssl.files.model import Model, model_made_from, read_model, read_tensors, write_model
from soundssl.files.outputs import FULL, Lock, Unusable, alone, guard, guard_inputs, is_special, replace, telling, text
from soundssl.files.reading import (
    Clips,
    Clusters,
    Embeddings,
    FormatError,
    Labels,
    Missing,
    Triplets,
    attributes_of,
    identity,
    in_splits,
    kind_of,
    made_from,
    read_matrix,
    read_scores,
    require,
)
from soundssl.files.spooling import Spool, Store, clear_finished, differences
from soundssl.files.writing import Log, create, digest, write_embeddings, write_matrix

__all__ = [
    "ENDINGS",
    "FULL",
    "Clips",
    "Clusters",
    "Embeddings",
    "Features",
    "FormatError",
    "Join",
    "Labels",
    "Lock",
    "Log",
    "Missing",
    "Model",
    "Spool",
    "Store",
    "Triplets",
    "Unusable",
    "Vectors",
    "alone",
    "among",
    "are_features",
    "attributes_of",
    "chain",
    "clear_finished",
    "create",
    "differences",
    "digest",
    "guard",
    "guard_inputs",
    "identity",
    "in_splits",
    "inspect",
    "is_special",
    "join",
    "kind_of",
    "made_from",
    "model_made_from",
    "parts",
    "read_classes",
    "read_keys",
    "read_matrix",
    "read_model",
    "read_scores",
    "read_tensors",
    "replace",
    "require",
    "require_parquet",
    "skipped",
    "telling",
    "text",
    "verify",
    "write_embeddings",
    "write_matrix",
    "write_model",
    "write_table",
]
