"""What all parts write and print with: files that are whole and last, folders with one owner, texts that do no harm.

It stands on Python's standard library, below `datasets`, `trainers` and `tools`, and imports nothing of this project.
"""
