"""What CoOp's readers pickled, read by an unpickler that admits Dassl's `Datum` and nothing else.

A pickle can name any function of any installed package and call it. CoOp's readers keep their few-shot selections
(`split_fewshot/shot_<n>-seed_<k>.pkl`) and ImageNet's lists (`preprocessed.pkl`) as pickles, and labs pass them on with
their data. These files hold plain containers, strings and numbers, and one class, `Datum`; here even that one is not
imported, and a class that only holds its three values replaces it. The paths are those of the machine that made them,
Windows too, and are returned relative to the image folder.
"""

from __future__ import annotations

import pickle
import re
from typing import Any

from .files import posix_path

DATUM = ("dassl.data.datasets.base_dataset", "Datum")


class _Datum:
    """Stands in for a pickled `Datum`."""

    __slots__ = ("item",)

    def __setstate__(self, state: Any) -> None:
        item = tuple(state[key] for key in ("_impath", "_label", "_classname"))
        if [type(value) for value in item] != [str, int, str]:
            raise ValueError(f"a Datum in it must have a path, a label and a class name, got {item!r}")
        self.item = item


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        if (module, name) != DATUM:
            raise pickle.UnpicklingError(f"it names {module}.{name}, and nothing but Dassl's Datum is admitted")
        return _Datum


def read_pickled(path: str, image_dir: str) -> dict[str, list[tuple[str, int, str]]]:
    """Read a pickled dictionary of lists of `Datum`.

    Args:
        path: of the pickle.
        image_dir: the end of the image folder's path on every machine, such as `caltech-101/101_ObjectCategories`; a
            path is cut after its last occurrence.

    Returns:
        The lists by their names, of (path relative to the image folder, label, class name).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such pickle, names anything but `Datum`, or a path that is not below the image folder.
    """
    with open(path, "rb") as file:
        try:
            content = _Unpickler(file).load()
            if not isinstance(content, dict) or not all(isinstance(items, list) for items in content.values()):
                raise ValueError("it must hold a dictionary of lists")
            lists = {name: [datum.item for datum in datums] for name, datums in content.items()}
        except Exception as error:  # damaged pickles make the unpickler raise almost anything
            raise ValueError(
                f"{path} cannot be read as what CoOp's readers keep ({error}); remove it to do without it"
            ) from error
    marker = f"/{image_dir.strip('/')}/"
    for items in lists.values():
        for index, (impath, label, classname) in enumerate(items):
            of_windows = re.match(r"[A-Za-z]:[\\/]|\\\\", impath) or marker not in impath
            _, found, relative = (posix_path(impath) if of_windows else impath).rpartition(marker)
            if not found:
                raise ValueError(f"{path} names the image {impath}, which is not below a folder ...{marker}")
            items[index] = (relative, label, classname)
    return lists
