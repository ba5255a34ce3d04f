"""The most memory that a run took: on a GPU what PyTorch had allocated there, else what the process had."""

from __future__ import annotations

from pathlib import Path

import torch

_PROCESS = Path("/proc/self")  # of Linux
_RESETS_PEAK = "5"  # as proc(5) has it


def reset_peak(device: torch.device) -> bool:
    """Begin to look for the most memory that is taken.

    Args:
        device: where a run computes.

    Returns:
        Whether the system can measure that; on a CPU only Linux can.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        (_PROCESS / "clear_refs").write_text(_RESETS_PEAK)
    except OSError:
        return False
    return True


def peak_bytes(device: torch.device) -> int | None:
    """The most memory since `reset_peak`, in bytes; None where the system cannot measure it."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        status = (_PROCESS / "status").read_text()
    except OSError:
        return None
    lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return 1024 * int(lines["VmHWM"].split()[0]) if "VmHWM" in lines else None
