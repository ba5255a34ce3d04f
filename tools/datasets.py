"""Checking and preparing data sets: the command `python -m tools.datasets`, which `tools/data` is made of.

A folder of this name may not be: `python tools/dropin.py` looks for modules in this folder first.
"""

from __future__ import annotations

from tools.data.__main__ import main

if __name__ == "__main__":
    main()
