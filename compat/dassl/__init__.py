"""The part of Dassl's public API that CoOp-family code uses, in this project's own writing.

Dassl (Zhou et al., github.com/KaiyangZhou/Dassl.pytorch) is not on PyPI. If it is installed, it is used, and this
package stays unseen; otherwise ``import compat`` makes this one importable as ``dassl``. Names, defaults, printed
lines and files on disk are those of Dassl 0.6.3 (October 2022), so trainers written for it run unchanged.
"""

from __future__ import annotations

__version__ = "0.6.3+embedded"
