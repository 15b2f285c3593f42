"""The checks of the languages: scripts, labels, copies, identifiers; the stored result is what they find."""

from __future__ import annotations

import json
from importlib.metadata import version

import pytest
import yaml

from mr3.languages import main as command
from mr3.languages.check import (
    ALL_TEXTS,
    Identifier,
    copied_texts,
    examine,
    examine_all,
    identifiers,
    judged,
    label_problems,
)  # fmt: skip
from mr3.languages.codes import ALL
from mr3.languages.model import Language
from mr3.languages.registry import DATA, VERIFIED_FILE, Verified, available, language, verified
from mr3.languages.scripts import foreign_letters, script_problems, without_kept_words


@pytest.fixture(scope="module")
def examined() -> Verified:
    return examine_all()


def test_the_stored_result_is_what_the_checks_find(examined: Verified) -> None:
    stored = verified()
    assert stored.tools == {name: version(name) for name in stored.tools}, "other tools: mr3 languages check --write"
    wrong = [c for c, evidence in examined.languages.items() if stored.languages.get(c) != evidence]
    assert not wrong and stored == examined, f"{VERIFIED_FILE.name} is old for {wrong}: mr3 languages check --write"


def test_no_text_is_faulty(examined: Verified) -> None:
    assert not {code: e.problems for code, e in examined.languages.items() if e.problems}


def test_large_languages_are_verified(examined: Verified) -> None:
    large = {"ar", "de", "en", "es", "fr", "hi", "ja", "ko", "pt", "ru", "tr", "zh", "zh-Hant"} & set(available())
    assert {code: examined.languages[code].status for code in large} == dict.fromkeys(large, "verified")


def test_uncovered_languages_are_those_that_no_identifier_knows(examined: Verified) -> None:
    covered = frozenset().union(*(tool.covers for tool in identifiers()))
    uncovered = {code for code, e in examined.languages.items() if e.status == "uncovered"}
    assert uncovered == {code for code in available() if code.split("-")[0] not in covered}


@pytest.mark.parametrize("code", available())
def test_script_and_direction(code: str) -> None:
    assert script_problems(language(code)) == []


@pytest.mark.parametrize(
    ("text", "script", "wrong"),
    [
        ("Добро, Assistant A је бољи: true.", "Cyrl", ""),
        ("Дoбрo", "Cyrl", "o"),
        ("Ein Schüler, 5 Punkte, ok!", "Latn", ""),
        ("Ein Schüler и", "Latn", "и"),
        ("答えはとてもよいデータです。", "Jpan", ""),
        ("回答 좋다", "Jpan", "좋다"),
        ("답변이 A보다 좋다", "Kore", ""),
        ("उत्तर अच्छा है।", "Deva", ""),
        ("جواب خوب است.", "Arab", ""),
    ],
)
def test_letters_of_another_script_are_found(text: str, script: str, wrong: str) -> None:
    assert foreign_letters(text, script) == wrong


def test_an_unknown_script_is_an_error() -> None:
    with pytest.raises(ValueError, match="unknown script 'Klin'"):
        foreign_letters("a", "Klin")


def test_kept_words_are_taken_out_whole() -> None:
    assert without_kept_words("mR3: Assistant A or Assistant B, true story, Tied") == ": or , story, Tied"


def german(**changes: object) -> Language:
    data = yaml.safe_load((DATA / "de.yaml").read_text(encoding="utf-8"))
    return Language.model_validate({**data, **changes})


def test_direction_and_chinese_forms_are_checked() -> None:
    assert script_problems(german(direction="rtl")) == ["direction: the file says rtl, but Latn is written ltr"]
    mixed = german(script="Hant", forcing="这个回答更好。", identity="mR3：這個回答更好。")
    problems = script_problems(mixed)
    assert "forcing: not Hant: 这个" in problems and not [p for p in problems if p.startswith("identity")]
    assert "identity: not Hans: 這個" in script_problems(mixed.model_copy(update={"script": "Hans"}))


def test_a_missing_label_and_a_copied_text_are_found() -> None:
    assert label_problems(language("de")) == []
    binary = {"instruction": "Entscheide: wahr oder falsch.", "levels": {"true": "Ja, gut.", "false": "Nein."}}
    templates = german().templates.model_dump()
    faulty = german(templates={**templates, "binary": binary})
    assert label_problems(faulty) == ["templates.binary: no text names true", "templates.binary: no text names false"]
    copied = copied_texts([german(), german(code="xx"), language("fr")])
    assert copied.keys() == {"de", "xx"} and "opening: the same text as xx.opening" in copied["de"]
    assert examine(german(), copied["de"], ()).status == "faulty"


def told(text: str, *, all_texts: str) -> dict[str, str]:
    return {"opening": text, ALL_TEXTS: all_texts}


@pytest.mark.parametrize(
    ("code", "answers", "status"),
    [
        ("hr", {"x": told("hr", all_texts="hr"), "y": told("bs", all_texts="hr")}, "verified"),
        ("hr", {"x": told("hr", all_texts="hr"), "y": told("hr", all_texts="bs")}, "twin"),
        ("hr", {"x": told("hr", all_texts="hr"), "y": told("sl", all_texts="hr")}, "contradicted"),
        ("de", {"x": told("de", all_texts="de"), "y": told("nl", all_texts="nl")}, "contradicted"),
        ("zh-Hant", {"x": told("zh", all_texts="zh")}, "verified"),
        ("tlh", {}, "uncovered"),
    ],
)
def test_what_answers_amount_to(code: str, answers: dict[str, dict[str, str]], status: str) -> None:
    assert judged(code, answers) == status


def test_texts_in_another_language_are_contradicted() -> None:
    """A French file filled with German: the fault that the checks are for."""
    assert examine(german(code="fr")).status == "contradicted"
    one_level = german().templates.model_dump()
    one_level["pointwise"] = language("fr").templates.pointwise.model_dump()
    assert examine(german(templates=one_level)).status == "contradicted"


def test_only_identifiers_that_cover_a_language_are_asked() -> None:
    def never(text: str) -> str:
        raise AssertionError(f"was asked about {text}")

    tools = [Identifier("knows", frozenset({"de"}), lambda _: "de"), Identifier("knows-not", frozenset({"fr"}), never)]
    evidence = examine(language("de"), tools=tools)
    assert evidence.status == "verified" and set(evidence.identified) == {"knows"}


def test_the_command_shows_and_checks(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert command.main(["list"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == list(available())
    assert command.main(["show", "pt_BR"]) == 0
    assert "titles.rubric: Critérios de avaliação" in capsys.readouterr().out
    assert command.main(["show", "germn"]) == 2
    assert "did you mean de (German)" in capsys.readouterr().err
    old = verified().model_copy(update={"tools": {}})
    monkeypatch.setattr(command, "verified", lambda: old)
    assert command.main(["check"]) == 1
    shown = capsys.readouterr()
    assert f"{len(available())} languages: " in shown.out and "check --write" in shown.err


def test_the_command_stores_what_it_found(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    target = DATA.__class__(str(tmp_path)) / "verified.json"
    monkeypatch.setattr(command, "VERIFIED_FILE", target)
    assert command.main(["check", "--write"]) == 0
    stored = json.loads(target.read_text(encoding="utf-8"))
    assert list(stored["languages"]) == list(available()) and set(available()) <= set(ALL)
    assert Verified.model_validate(stored) == verified()
