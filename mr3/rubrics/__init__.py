"""Rubrics: named criteria in order, or one description per score level, validated when they are loaded.

A rubric is data (YAML or a record). `mr3.rubrics.entries` holds the library of named and versioned rubrics.
"""

from mr3.rubrics.loading import load_rubric
from mr3.rubrics.record import Criterion, Rubric

__all__ = ["Criterion", "Rubric", "load_rubric"]
