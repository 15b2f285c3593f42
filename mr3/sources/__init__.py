"""Sources of labelled tasks: published sets by hub id, files, and adapters, read as one stream of labelled rows.

`open_source(spec)` yields `Labelled` rows and `SetAside` for what is no row; `input_texts(spec)` yields what a
benchmark asks, for decontamination.
"""

from mr3.sources.labelled import Labelled, OwnTexts, SetAside
from mr3.sources.opening import input_texts, open_source, source_files
from mr3.sources.registry import KnownSet, known_set, known_sets
from mr3.sources.spec import AdapterSource, FileSource, SetSource, SourceSpec, Texts

__all__ = [
    "AdapterSource",
    "FileSource",
    "KnownSet",
    "Labelled",
    "OwnTexts",
    "SetAside",
    "SetSource",
    "SourceSpec",
    "Texts",
    "input_texts",
    "known_set",
    "known_sets",
    "open_source",
    "source_files",
]
