"""Read any window and image of a features file with h5py alone: python examples/read_features.py features.h5 0 0.5"""

import sys

import h5py

path, row, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
with h5py.File(path) as file:
    first, end = file["clip/offset"][row : row + 2]
    at = first + round(seconds * file.attrs["frame_rate"])
    window = file["frames"][at : min(at + file.attrs["window_frames"], end)]
    print(file["clip/key"].asstr()[row], "window", window.shape, f"{window.mean():.4f}")
    if "images" in file:
        low, high = file["clip/image_offset"][row : row + 2]
        if low < high:
            image = file["images"][min(low + int(seconds * file.attrs["image_rate"]), high - 1)]
            print(file["clip/key"].asstr()[row], "image", image.shape, f"{image.mean():.4f}")
