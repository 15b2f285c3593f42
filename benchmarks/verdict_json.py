"""Mutations of verdicts that are one JSON object: keys, quotes, layout, and what competes with the score inside it."""

from __future__ import annotations

import random
from typing import Any

from benchmarks.verdict_mutations import Case, Draft, Mutation
from benchmarks.verdict_texts import DIGITS, TRANSLATED_KEYS, WRITERS, literal, sentence

JSON_WRITERS = tuple(writer for writer in WRITERS if writer.name in ("mr3", "r3"))
Pair = tuple[str, str]


def _object(pairs: list[Pair], lot: random.Random, end: str = "") -> str:
    """Pairs of literals as an object, in one of several layouts."""
    comma, colon, inner = lot.choice([(", ", ": ", ""), (",", ":", ""), (",\n  ", ": ", "\n"), (" , ", " : ", " ")])
    return "{" + inner + comma.join(f"{key}{colon}{value}" for key, value in pairs) + end + inner + "}"


def _front(d: Draft) -> str:
    """A lead that closes its trace: some of these repairs need one."""
    return d.lead or f"{sentence(d.lot)}</think>"


def _reason(d: Draft) -> Pair:
    return '"explanation"', literal(sentence(d.lot))


def _score(d: Draft, label: str) -> Pair:
    return '"score"', literal(d.writer.native(label, d.labels))


def layout(d: Draft) -> Case:
    pairs = [_reason(d), _score(d, d.truth)]
    d.lot.shuffle(pairs)
    return d.says("layout and order of keys", d.lead + _object(pairs, d.lot), repaired=False)


def escaped_keys(d: Draft) -> Case:
    pairs = [
        (literal("explanation", d.lot), literal(sentence(d.lot), d.lot)),
        (literal("score", d.lot), literal(d.value)),
    ]
    return d.says("escaped keys", d.lead + _object(pairs, d.lot), repaired=False)


def quoted_verdict(d: Draft) -> Case:
    inside = _object([_reason(d), _score(d, d.other)], d.lot)
    quote = d.lot.choice(
        [inside, f'"score": "{d.other}"', f"</think> {inside}", f"[[{d.other}]]", f"[RESULT] {d.other}"]
    )
    pairs = [('"explanation"', literal(f"{sentence(d.lot)} {quote}")), _score(d, d.truth)]
    return d.says("verdict quoted in the explanation", d.lead + _object(pairs, d.lot), repaired=False)


def fence(d: Draft) -> Case:
    body = _object([_reason(d), _score(d, d.truth)], d.lot)
    opened = d.lot.choice(["```json\n", "```\n", "```JSON\n"])
    return d.says(
        "code fence", f"{d.lead}{opened}{body}\n```{d.lot.choice(['', chr(10), '<|im_end|>'])}", repaired=True
    )


def _behind(d: Draft, front: str, between: str = "\n") -> str:
    """A whole answer with `front` before its object."""
    closed = "\n```" if "```" in front else ""
    return f"{_front(d)}{front}{between}{_object([_reason(d), _score(d, d.truth)], d.lot)}{closed}"


def prose_in_front(d: Draft) -> Case:
    """Prefaces that name no other score: sentences, lists with numbers and letters, the same score."""
    front = d.lot.choice(
        [
            sentence(d.lot),
            "Here is my evaluation:",
            "**Verdict**\n\n```json\n",
            f"Score: {d.truth}.",
            f"[RESULT] {d.truth}",
            "1. It is right.\n2. It is brief.\n3. It thanks 4 people.\n",
            "A. The first point holds.\nB) So does the second.\n",
            "It names 2 of 5 causes, on page 4, in 1.5 lines.",
            "Score:\n",
        ]
    )
    return d.says("prose in front", _behind(d, front), repaired=True)


