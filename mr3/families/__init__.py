"""Task families: what mR3's data sets ask a judge, as data, and how their rows become tasks."""

from mr3.families.errors import FamilyError, RowError, TextsMissing
from mr3.families.rows import KeyOrder, task_of_row
from mr3.families.sources import family_of_row
from mr3.families.table import FAMILIES, Family, Layout, find_family

__all__ = [
    "FAMILIES",
    "Family",
    "FamilyError",
    "KeyOrder",
    "Layout",
    "RowError",
    "TextsMissing",
    "family_of_row",
    "find_family",
    "task_of_row",
]
