"""One file, one method, one registered trainer. `import trainers` registers them all."""

from . import cdc, zsclip

__all__ = ["cdc", "zsclip"]
