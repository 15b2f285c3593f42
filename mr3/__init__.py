"""mR3: multilingual, rubric-based reward reasoning."""

__version__ = "0.1.0"
