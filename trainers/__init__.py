"""One file, one method, one registered trainer. `import trainers` registers them all."""

from . import cdc, clip_icm, cocoop, coop, maple, zsclip

__all__ = ["cdc", "clip_icm", "cocoop", "coop", "maple", "zsclip"]