def other_verdict_in_front(d: Draft) -> Case:
    """The object says one thing and the text in front of it another."""
    other = d.other
    noun = d.lot.choice(
        ["Score", "Final score", "Verdict", "**Rating**", "The winner", *(k for k, _ in TRANSLATED_KEYS)]
    )
    forms = [
        f"{noun}: {other}",
        f"{noun} = {other}.",
        f"{noun}：**{other}**",
        f"The verdict is {other}.",
        f"{sentence(d.lot)}\n{other}\n",
        f"**{other}**\n\n```json\n",
        f"[RESULT] {other}",
        f"So I choose {other}.",
        f"Score: {d.truth}. No, the score is {other}.",
    ]
    if " " in other:  # a label that no text holds by chance
        forms += [f"{other} is better.", f"I like what {other.upper()} does", f"not {other}"]
    if other.isdigit():
        wide = "".join(d.lot.choice(DIGITS)[int(c)] for c in other)
        forms += [f"I give it a {other}.", f"Score: {other}/5", f"{noun}: {wide}"]
    front = d.lot.choice(forms)
    return d.says_nothing(
        "another verdict in front", _behind(d, front, d.lot.choice([" ", "\n"])), outcome="parse_failed"
    )


def markup_in_front(d: Draft) -> Case:
    """Tokens and channel names that a chat template should have kept to itself."""
    mark = d.lot.choice(
        ["<|channel|>final<|message|>", "assistantfinal", "<|im_end|>\n<|im_start|>assistant\n", "assistant\n", "</s>",
         "<|start|>assistant<|channel|>final<|message|>", "[/INST]", "final\n", "<start_of_turn>model\n"]
    )  # fmt: skip
    front = d.lot.choice(["", f"{sentence(d.lot)}\n"]) + mark
    return d.says_nothing("chat markup in front", _behind(d, front, ""), outcome="parse_failed")


def trailing_comma(d: Draft) -> Case:
    return d.says("trailing comma", d.lead + _object([_reason(d), _score(d, d.truth)], d.lot, end=","), repaired=True)


def single_quotes(d: Draft) -> Case:
    def quoted(text: str) -> str:
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"

    extra = d.lot.choice([[], [("'checked'", "True")], [("'note to self'", "None")]])
    reason = d.lot.choice([sentence(d.lot), 'it\'s "fine"'])
    pairs = [(quoted("explanation"), quoted(reason)), (quoted("score"), quoted(d.value)), *extra]
    return d.says("single quotes", d.lead + _object(pairs, d.lot), repaired=True)


def line_breaks(d: Draft) -> Case:
    pairs = [('"explanation"', f'"{d.lot.choice(["one", "一"])}\n\ttwo"'), _score(d, d.truth)]
    return d.says("raw line breaks", d.lead + _object(pairs, d.lot), repaired=True)


def unescaped_quotes(d: Draft) -> Case:
    text = f'"{d.lot.choice(["the word", "слово", "言葉は"])} "{d.lot.choice(["foo", "да", "犬"])}" is right"'
    return d.says(
        "unescaped quotes", d.lead + _object([('"explanation"', text), _score(d, d.truth)], d.lot), repaired=True
    )


def translated_keys(d: Draft) -> Case:
    score, reason = d.lot.choice(TRANSLATED_KEYS)
    pick = d.lot.choice([(score, reason), (score, "explanation"), ("score", reason), (score.upper(), reason)])
    around = d.lot.choice(["", "", "**", "\u200f"])
    pairs = [(f'"{pick[1]}"', literal(sentence(d.lot))), (f'"{around}{pick[0]}{around}"', literal(d.value))]
    return d.says("translated keys", d.lead + _object(pairs, d.lot), repaired=True)


def extra_keys(d: Draft) -> Case:
    extra: list[Pair] = [
        ('"confidence"', "0.9"),
        ('"language"', '"sw"'),
        ('"criteria"', '{"clarity": "good", "n": [1, 2]}'),
    ]
    pairs = [_reason(d), _score(d, d.truth), d.lot.choice(extra)]
    d.lot.shuffle(pairs)
    return d.says("further keys", d.lead + _object(pairs, d.lot), repaired=True)


def no_explanation(d: Draft) -> Case:
    pairs = d.lot.choice([[_score(d, d.truth)], [('"explanation"', "null"), _score(d, d.truth)]])
    return d.says("no explanation", d.lead + _object(pairs, d.lot), repaired=True)


