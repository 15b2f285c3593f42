"""Mutations of valid verdicts together with what each still says: the oracle that the parser is measured against.

The truth of a case is known from how it was made. `truth` is the only score that may come out (None: none may), `must`
says that the documentation promises it; `outcome` and `repaired` are what it promises of them (None: nothing).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.verdict_texts import DIGITS, END_OF_TURN, LABELS, WRITERS, Writer, literal, sentence


@dataclass(frozen=True)
class Case:
    """One completion and what it says."""

    kind: str
    format: str
    text: str
    labels: tuple[str, ...]
    finish: str = "stop"
    truth: str | None = None
    must: bool = False
    outcome: str | None = None
    repaired: bool | None = None


@dataclass
class Draft:
    """A valid verdict in its parts: `lead` + `head` + `value` + `tail` is the whole text."""

    writer: Writer
    labels: tuple[str, ...]
    truth: str
    other: str
    lead: str
    head: str
    value: str
    tail: str
    lot: random.Random

    @property
    def text(self) -> str:
        return self.lead + self.head + self.value + self.tail

    def block(self, value: str) -> str:
        """Another closed block of the format."""
        head, tail = self.writer.block(value, self.lot)
        return head + value + tail

    def says(self, kind: str, text: str, repaired: bool | None = None) -> Case:
        """A text that must be read as the truth."""
        return Case(kind, self.writer.name, text, self.labels, truth=self.truth, must=True, repaired=repaired)

    def says_as(self, kind: str, value: str) -> Case:
        """The verdict with its value in another spelling, which must be read as the truth and marked as repaired."""
        return self.says(kind, self.lead + self.head + value + self.tail, repaired=value != self.value)

    def may_say(self, kind: str, text: str) -> Case:
        """A text that may be refused, and if it is read, says the truth."""
        return Case(kind, self.writer.name, text, self.labels, truth=self.truth)

    def says_nothing(self, kind: str, text: str, finish: str = "stop", outcome: str | None = None) -> Case:
        """A text from which no score may come."""
        return Case(kind, self.writer.name, text, self.labels, finish, outcome=outcome)


def draft(lot: random.Random, writers: tuple[Writer, ...] = WRITERS) -> Draft:
    """A valid verdict of any format, with a verdict of another score in its trace half of the time."""
    writer = lot.choice(writers)
    labels = LABELS[lot.choice(writer.label_sets)]
    legal = [label for label in labels if not (writer.name == "nemotron-genrm" and len(labels) == 7 and label == "4")]
    truth = lot.choice(legal)
    other = lot.choice([label for label in legal if label != truth])
    value = writer.native(truth, labels)
    head, tail = writer.block(value, lot)
    bait = writer.native(other, labels)
    quoted_head, quoted_tail = writer.block(bait, lot)
    quotes = (quoted_head + bait + quoted_tail, f"[[{bait}]]", f"score: {bait}", f'"score": "{bait}"', "")
    lead = writer.lead(lot, lot.choice(quotes))
    return Draft(writer, labels, truth, other, lead, head, value, tail, lot)


Mutation = Callable[[Draft], Case]


def clean(d: Draft) -> Case:
    return d.says("clean", d.text, repaired=False)


def end_of_turn(d: Draft) -> Case:
    return d.says("end of turn", d.text + d.lot.choice(END_OF_TURN) + d.lot.choice(["", "\n", " \u200b"]))


def blanks(d: Draft) -> Case:
    return d.says("blanks behind", d.text + d.lot.choice(["\n", "\n\n  ", "\t", "\u3000", "\u200f\n", "\ufeff"]))


def decorated(d: Draft) -> Case:
    around = ["** **", "** .**", " .", " 。", "( )", "` `", "_ _", "「 」", "[ ]", "《 》"]
    left, _, right = d.lot.choice(around).partition(" ")
    return d.says_as("decorated value", left + d.value + right)


def marked(d: Draft) -> Case:
    around = ["\u200f ", "\u200e \u200e", "\u2067 \u2069", "\u202b \u202c", "\u200b \ufeff", "\u061c \u061c"]
    left, _, right = d.lot.choice(around).partition(" ")
    return d.says_as("direction marks around the value", left + d.value + right)


def other_digits(d: Draft) -> Case:
    digits = d.lot.choice(DIGITS)
    value = "".join(digits[int(c)] if c in "0123456789" else c for c in d.value)
    return d.says_as("other digits", value)


def other_case(d: Draft) -> Case:
    return d.says_as("other case", d.lot.choice([d.value.lower(), d.value.upper()]))


def wide(d: Draft) -> Case:
    value = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in d.value)
    return d.says_as("full-width value", value)


def wide_blanks(d: Draft) -> Case:
    blank = d.lot.choice(["  ", "\u00a0", "\u3000", "\t"])
    return d.says_as("other blanks in the value", d.value.replace(" ", blank))


def cut(d: Draft) -> Case:
    at = d.lot.randint(0, len(d.text) - len(d.tail) - 1)
    if d.lot.random() < 0.5 and d.tail:
        at = len(d.text) - d.lot.randint(1, len(d.tail.rstrip()))
    return d.says_nothing("cut", d.text[:at])


def cut_by_length(d: Draft) -> Case:
    at = d.lot.choice([len(d.text), len(d.text), d.lot.randint(0, len(d.text))])
    more = d.lot.choice(["", "", d.block(d.value), sentence(d.lot)])
    return d.says_nothing("cut by length", d.text[:at] + more, "length", "truncated")


def other_finish(d: Draft) -> Case:
    finish = d.lot.choice(["too_long", "timed_out", "failed", "content_filter", "STOP"])
    outcome = {"too_long": "too_long", "timed_out": "timed_out"}.get(finish, "engine_failed")
    return d.says_nothing("other finish", d.text, finish, outcome)


def text_behind(d: Draft) -> Case:
    more = [f" {sentence(d.lot)}", f"\n\n{sentence(d.lot)}", f" no wait, {d.other}", "\n```\nx", " x", ' "score"']
    return d.says_nothing("text behind", d.text + d.lot.choice(more))


def two_blocks(d: Draft) -> Case:
    second = d.block(d.lot.choice([d.value, d.writer.native(d.other, d.labels)]))
    between = d.lot.choice(["", " ", "\n", f"\n{sentence(d.lot)}\n", "\n```\n```json\n"])
    return d.says_nothing("two blocks", d.text + between + second)


def off_scale(d: Draft) -> Case:
    junk = [
        "8/10", "", ":", "N/A", "-1", "0", "99", "IV", "four", "4-5", "4 or 5", "NaN", "~4", "4%", "+4", "<4", ">4",
        "≥4", "[RESULT] 4", "yes", "?", "score 4", "4 (good)", "I can't judge this", f"{d.value} or {d.other}",
        f"{d.value}, {d.value}", f"{d.value}/10",
    ]  # fmt: skip
    return _off_scale(d, "off scale", d.lot.choice(junk))


def odd_characters(d: Draft) -> Case:
    """Characters that folding or dropping too much would turn into a label."""
    half = len(d.value) // 2
    odd = [
        f"\u202e{d.value}", f"\u202d{d.value}", f"{d.value}\u202c\u202e", f"{d.value[:half]}\u202e{d.value[half:]}",
        "1\u200b0", "1⁰", "¹⁰", "④", "⒋", "⑷", "四", "½", "𝐀ssistant A", "ⓣrue", "Ⓑ", "Tie\u200dTie", "ﬁve", "ᵗrue",
    ]  # fmt: skip
    return _off_scale(d, "odd characters", d.lot.choice(odd))


def _off_scale(d: Draft, kind: str, value: str) -> Case:
    outcome = "off_scale" if d.writer.name in ("mr3", "r3") else None
    return d.says_nothing(kind, d.lead + d.head + value + d.tail, outcome=outcome)


_CONFUSABLE = dict(zip("AaBeiosTEtCDpc", "АаВеіоѕТЕτСⅮрс", strict=True))


def look_alike(d: Draft) -> Case:
    places = [i for i, c in enumerate(d.value) if c in _CONFUSABLE]
    if not places:
        value = {"1": "l", "5": "Ƽ"}.get(d.value, "З")
    else:
        at = d.lot.choice(places)
        value = d.value[:at] + _CONFUSABLE[d.value[at]] + d.value[at + 1 :]
    return d.says_nothing("look-alike letters", d.lead + d.head + value + d.tail)


def second_close(d: Draft) -> Case:
    front = d.lead or "</think>"
    again = d.lot.choice(["</think>", "<think>", "<think>\nhm\n</think>"])
    return d.says_nothing("trace closed twice", f"{front}{sentence(d.lot)} {again}\n{d.head}{d.value}{d.tail}")


def never_closed(d: Draft) -> Case:
    text = f"<think>{sentence(d.lot)} {d.head}{d.value}{d.tail}"
    return d.says_nothing("trace never closed", text)


def only_quoted(d: Draft) -> Case:
    inside = d.block(d.value)
    return d.says_nothing("only in the trace", f"<think>{inside} {sentence(d.lot)}</think>\n{sentence(d.lot)}")


def surrogates(d: Draft) -> Case:
    place = d.lot.randint(0, len(d.lead))
    return d.may_say("lone surrogate", d.lead[:place] + "\ud83d" + d.lead[place:] + d.head + d.value + d.tail)


def random_edits(d: Draft) -> Case:
    """Up to three edits of single characters anywhere but in the value."""
    head, tail = d.lead + d.head, d.tail
    for _ in range(d.lot.randint(1, 3)):
        side = head if d.lot.random() < 0.7 or not tail else tail
        near = d.lot.random() < 0.7
        at = d.lot.randint(max(0, len(side) - 60), len(side) - 1) if near else d.lot.randrange(len(side))
        junk = d.lot.choice([*"\"'{}[]\\,:<>/ \nx\u200bé", ""])
        edited = side[:at] + junk + side[at + d.lot.randint(0, 1) :]
        if side is head:
            head = edited
        else:
            tail = edited
    return d.may_say("random edits", head + d.value + tail)


def value_in_json_escape(d: Draft) -> Case:
    """Only JSON formats: the same value spelled in escapes is the same value."""
    text = d.lead + d.head[:-1] + literal(d.value, d.lot) + d.tail[1:]
    return d.says("escaped value", text, repaired=False)


ANY_FORMAT: tuple[Mutation, ...] = (
    clean, end_of_turn, blanks, decorated, marked, other_digits, other_case, wide, wide_blanks, cut, cut_by_length,
    other_finish, text_behind, two_blocks, off_scale, odd_characters, look_alike, second_close, never_closed,
    only_quoted, surrogates, random_edits,
)  # fmt: skip


def cases(seed: int, n: int) -> Iterator[Case]:
    """`n` mutations, all kinds in turn, the same for the same seed."""
    from benchmarks.verdict_json import JSON_ONLY, JSON_WRITERS

    lot = random.Random(seed)
    plan: list[tuple[Mutation, tuple[Writer, ...]]] = [(m, WRITERS) for m in ANY_FORMAT]
    plan += [(m, JSON_WRITERS) for m in (*JSON_ONLY, value_in_json_escape)]
    for i in range(n):
        mutation, writers = plan[i % len(plan)]
        yield mutation(draft(lot, writers))
