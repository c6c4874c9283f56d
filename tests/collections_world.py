"""Ten clips in the layout of each collection, as published: tables, folders, and sounds, of which one is missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

RATE = 16000  # Hz
VIDEOS = [f"{'Y' if i % 4 == 3 else 'v'}ideo-{i:05}" for i in range(10)]  # eleven letters
MIDS = ["/m/0bt9lr", "/m/07brtp", "/t/dd00003"]
NAMES = ["Dog", "Alarm, siren", "Male singing"]


def sound(path: Path, seconds: float = 1.2) -> None:
    """Write noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.random.default_rng(0).normal(size=round(seconds * RATE)), RATE)


def write(path: Path, *lines: str) -> None:
    """Write lines of text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", "utf-8")


def fsd50k(root: Path) -> None:
    """Write seven clips of dev, three of eval; the last file is missing."""
    rows = [f'{100 + i},"Bark,Dog","/m/05tny_,/m/0bt9lr",{"val" if i == 6 else "train"}' for i in range(7)]
    write(root / "FSD50K.ground_truth/dev.csv", "fname,labels,mids,split", *rows)
    write(root / "FSD50K.ground_truth/eval.csv", "fname,labels,mids", *[f"{200 + i},Bell,/m/0395lw" for i in range(3)])
    leaves = [f"{100 + i},Bark,/m/05tny_" for i in range(7)]
    write(root / "FSD50K.metadata/collection/collection_dev.csv", "fname,labels,mids", *leaves)
    info = {str(100 + i): {"license": "http://cc/by", "uploader": f"user{i % 3}", "tags": []} for i in range(7)}
    write(root / "FSD50K.metadata/dev_clips_info_FSD50K.json", json.dumps(info))
    for part, first, count in (("dev", 100, 7), ("eval", 200, 2)):
        for i in range(count):
            sound(root / f"FSD50K.{part}_audio/{first + i}.wav")


def fsdnoisy18k(root: Path) -> None:
    """Write eight clips of train, some verified, two of test."""
    rows = [f"{i}.wav,{('Fire', 'Glass')[i % 2]},/m/{i % 2},{int(i < 3)},{int(i == 5)}" for i in range(8)]
    write(root / "FSDnoisy18k.meta/train.csv", "fname,label,aso_id,manually_verified,noisy_small", *rows)
    write(root / "FSDnoisy18k.meta/test.csv", "fname,label,aso_id", *[f"{i}.wav,Fire,/m/0" for i in (8, 9)])


def fsdkaggle2018(root: Path) -> None:
    """Write seven clips of train, three of test."""
    rows = [f"{i}.wav,Oboe,{i % 2},{500 + i // 2},CC0" for i in range(7)]
    write(
        root / "FSDKaggle2018.meta/train_post_competition.csv",
        "fname,label,manually_verified,freesound_id,license",
        *rows,
    )
    write(
        root / "FSDKaggle2018.meta/test_post_competition_scoring_clips.csv", "fname,label,usage,freesound_id,license",
        *[f"{i}.wav,Oboe,Private,{600 + i},CC0" for i in range(7, 10)],
    )  # fmt: skip


def fsdkaggle2019(root: Path) -> None:
    """Write four curated clips, four noisy ones, two of test."""
    meta = root / "FSDKaggle2019.meta"
    write(meta / "train_curated_post_competition.csv", "fname,labels,freesound_id,license",
          *[f'{i}.wav,"Bark,Yell",{i},CC0' for i in range(4)])  # fmt: skip
    write(meta / "train_noisy_post_competition.csv", "fname,labels,flickr_video_URL,user,license",
          *[f"{i}.wav,Bark,http://f/{i},u,CC-BY" for i in range(4, 8)])  # fmt: skip
    write(meta / "test_post_competition.csv", "fname,labels,usage,freesound_id,license",
          *[f"{i}.wav,Yell,Public,{i},CC0" for i in (8, 9)])  # fmt: skip


def urbansound8k(root: Path) -> None:
    """Write ten slices of five recordings in two folds."""
    head = "slice_file_name,fsID,start,end,salience,fold,classID,class"
    rows = [f"{i // 2}-3-0-{i}.wav,{i // 2},0.0,1.0,1,{1 + i % 2},3,dog_bark" for i in range(10)]
    write(root / "metadata/UrbanSound8K.csv", head, *rows)


def tut2018(root: Path) -> None:
    """Write ten clips of two places, seven to train on, two to test, one in no list."""
    names = [f"audio/airport-city-{i // 5}-{i}-a.wav" for i in range(10)]
    rows = [f"{name}\tairport\tcity-{i // 5}\ta" for i, name in enumerate(names)]
    write(root / "meta.csv", "filename\tscene_label\tidentifier\tsource_label", *rows)
    write(root / "evaluation_setup/fold1_train.txt", *[f"{name}\tairport" for name in names[:7]])
    write(root / "evaluation_setup/fold1_test.txt", *names[7:9])


def audioset(root: Path) -> None:
    """Write ten segments in two tables, strong labels of two and rated spans of one; names of files as they vary."""
    index = [f'{i},{mid},"{name}"' for i, (mid, name) in enumerate(zip(MIDS, NAMES, strict=True))]
    write(root / "class_labels_indices.csv", "index,mid,display_name", *index)
    for name, some in (("eval", VIDEOS[:4]), ("balanced_train", VIDEOS[4:])):
        rows = [f'{video}, {30 + i}.000, {40 + i}.000, "{MIDS[0]},{MIDS[1 + i % 2]}"' for i, video in enumerate(some)]
        head = ["# Segments csv created", "# num_ytids=4", "# YTID, start_seconds, end_seconds, positive_labels"]
        write(root / f"{name}_segments.csv", *head, *rows)
    names = ["{}.wav", "Y{}.wav", "{}_30000.flac", "{}_33000_43000.wav"]
    for i, video in enumerate(VIDEOS[:9]):
        sound(root / ("eval" if i < 4 else "train") / names[i % 4].format(video))
    head = "segment_id\tstart_time_seconds\tend_time_seconds\tlabel"
    write(
        root / "audioset_eval_strong.tsv", head, f"{VIDEOS[0]}_30000\t0.1\t0.5\t{MIDS[0]}",
        f"{VIDEOS[0]}_30000\t0.3\t1.0\t{MIDS[2]}", f"{VIDEOS[1]}_31000\t0.000\t0.25\t{MIDS[0]}",
    )  # fmt: skip
    write(
        root / "audioset_eval_strong_framed_posneg.tsv", f"{head}\tpresent",
        f"{VIDEOS[0]}_30000\t0.0\t0.96\t{MIDS[0]}\tPRESENT", f"{VIDEOS[0]}_30000\t0.0\t0.96\t{MIDS[1]}\tNOT_PRESENT",
    )  # fmt: skip
    write(root / "qa_true_counts.csv", "label_id,num_rated,num_true", f"{MIDS[0]},10,9")


BUILDERS: dict[str, Callable[[Path], None]] = {
    "fsd50k": fsd50k,
    "fsdnoisy18k": fsdnoisy18k,
    "fsdkaggle2018": fsdkaggle2018,
    "fsdkaggle2019": fsdkaggle2019,
    "urbansound8k": urbansound8k,
    "tut2018": tut2018,
    "audioset": audioset,
}