def typed(d: Draft) -> Case:
    """Numbers and booleans where strings are asked; for R3 they are how scores are written."""
    bare = d.value.isdigit() or d.value in ("true", "false")
    value = d.value if bare else literal(d.value)
    if d.value.isdigit() and d.lot.random() < 0.5:
        value = d.lot.choice([f"{d.value}.0", f'"{d.value}.0"', f"{d.value}.00"])
    return d.says("typed value", d.lead + _object([_reason(d), ('"score"', value)], d.lot))


def other_ranking(d: Draft) -> Case:
    items = d.value.split(" > ")
    if len(items) == 1:
        return d.says("other ranking", d.text, repaired=False)
    name = d.lot.choice(["Assistant ", "Response ", "assistant ", ""])
    if name == "Response ":
        items = d.lot.choice([items, [str("ABCDE".index(item) + 1) for item in items]])
    value = d.lot.choice([">", " >", "＞", "  >  "]).join(f"{name}{item}" for item in items)
    return d.says_as("other ranking", value)


def no_ranking(d: Draft) -> Case:
    items = d.value.split(" > ")
    if len(items) == 1:
        return d.says_nothing("no ranking", d.lead + d.head + f"{d.value} > {d.value}" + d.tail)
    positions = [str("ABCDE".index(item) + 1) for item in items]
    values = [
        " > ".join(items[:-1]), " = ".join(items), " < ".join(items), ", ".join(items), "".join(items), items[0],
        " > ".join([*items[:-1], items[0]]), " > ".join([*items, "F"]), " > ".join(positions), " >> ".join(items),
        " > ".join([items[0], *(f"Assistant {item}" for item in items[1:])]),
    ]  # fmt: skip
    return d.says_nothing("no ranking", d.lead + d.head + d.lot.choice(values) + d.tail, outcome="off_scale")


def twice(d: Draft) -> Case:
    """A second key that means the score, in every way that one can be hidden."""
    again = d.lot.choice(
        [
            '"score"',
            literal("score", d.lot),
            "'score'",
            '"Score"',
            '" score "',
            '"\u200bscore"',
            '"**score**"',
            '"ｓｃｏｒｅ"',
        ]
        + [f'"{word}"' for word, _ in d.lot.sample(TRANSLATED_KEYS, 4)]
    )
    label = d.lot.choice([d.truth, d.other])
    pairs = [_reason(d), _score(d, d.truth), (again, literal(d.writer.native(label, d.labels)))]
    d.lot.shuffle(pairs)
    return d.says_nothing("score twice", d.lead + _object(pairs, d.lot), outcome="parse_failed")


def rival_key(d: Draft) -> Case:
    key = d.lot.choice(["final_score", "Winner", "verdict", "rating", "final answer", "overall_score"])
    pairs = [_reason(d), _score(d, d.truth), (f'"{key}"', literal(d.other))]
    d.lot.shuffle(pairs)
    return d.says_nothing("rival key", d.lead + _object(pairs, d.lot), outcome="parse_failed")


def hidden_in_quotes(d: Draft) -> Case:
    """Text that an unescaped quote may or may not have put outside the explanation."""
    key = d.lot.choice(["score", *(word for word, _ in d.lot.sample(TRANSLATED_KEYS, 3))])
    opened, closed = d.lot.choice([('"', '"'), ("'", "'"), ("“", "”"), ("", "")])
    inside = d.lot.choice(
        [
            f'x", {opened}{key}{closed}: "{d.other}',
            f'x", "verdict": "{d.other}" or "y',
            f'x"}} and {{"explanation", "{d.other}", "y',
            f'x" </think> "{d.other}',
        ]
    )
    text = f'{{"explanation": "{inside}", "score": "{d.value}"}}'
    return d.says_nothing("hidden in quotes", d.lead + text)


def no_trace(d: Draft) -> Case:
    """Prose and an object without any tag: nobody can tell a trace from an answer."""
    body = _object([_reason(d), _score(d, d.truth)], d.lot)
    front = d.lot.choice([f"{sentence(d.lot)}\n", "```json\n{}\n```\n", "x ", "[", "<think>"])
    return d.says_nothing("no trace", front + body)


