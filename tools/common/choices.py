"""What options of commands can be set to; here, as the modules that use them take seconds to import."""

from __future__ import annotations

DEVICES = ("auto", "cpu", "cuda")
SPLITS = ("train", "val", "test")
SUBSAMPLES = ("all", "base", "new")  # as `datasets.splits` has them
DTYPES = ("float32", "float16")  # of features in a file
PREDICTIONS = ("csv", "jsonl")  # formats of predictions
REJECTED = ("mark", "drop")  # what becomes of predictions that are too uncertain
SECTIONS = ("text", "train", "peers", "classes", "test", "data", "large", "upstream", "compile")  # of the benchmark
