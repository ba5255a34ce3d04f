"""Finished runs: reading them, and tables of them."""

from __future__ import annotations

from tools.results.render import render, table_of, tables_of, text_table
from tools.results.runs import Run, find_runs, read_runs

__all__ = ["Run", "find_runs", "read_runs", "render", "table_of", "tables_of", "text_table"]
