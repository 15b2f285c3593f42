"""What the language identifier answers, and when it does not."""

from __future__ import annotations

import pytest

from mr3.languages.codes import ALL, base_code, twins_of
from mr3.languages.identify import LanguageShare, identify, is_in, known_languages, recognised, share_in
from mr3.languages.registry import language as language_of

TEXTS = {
    "en": "There are seven apples in the basket, and I am quite sure of it.",
    "de": "Im Korb liegen sieben Äpfel, und da bin ich mir ganz sicher.",
    "es": "Hay siete manzanas en la cesta y estoy bastante seguro de ello.",
    "ja": "かごの中にりんごが七つあります。",
    "ar": "هناك سبع تفاحات في السلة وأنا متأكد من ذلك.",
    "sw": "Kuna matufaha saba kwenye kikapu, na nina hakika kabisa.",
}


@pytest.mark.parametrize("language", TEXTS)
def test_a_sentence_is_recognised(language: str) -> None:
    found = identify(TEXTS[language])
    assert found is not None and found.language == language
    assert is_in(TEXTS[language], language) is True
    assert is_in(TEXTS[language], "fr") is False


@pytest.mark.parametrize("text", ["", "42", ":", "seven", "{}[]"])
def test_a_short_text_has_no_language(text: str) -> None:
    assert identify(text) is None
    assert is_in(text, "en") is None


def test_the_choice_can_be_narrowed() -> None:
    found = identify(TEXTS["es"], among=["ca", "de"])
    assert found is not None and found.language in ("ca", "de")
    with pytest.raises(ValueError, match="none of xx"):
        identify(TEXTS["es"], among=["xx"])


def test_an_unknown_language_is_no_no() -> None:
    assert "xx" not in known_languages()
    assert is_in(TEXTS["en"], "xx") is None


def long_text(code: str) -> str:
    return " ".join(language_of(code).long_texts().values())


def test_long_texts_of_all_languages_but_six_are_recognised_and_no_others_text_is_taken_for_them() -> None:
    assert [code for code in ALL if not recognised(code)] == ["aa", "bs", "ie", "sco", "tlh", "war"]
    for code in filter(recognised, ALL):
        assert (share_in(long_text(code), code).share or 0) > 0.9, code
        other = "en" if code != "en" else "de"
        assert share_in(long_text(other), code) == LanguageShare(0.0), code
    assert "id" in twins_of("ms") and share_in(long_text("ms"), "id").share == 1.0, "near twins are taken for one"


def test_what_can_not_be_told_has_a_reason_and_no_number() -> None:
    assert share_in(long_text("tlh"), "tlh") == LanguageShare(None, "unknown_language")
    assert share_in(TEXTS["en"], "en") == LanguageShare(None, "too_short")
    assert share_in(TEXTS["en"], "en", enough=20).share == 1.0
    labels = "Assistant A, Assistant B, Tie, true, false; " * 20
    assert share_in(labels, "ja") == LanguageShare(None, "too_short"), "labels are in no language"
    assert share_in("x1 = a[0] + qz * 7 // (k - 3) ** wv; " * 30, "en").reason == "unsure"


def test_a_trace_that_drifts_into_another_language_shows_where_it_does() -> None:
    german, english = long_text("de"), long_text("en")
    for text in (german + english, english + german):
        found = share_in(text, "de").share
        assert found is not None and 0.2 < found < 0.8
    assert (share_in(german * 3 + english[:200], "de").share or 0) > 0.75, "a quotation is no drift"


def test_codes_are_brought_to_one_form() -> None:
    assert [base_code(c) for c in ("zh-Hant", "pt_BR", "iw", "EN")] == ["zh", "pt", "he", "en"]
