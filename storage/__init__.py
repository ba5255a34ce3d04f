"""Writing, printing and stopping for all parts: atomic and durable files, folders with one owner, texts that are safe
to print, interrupts that lose nothing.

It stands on Python's standard library, below `datasets`, `trainers` and `tools`, and imports nothing of this project.
"""
