"""Decontamination: equal texts are found whatever their spacing, stretches wherever they stand, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mr3.factory.contamination import Index, normalise, stretches

ENGLISH = "A farmer has seventeen sheep and all but nine of them run away; how many sheep are left on the farm?"
CHINESE = "农夫有十七只羊，除了九只以外全都跑掉了，请问农场里还剩下多少只羊？"
THAI = "ชาวนามีแกะสิบเจ็ดตัว แกะทั้งหมดหนีไปยกเว้นเก้าตัว ในฟาร์มเหลือแกะกี่ตัว และทำไมถึงเป็นเช่นนั้น"
HINDI = "एक किसान के पास सत्रह भेड़ें हैं और नौ को छोड़कर सब भाग जाती हैं; खेत में कितनी भेड़ें बची हैं?"


def index(*texts: str, common: int = 20) -> Index:
    made = Index(50, 18, common)
    made.add("bench", [("en", text) for text in texts])
    return made


@pytest.mark.parametrize("text", [ENGLISH, CHINESE, THAI, HINDI])
def test_the_same_text_is_exact_in_any_spacing_case_and_width(text: str) -> None:
    spaced = " ".join(text.upper())
    assert index(text).check([spaced, f"  **{text}**\n"]) == [("exact", "bench")] * 2


@pytest.mark.parametrize("text", [ENGLISH, CHINESE, THAI, HINDI])
def test_a_long_stretch_inside_another_text_is_found(text: str) -> None:
    cut = text[len(text) // 8 :]
    mixed = f"Please answer in one word, and do explain your answer: {cut} Спасибо!"
    assert index(text).check([mixed]) == [("ngram", "bench")]


def test_a_short_stretch_or_another_question_is_clean() -> None:
    found = index(ENGLISH, CHINESE)
    other = (
        "A shepherd has twelve goats, and four of them are brown; how many goats are not brown, and who counted them?"
    )
    assert found.check([ENGLISH[:40], CHINESE[:12], other, ""]) == [None] * 4


def test_marks_tell_words_apart() -> None:
    assert normalise("कि") != normalise("का") and normalise("e\u0301") == normalise("É".lower())


def test_a_stretch_of_many_different_texts_is_a_set_phrase() -> None:
    phrase = "Answer the following multiple choice question by giving the letter of the right option only"
    texts = [f"{phrase}: number {i} of them" for i in range(30)]
    found = index(*texts)
    assert found.check([f"{phrase}, my friend"]) == [None] and found.benchmarks[0].set_phrases > 0
    assert index(*texts, common=30).check([f"{phrase}, my friend"]) == [("ngram", "bench")]
    assert index(*[texts[0]] * 30).check([f"{phrase}, my friend"]) == [("ngram", "bench")], "equal texts count once"


def test_no_benchmark_finds_nothing_and_the_first_is_named() -> None:
    assert Index(50, 18, 20).check([ENGLISH]) == [None]
    two = Index(50, 18, 20)
    two.add("one", [("en", ENGLISH)])
    two.add("two", [("en", ENGLISH)])
    assert two.check([ENGLISH]) == [("exact", "one")]


letters = st.text(alphabet="abcd汉字", max_size=40)


@settings(max_examples=150, deadline=None)
@given(st.lists(letters, max_size=6), st.lists(letters, max_size=6))
def test_stretches_agree_with_substrings(bench: list[str], texts: list[str]) -> None:
    """Against a plain search for shared substrings, per kind of script, over texts of a batch at once."""
    for dense in (False, True):
        keep = str.isascii if not dense else (lambda c: not c.isascii())
        plain = [["".join(filter(keep, t)) for t in group] for group in (bench, texts)]
        known = set(stretches(bench, 5, dense)[0].tolist())
        hashes, owners = stretches(texts, 5, dense)
        told = {int(o) for h, o in zip(hashes.tolist(), owners, strict=True) if h in known}
        grams = {b[i : i + 5] for b in plain[0] for i in range(len(b) - 4)}
        right = {n for n, t in enumerate(plain[1]) if any(t[i : i + 5] in grams for i in range(len(t) - 4))}
        assert told == right


CODE = "def reverse_words(sentence): return ' '.join(word[::-1] for word in sentence.split(' '))"


def test_an_item_in_many_languages_is_one_item() -> None:
    """Code and names stand in all translations of an item: counted by text they would be set phrases from 21 on."""
    made = Index(50, 18, 20)
    made.add("bench", [(f"l{i}", f"{CODE} {'xyz'[i % 3] * i}") for i in range(23)])
    found = made.check([f"What does this do? {CODE}"])
    assert found == [("ngram", "bench")] and made.benchmarks[0].set_phrases == 0
    phrase = Index(50, 18, 20)
    phrase.add("bench", [(f"l{i % 2}", f"{CODE} {i}") for i in range(42)])
    assert phrase.check([CODE]) == [None] and phrase.benchmarks[0].set_phrases > 0, "21 items of one language"


@pytest.mark.parametrize("text", [ENGLISH, CHINESE, THAI])
def test_what_is_shared_can_be_read(text: str) -> None:
    made = index("Something else entirely, of no use here and longer than a stretch of letters must be.", text)
    plain = normalise(text)
    assert made.shared(f"Please, {text} now", "bench") == made.shared(text.upper(), "bench") == plain
