"""Judging: tasks in, verdicts out; render, generate, parse, map back, remember."""