def inner_score(d: Draft) -> Case:
    inner = _object([d.lot.choice([_score(d, d.other), ('"Punktzahl"', literal(d.other))])], d.lot)
    inner = d.lot.choice([inner, f"[{inner}]", f'{{"a": {inner}}}'])
    shapes: list[list[Pair]] = [
        [('"verdict"', inner)],
        [_reason(d), _score(d, d.truth), ('"details"', inner)],
        [('"explanation"', inner), _score(d, d.truth)],
        [_reason(d), ('"score"', inner)],
    ]
    return d.says_nothing("inner score", d.lead + _object(d.lot.choice(shapes), d.lot), outcome="parse_failed")


def not_a_score(d: Draft) -> Case:
    value = d.lot.choice(["null", "[]", f"[{literal(d.value)}]", "{}", f"{{{literal(d.value)}: 1}}"])
    shapes: list[list[Pair]] = [
        [_reason(d), ('"score"', value)],
        [_reason(d)],
        [_reason(d), ('"verdict"', literal(d.value))],
    ]
    return d.says_nothing("no score", d.lead + _object(d.lot.choice(shapes), d.lot), outcome="parse_failed")


def not_this_number(d: Draft) -> Case:
    """Numbers that are close to a label, or need arithmetic to become one."""
    digit = d.value if d.value.isdigit() else "1"
    value = d.lot.choice(
        [f"{digit}.0000000000000000001", f"{digit}.5", f"{digit}e0", f"0x{digit}", f"0{digit}", f"-{digit}",
         f"+{digit}", f"{digit}_0", "NaN", "Infinity", "-Infinity", "1e400", "9" * 5000, f"{digit}+0", f"({digit})",
         f"{digit}j"]
    )  # fmt: skip
    return d.says_nothing("not this number", d.lead + _object([_reason(d), ('"score"', value)], d.lot))


def arithmetic_on_strings(d: Draft) -> Case:
    """What a language's own reader would accept: joined strings, comments, prefixes, names."""
    value = literal(d.value)
    after = d.lot.choice(
        [f'{value} ""', f'"" {value}', f'{value} # "{d.other}"\n', f"{value} // {d.other}\n", f"r{value}", f"b{value}",
         f"f{value}", f"({value})", f"{value} or None", f"{value}.strip()", f'"""{d.value}"""', d.value.title() + "x"]
    )  # fmt: skip
    return d.says_nothing("not JSON", d.lead + _object([_reason(d), ('"score"', after)], d.lot))


def look_alike_key(d: Draft) -> Case:
    key = d.lot.choice(["scоre", "ѕcore", "scorе", "sc\u200bore", "scο\u200dre", "ѕсоrе", "sсore", "scóre"])
    pairs = [_reason(d), (f'"{key}"', literal(d.writer.native(d.other, d.labels)))]
    if d.lot.random() < 0.7:
        pairs.append(_score(d, d.truth))
    return d.says_nothing("look-alike key", d.lead + _object(pairs, d.lot), outcome="parse_failed")


def nesting(d: Draft) -> Case:
    depth = d.lot.choice([50, 2_000, 60_000])
    opened, closed = d.lot.choice([("[", "]"), ('{"a":', "}"), ('{"score":', "}")])
    deep = opened * depth + "1" + closed * depth
    shapes: list[Any] = [deep, _object([('"explanation"', deep), ("'score'", "[]")], d.lot), f"{deep} {d.tail}"]
    return d.says_nothing("deep nesting", d.lead + str(d.lot.choice(shapes)))


JSON_ONLY: tuple[Mutation, ...] = (
    layout, escaped_keys, quoted_verdict, fence, prose_in_front, other_verdict_in_front, markup_in_front,
    trailing_comma, single_quotes, line_breaks,
    unescaped_quotes, translated_keys, extra_keys, no_explanation, typed, other_ranking, no_ranking, twice,
    rival_key, no_trace, hidden_in_quotes, inner_score, not_a_score, not_this_number, arithmetic_on_strings,
    look_alike_key, nesting,
)  # fmt: skip
