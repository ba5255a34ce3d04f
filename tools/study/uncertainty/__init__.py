"""The study of CDC's uncertainty on the embedded data sets: `python -m tools.study.uncertainty`."""
