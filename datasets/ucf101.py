"""UCF101 (Soomro et al., CRCV-TR-12-01): 101 human actions, the middle frame of each of 13,320 videos.

$DATA/ucf101/UCF-101-midframes/<Apply_Eye_Makeup>/<video>.jpg
$DATA/ucf101/ucfTrainTestlist/classInd.txt             <label from 1> <ApplyEyeMakeup>
$DATA/ucf101/ucfTrainTestlist/trainlist01.txt          <ApplyEyeMakeup>/<video>.avi <label>
$DATA/ucf101/ucfTrainTestlist/testlist01.txt           <ApplyEyeMakeup>/<video>.avi
$DATA/ucf101/split_zhou_UCF101.json
"""

from __future__ import annotations

import os
import re

from dassl.data.datasets import DATASET_REGISTRY

from .base import SplitDataset
from .files import read_lines, shorten
from .splits import Item, Split, split_trainval

CLASS_NAMES = "ucfTrainTestlist/classInd.txt"
LISTS = ("ucfTrainTestlist/trainlist01.txt", "ucfTrainTestlist/testlist01.txt")


@DATASET_REGISTRY.register()
class UCF101(SplitDataset):
    """UCF101's middle frames; folders and classes are called by the action's words, joined by underscores."""

    dataset_dir = "ucf101"
    image_dir = "UCF-101-midframes"
    split_file = "split_zhou_UCF101.json"
    required_files = (CLASS_NAMES, *LISTS)

    def make_split(self) -> Split:
        """Take the test videos of the first official split, and a fifth of each action's others for validation."""
        path = os.path.join(self.dataset_dir, CLASS_NAMES)
        classes = read_lines(path, r"([1-9]\d*) (\S+)", "'<label> <Action>'")
        label_of = {action: int(label) - 1 for label, action in classes}
        trainval, test = (self.read_list(name, label_of) for name in LISTS)
        train, val = split_trainval(trainval, os.path.join(self.dataset_dir, LISTS[0]))
        return Split(train, val, test)

    def read_list(self, name: str, label_of: dict[str, int]) -> list[Item]:
        """Read one list of videos; raise ValueError if it has an action that `label_of` has not."""
        path = os.path.join(self.dataset_dir, name)
        lines = read_lines(path, r"([^/ ]+)/([^/ ]+)\.avi(?: .*)?", "'<Action>/<video>.avi'", of_paths=True)
        unknown = sorted({action for action, _ in lines if action not in label_of})
        if unknown:
            raise ValueError(f"{path} has classes that {CLASS_NAMES} has not: {shorten(unknown)}")
        items = []
        for action, video in lines:
            words = re.sub(r"(?<!^)(?=[A-Z])", "_", action)  # ApplyEyeMakeup -> Apply_Eye_Makeup
            items.append(Item(f"{words}/{video}.jpg", label_of[action], words))
        return items
