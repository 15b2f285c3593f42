"""What the language identifier answers, and when it does not."""

from __future__ import annotations

import pytest

from mr3.languages.codes import base_code
from mr3.languages.identify import identify, is_in, known_languages

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


def test_codes_are_brought_to_one_form() -> None:
    assert [base_code(c) for c in ("zh-Hant", "pt_BR", "iw", "EN")] == ["zh", "pt", "he", "en"]
