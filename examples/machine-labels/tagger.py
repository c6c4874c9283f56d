"""Train a small image tagger of timm on the stored pictures of labelled videos; its weights and classes go to files.

It stands in for a tagger that others released: what `soundssl embed -m timm:NAME --weights … --classes …` takes.

    python examples/machine-labels/tagger.py features.h5 labels.h5 --weights tagger.safetensors --classes classes.txt
"""

import argparse
from pathlib import Path

import numpy as np
import safetensors.torch
import timm
import torch

from soundssl import files
from soundssl.labels import Index

NET = "test_resnet"  # half a million weights; made for tests, and for desks


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("features", type=Path, help="features file with pictures")
    parser.add_argument("labels", type=Path, help="labels file of the same clips")
    parser.add_argument("--weights", type=Path, required=True, help="file of weights to write")
    parser.add_argument("--classes", type=Path, required=True, help="list of classes to write")
    parser.add_argument("--net", default=NET, help="net of timm (%(default)s)")
    parser.add_argument("--steps", type=int, default=300, help="steps of 32 pictures (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of all that is drawn (%(default)s)")
    options = parser.parse_args(arguments)
    source, known = files.Features(options.features), files.Labels(options.labels)
    label = Index(known, source.clips.key).of_clips() == 1
    clip = np.repeat(np.arange(len(source.clips)), np.diff(source.image_offset))
    torch.manual_seed(options.seed)
    generator = np.random.default_rng(options.seed)
    net = timm.create_model(options.net, pretrained=False, num_classes=len(known.classes))
    mean, deviation = (torch.tensor(net.pretrained_cfg[name]).view(3, 1, 1) for name in ("mean", "std"))
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
    for step in range(options.steps):
        rows = np.sort(generator.choice(len(clip), min(32, len(clip)), replace=False))
        pictures = torch.from_numpy(np.stack([source.images[row] for row in rows])).permute(0, 3, 1, 2) / 255
        wanted = torch.from_numpy(label[clip[rows]]).float()
        logits = net((pictures - mean) / deviation)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0 or step + 1 == options.steps:
            print(f"step {step + 1} of {options.steps}, loss {float(loss.detach()):.3f}")
    with files.replace(options.classes) as partial:
        partial.write_text("".join(f"{name}\n" for name in known.classes), "utf-8")
    with files.replace(options.weights) as partial:
        safetensors.torch.save_file({name: each.contiguous() for name, each in net.state_dict().items()}, partial)


if __name__ == "__main__":
    main()
