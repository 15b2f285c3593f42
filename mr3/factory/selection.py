"""Which of the rows that are left are taken: balance over languages and sources, harder rows first, exact counts.

Everything is drawn by a hash of the seed and the row's name, so neither the order in which answers came nor the
number of actors changes what is chosen.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import xxhash

from mr3.factory.config import Selection

Cell = tuple[str, str]


def tie_break(seed: int, names: Sequence[str]) -> npt.NDArray[np.uint64]:
    """A number per row, drawn by its name."""
    marks = (xxhash.xxh3_64_intdigest(f"{seed}\n{name}".encode("utf-8", "surrogatepass")) for name in names)
    return np.fromiter(marks, np.uint64, len(names))


def allocate(available: Mapping[str, int], total: int, alpha: float) -> dict[str, int]:
    """Divide `total` among cells in shares of available^alpha, never more than a cell has; exact to the row.

    What small cells can't take is divided among the others again. Rows left by rounding go to the cells that are
    furthest below their share, then by name.

    Raises:
        ValueError: for more rows than there are.
    """
    if total > sum(available.values()):
        raise ValueError(f"{total} rows were asked for, and {sum(available.values())} are there")
    given: dict[str, int] = {}
    open_cells = {name: n for name, n in available.items() if n}
    left = total
    while open_cells:
        weight = sum(n**alpha for n in open_cells.values())
        full = {name: n for name, n in open_cells.items() if left * n**alpha >= n * weight}
        if not full:
            break
        given |= full
        left -= sum(full.values())
        open_cells = {name: n for name, n in open_cells.items() if name not in full}
    if open_cells:
        weight = sum(n**alpha for n in open_cells.values())
        shares = {name: left * n**alpha / weight for name, n in open_cells.items()}
        given |= {name: int(share) for name, share in shares.items()}
        short = left - sum(given[name] for name in open_cells)
        # A share below a cell's size rounds down below it, so one more always fits.
        for name in heapq.nsmallest(short, open_cells, key=lambda c: (given[c] - shares[c], c)):
            given[name] += 1
    return {name: given.get(name, 0) for name in available}


def quotas(cells: Counter[Cell], settings: Selection) -> dict[Cell, int]:
    """Rows to take of each (language, source): languages first, then the sources within each."""
    capped = _cap(_cap(dict(cells), 1, settings.per_source), 0, settings.per_language)
    languages: Counter[str] = Counter()
    for (language, _), n in capped.items():
        languages[language] += n
    total = min(languages.total(), settings.rows if settings.rows is not None else languages.total())
    taken: dict[Cell, int] = {}
    for language, rows in allocate(languages, total, settings.alpha).items():
        sources = {source: n for (code, source), n in capped.items() if code == language}
        taken |= {(language, source): n for source, n in allocate(sources, rows, settings.alpha).items()}
    return taken


def _cap(cells: dict[Cell, int], place: int, most: int | None) -> dict[Cell, int]:
    """No language, or source, over `most`: its cells shrink in proportion."""
    if most is None:
        return cells
    found: dict[Cell, int] = {}
    for name in sorted({cell[place] for cell in cells}):
        own = {cell[1 - place]: n for cell, n in cells.items() if cell[place] == name}
        cut = allocate(own, min(most, sum(own.values())), 1.0)
        found |= {((name, other) if place == 0 else (other, name)): n for other, n in cut.items()}
    return found


def choose(
    cells: Sequence[Cell],
    code: npt.NDArray[np.int32],
    right: npt.NDArray[np.int8],
    ties: npt.NDArray[np.uint64],
    settings: Selection,
    prefer: int,
) -> npt.NDArray[np.bool_]:
    """Which rows are taken.

    Args:
        cells: every (language, source) that there is.
        code: per row, the place of its cell in `cells`.
        right: per row, answers of the student that were right.
        ties: per row, as `tie_break` draws them.
        prefer: rows with at most so many right come before the others of their cell.
    """
    counts = np.bincount(code, minlength=len(cells))
    taken = quotas(Counter({cell: int(n) for cell, n in zip(cells, counts, strict=True)}), settings)
    quota = np.array([taken[cell] for cell in cells], dtype=np.int64)
    order = np.lexsort((ties, right > prefer, code))
    starts = np.cumsum(counts) - counts
    rank = np.empty(len(code), dtype=np.int64)
    rank[order] = np.arange(len(code)) - starts[code[order]]
    chosen: npt.NDArray[np.bool_] = rank < quota[code]
    return chosen
