"""Named figures and the commands that measure them: `python -m benchmarks --list`."""
