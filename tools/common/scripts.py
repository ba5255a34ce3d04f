"""The protocol scripts, as other programs call them."""

from __future__ import annotations

# Environment variables that would make the scripts run something else than they are asked to
SCRIPT_VARIABLES = ("CALIBRATED", "CFG", "FAR", "LOADEP", "SHOTS", "SUB", "TAG", "TRAINER")
