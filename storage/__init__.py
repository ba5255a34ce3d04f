"""What all parts write, print and stop with: files that are whole and last, folders with one owner, texts that do no
harm, interrupts that take effect where nothing is lost.

It stands on Python's standard library, below `datasets`, `trainers` and `tools`, and imports nothing of this project.
"""
