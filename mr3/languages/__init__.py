"""The languages of the judge: one YAML file each under `data/`, a registry, and checks of script and language."""

from mr3.languages.codes import ALIASES, ALL, TRAINING, TRAINING_CODES, UNSEEN, base_code, canonical, twins_of
from mr3.languages.model import KEPT_WORDS, Language, ModeTexts, SchemaTexts, Templates, Titles, read_language
from mr3.languages.registry import Evidence, available, instructions_for, is_verified, language, verified

__all__ = [
    "ALIASES",
    "ALL",
    "KEPT_WORDS",
    "TRAINING",
    "TRAINING_CODES",
    "UNSEEN",
    "Evidence",
    "Language",
    "ModeTexts",
    "SchemaTexts",
    "Templates",
    "Titles",
    "available",
    "base_code",
    "canonical",
    "instructions_for",
    "is_verified",
    "language",
    "read_language",
    "twins_of",
    "verified",
]
