"""Which texts of training rows stand in a benchmark: whole, or in a long equal stretch.

Texts are compared without case, width, blanks and punctuation, so spacing, markup and tokenised text make no
difference, and languages that write no blanks are treated like others. A stretch is so many letters and digits in a
row; characters of dense scripts (Han, kana, Hangul) are counted apart, by a shorter stretch. All stretches of a batch
are hashed at once (a polynomial over 2^64, from prefix sums), so the cost is a few numpy passes and not a loop.

What stands in many items of a benchmark is a set phrase, and no leak. Items are counted within a language, and the
language with the most decides: an item in 23 languages is one item, and what its translations share (code, names,
numbers) is its own, however many texts hold it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import regex
import xxhash

_NOISE = regex.compile(r"[^\p{L}\p{M}\p{N}]+")
_BATCH_CHARS = 2_000_000
_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 1 << 64)
# Kana, CJK, bopomofo, Hangul, and the ideographs beyond the basic plane.
_DENSE = ((0x3040, 0x312F), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))

Words = npt.NDArray[np.uint64]


def normalise(text: str) -> str:
    """Letters, marks and digits alone, in one width and case."""
    plain: str = _NOISE.sub("", unicodedata.normalize("NFKC", text).casefold())
    return plain


def _whole(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"))


def _dense(points: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
    found = np.zeros(len(points), dtype=bool)
    for low, high in _DENSE:
        found |= (points >= low) & (points <= high)
    return found


def _mixed(points: npt.NDArray[np.uint32]) -> Words:
    """Code points spread over 64 bits: small numbers in a polynomial would collide."""
    x = points.astype(np.uint64) * np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(31)
    return x * np.uint64(0x94D049BB133111EB)


def _powers(count: int, base: int) -> Words:
    powers = np.full(count, np.uint64(base), dtype=np.uint64)
    if count:
        powers[0] = 1
    return np.multiply.accumulate(powers, dtype=np.uint64) if count else powers


def stretches(texts: Sequence[str], length: int, dense: bool) -> tuple[Words, npt.NDArray[np.int64]]:
    """Hashes of all stretches of some normalised texts, and the index of the text of each.

    Args:
        texts: as `normalise` gives them.
        length: characters per stretch.
        dense: over the dense scripts' characters of each text, or over the others.
    """
    sizes = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    points = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    owner = np.repeat(np.arange(len(texts)), sizes)
    kind = _dense(points)
    chosen = kind if dense else ~kind
    points, owner = points[chosen], owner[chosen]
    count = len(points) - length + 1
    if count <= 0:
        return np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64)
    sums = np.zeros(len(points) + 1, dtype=np.uint64)
    np.cumsum(_mixed(points) * _powers(len(points), _BASE), dtype=np.uint64, out=sums[1:])
    hashes = (sums[length:] - sums[:-length]) * _powers(count, _INVERSE)
    inside = owner[:count] == owner[length - 1 :]
    return hashes[inside], owner[:count][inside]


def _batches(texts: Iterable[tuple[int, str]]) -> Iterator[tuple[npt.NDArray[np.uint16], list[str]]]:
    """Numbers of languages, and their texts."""
    batch: list[tuple[int, str]] = []
    size = 0
    for one in texts:
        batch.append(one)
        size += len(one[1])
        if size > _BATCH_CHARS:
            yield _columns(batch)
            batch, size = [], 0
    if batch:
        yield _columns(batch)


def _columns(batch: Sequence[tuple[int, str]]) -> tuple[npt.NDArray[np.uint16], list[str]]:
    return np.array([number for number, _ in batch], dtype=np.uint16), [text for _, text in batch]


def _most_items(hashes: Words, languages: npt.NDArray[np.uint16]) -> tuple[Words, npt.NDArray[np.int64]]:
    """Different hashes, sorted, and for each in how many texts of the language that has most of them it stands."""
    order = np.lexsort((languages, hashes))
    hashes, languages = hashes[order], languages[order]
    new_hash = np.ones(len(hashes), dtype=bool)
    new_hash[1:] = hashes[1:] != hashes[:-1]
    new_pair = new_hash.copy()
    new_pair[1:] |= languages[1:] != languages[:-1]
    begins = np.flatnonzero(new_pair)
    counts = np.diff(begins, append=len(hashes))
    return hashes[new_hash], np.maximum.reduceat(counts, np.flatnonzero(new_hash[begins]))


def _contains(known: Words, asked: Words) -> npt.NDArray[np.bool_]:
    if not len(known):
        return np.zeros(len(asked), dtype=bool)
    places = np.searchsorted(known, asked)
    places[places == len(known)] = 0
    found: npt.NDArray[np.bool_] = known[places] == asked
    return found


@dataclass(frozen=True)
class Benchmark:
    """What of one benchmark is looked for; arrays are sorted."""

    name: str
    whole: Words
    plain: Words
    dense: Words
    texts: int
    set_phrases: int


class Index:
    """The benchmarks' texts as hashes."""

    def __init__(self, ngram: int, dense_ngram: int, common: int) -> None:
        self._lengths = {False: ngram, True: dense_ngram}
        self._common = common
        self.benchmarks: list[Benchmark] = []

    def add(self, name: str, asked: Iterable[tuple[str, str]]) -> Benchmark:
        """Take in one benchmark. Equal texts count once.

        Args:
            asked: language and text of every row.
        """
        whole: set[int] = set()
        languages: dict[str, int] = {}
        grams: dict[bool, list[tuple[Words, npt.NDArray[np.uint16]]]] = {False: [], True: []}

        def distinct() -> Iterator[tuple[int, str]]:
            for language, text in asked:
                plain = normalise(text)
                mark = _whole(plain)
                if plain and mark not in whole:
                    whole.add(mark)
                    yield languages.setdefault(language, len(languages)), plain

        for codes, batch in _batches(distinct()):
            for dense, found in grams.items():
                hashes, owners = stretches(batch, self._lengths[dense], dense)
                once, owner = np.unique(np.stack([hashes, owners.astype(np.uint64)]), axis=1)
                found.append((once, codes[owner.astype(np.int64)]))
        (plain, plain_phrases), (dense_, dense_phrases) = (self._kept(grams[kind]) for kind in (False, True))
        marks = np.sort(np.fromiter(whole, np.uint64, len(whole)))
        made = Benchmark(name, marks, plain, dense_, len(whole), plain_phrases + dense_phrases)
        self.benchmarks.append(made)
        return made

    def _kept(self, found: list[tuple[Words, npt.NDArray[np.uint16]]]) -> tuple[Words, int]:
        """Sorted stretches, and how many more there were: those of more than `common` items are set phrases."""
        if not found or not any(len(hashes) for hashes, _ in found):
            return np.empty(0, dtype=np.uint64), 0
        values, items = _most_items(np.concatenate([h for h, _ in found]), np.concatenate([c for _, c in found]))
        rare = items <= self._common
        kept: Words = values[rare]
        return kept, int((~rare).sum())

    def shared(self, text: str, benchmark: str) -> str:
        """What a text has in common with a benchmark, as letters and digits: the first stretch, or the whole text."""
        plain = normalise(text)
        about = next(b for b in self.benchmarks if b.name == benchmark)
        for kind, known in ((False, about.plain), (True, about.dense)):
            hits = _contains(known, stretches([plain], self._lengths[kind], kind)[0])
            if hits.any():
                begin = int(np.argmax(hits))
                length = int(np.argmin(np.append(hits[begin:], False))) + self._lengths[kind] - 1
                points = np.frombuffer(plain.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
                chosen = _dense(points) if kind else ~_dense(points)
                return points[chosen][begin : begin + length].tobytes().decode("utf-32-le", "replace")
        return plain

    def check(self, texts: Sequence[str]) -> list[tuple[str, str] | None]:
        """Per text `(exact | ngram, benchmark)`, or None for a clean one. The first benchmark that fits is named."""
        found: list[tuple[str, str] | None] = [None] * len(texts)
        if not self.benchmarks or not texts:
            return found
        plain = [normalise(t) for t in texts]
        marks = np.fromiter(map(_whole, plain), np.uint64, len(plain))
        parts = {kind: stretches(plain, self._lengths[kind], kind) for kind in (False, True)}
        for benchmark in reversed(self.benchmarks):
            for kind, known in ((False, benchmark.plain), (True, benchmark.dense)):
                hashes, owners = parts[kind]
                for i in np.unique(owners[_contains(known, hashes)]):
                    found[int(i)] = ("ngram", benchmark.name)
        for benchmark in reversed(self.benchmarks):
            for i in np.flatnonzero(_contains(benchmark.whole, marks)):
                if plain[int(i)]:
                    found[int(i)] = ("exact", benchmark.name)
        return found
