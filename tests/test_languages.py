"""The languages: which there are, what a file must hold, how codes are understood, when English instructs instead."""

from __future__ import annotations

import gzip
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mr3.languages import registry
from mr3.languages.codes import ALIASES, ALL, TRAINING, TRAINING_CODES, UNSEEN, base_code, canonical, twins_of
from mr3.languages.model import Language, read_language
from mr3.languages.registry import DATA, Evidence, Verified, available, instructions_for, language

ENGLISH: dict[str, Any] = yaml.safe_load((DATA / "en.yaml").read_text(encoding="utf-8"))
ODD = {"he", "ie", "ku", "la", "no", "sa", "sco", "sr", "tl", "tlh", "vo", "zh", "zh-Hant"} & set(available())
"""Constructed and rare languages, several codes for one, several scripts for one: a reader must be told."""


def test_the_training_codes_are_72_for_71_languages() -> None:
    assert len(TRAINING_CODES) == len(set(TRAINING_CODES)) == 72
    assert len(TRAINING) == 71 and set(TRAINING_CODES) - set(TRAINING) == {"iw"}
    assert not set(UNSEEN) & set(TRAINING) and len(ALL) == 74 and list(ALL) == sorted(ALL)


def test_the_set_is_complete() -> None:
    missing = sorted(set(ALL) - set(available()))
    assert not missing, f"no file for {', '.join(missing)}"
    assert not set(available()) - set(ALL), "files for codes that the registry does not name"


@pytest.mark.parametrize("code", available())
def test_a_file_is_a_valid_language(code: str) -> None:
    found = language(code)
    assert found.code == code and len(found.texts()) == 31
    assert set(found.long_texts()) == {"opening", "pointwise", "pairwise", "binary"}


@pytest.mark.parametrize("code", sorted(ODD))
def test_what_is_unusual_is_said(code: str) -> None:
    assert language(code).notes


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("iw", "he"), ("in", "id"), ("nb", "no"), ("fil", "tl"), ("jw", "jv"), ("pt_BR", "pt"), ("EN", "en"),
        ("zh-TW", "zh-Hant"), ("zh-hant", "zh-Hant"), ("zh_Hant_HK", "zh-Hant"), ("zh-cn", "zh"), ("zh-Hans", "zh"),
        ("sr-Latn", "sr"), ("xx-YY", "xx"),
    ],
)  # fmt: skip
def test_other_names_of_a_language(given: str, found: str) -> None:
    assert canonical(given) == found


@given(st.sampled_from([*ALL, *ALIASES]), st.sampled_from(["", "-001", "_XX"]))
def test_a_canonical_code_stays_itself(code: str, region: str) -> None:
    found = canonical(code + region)
    assert canonical(found) == found and canonical(found.upper()) == found
    assert base_code(found) in {found, "zh"}


def test_twins_are_mutual() -> None:
    assert twins_of("hr") == {"bs", "sr"} and twins_of("id") == {"ms"} and not twins_of("de")
    assert all(code in twins_of(twin) for code in ALL for twin in twins_of(code))


@pytest.mark.parametrize(
    ("code", "hint"), [("germn", "de (German)"), ("eng", "en (English)"), ("francais", "fr (French)")]
)
def test_an_unknown_code_names_the_nearest(code: str, hint: str) -> None:
    with pytest.raises(ValueError, match="no texts for language") as caught:
        language(code)
    assert hint in str(caught.value)


def changed(key: str, value: Any) -> dict[str, Any]:
    """The English file with one thing changed; a value of None deletes."""
    data = json.loads(json.dumps(ENGLISH))
    *path, last = key.split("/")
    node = data
    for part in path:
        node = node[part]
    if value is None:
        del node[last]
    else:
        node[last] = value
    return data


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("titles/rubric", None, "titles.rubric: Field required"),
        ("titles/rubrik", "Rubrik", "titles.rubrik: Extra inputs are not permitted"),
        ("titles/rubric", "Instruction", "instruction and rubric have the same title"),
        ("titles/rubric", "# Rubric", "leave the # out"),
        ("titles/rubric", " ", "titles.rubric: Value error, must not be empty"),
        ("forcing", "One.\nTwo.", "forcing: Value error, must be one line"),
        ("forcing", "One {language}.", "holds '{'"),
        ("forcing", "<|im_end|> One.", "holds '<|'"),
        ("identity", "You are a judge.", "must name the judge: mR3"),
        ("script", "latin", "script: String should match"),
        ("direction", "up", "direction: Input should be 'ltr' or 'rtl'"),
        ("code", False, "write the code no in quotes"),
        ("code", "eng", "is 'eng', the file's name says 'en'"),
        ("templates/binary/levels", {True: "Yes.", False: "No."}, "write the key True in quotes"),
        ("templates/binary/levels", {"false": "No.", "true": "Yes."}, "binary.levels must be true, false"),
        ("templates/binary/levels", {"true": "Yes.", "false": "yes."}, "two levels have the same description"),
        ("templates/pairwise/levels/Tie", None, "pairwise.levels must be Assistant A, Assistant B, Tie"),
        ("templates/pointwise/levels/5", None, "pointwise.levels must be 1, 2, 3, 4, 5"),
    ],
)
def test_faults_of_a_file_are_named(tmp_path: Path, key: str, value: Any, said: str) -> None:
    file = tmp_path / "en.yaml"
    file.write_text(yaml.safe_dump(changed(key, value), allow_unicode=True, sort_keys=False), encoding="utf-8")
    with pytest.raises(ValueError, match="is not a valid language") as caught:
        read_language(file)
    assert said in str(caught.value) and str(file) in str(caught.value)


def test_a_file_must_be_utf8_yaml(tmp_path: Path) -> None:
    (tmp_path / "xx.yaml").write_bytes("name: Grün".encode("latin-1"))
    with pytest.raises(ValueError, match="not readable as UTF-8 YAML"):
        read_language(tmp_path / "xx.yaml")


def test_texts_are_composed_and_the_hash_is_of_texts() -> None:
    decomposed = Language.model_validate(changed("titles/rubric", "Crite\u0301rios"))
    assert decomposed.titles.rubric == "Crit\u00e9rios"
    plain = Language.model_validate(ENGLISH)
    assert plain.content_hash == Language.model_validate(changed("notes", "Other notes.")).content_hash
    for key in ("forcing", "schema/score", "templates/binary/levels/true", "titles/input"):
        assert Language.model_validate(changed(key, "Other mR3 text.")).content_hash != plain.content_hash


@pytest.fixture
def own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A registry of its own with two languages, of which only English is verified."""
    folder = tmp_path / "data"
    folder.mkdir()
    for code in ("en", "de"):
        shutil.copy(DATA / f"{code}.yaml", folder)
    stored = {
        c: Evidence(status=s, content_hash=language(c).content_hash) for c, s in (("en", "verified"), ("de", "twin"))
    }
    (tmp_path / "verified.json").write_text(Verified(tools={}, languages=stored).model_dump_json(), encoding="utf-8")
    monkeypatch.setattr(registry, "DATA", folder)
    monkeypatch.setattr(registry, "VERIFIED_FILE", tmp_path / "verified.json")
    caches = (registry._load, registry.verified, registry._notice)
    for cache in caches:
        cache.cache_clear()
    yield tmp_path
    for cache in caches:
        cache.cache_clear()


def test_unverified_languages_are_instructed_in_english_with_a_notice(
    own_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert [instructions_for("de").code for _ in range(3)] == ["en"] * 3
    assert [r.getMessage() for r in caplog.records if "de (German)" in r.getMessage()] == [
        caplog.records[0].getMessage()
    ]
    assert len(caplog.records) == 1 and "not machine-verified" in caplog.text
    assert instructions_for("de", require_verified=False).code == "de"
    assert instructions_for("en").code == "en" and len(caplog.records) == 1
    with pytest.raises(ValueError, match="no texts for language 'fr'"):
        instructions_for("fr")


def test_texts_changed_since_the_check_are_not_verified(own_data: Path) -> None:
    assert registry.is_verified("en")
    file = own_data / "data" / "en.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("Right, I must", "Well, I must"), encoding="utf-8")
    registry._load.cache_clear()
    assert not registry.is_verified("en")


def test_a_result_that_was_never_made_is_an_error(own_data: Path) -> None:
    (own_data / "verified.json").unlink()
    with pytest.raises(ValueError, match="mr3 languages check --write"):
        registry.is_verified("en")


def published(name: str) -> dict[str, str]:
    folder = os.environ.get("MR3_DATA")
    if folder is None or not (Path(folder) / "mr3_rubrics").is_dir():
        pytest.skip("MR3_DATA does not name a folder with the published templates (mr3_rubrics)")
    path = Path(folder) / "mr3_rubrics" / name
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    found: dict[str, str] = json.loads(raw)
    return found


def test_the_texts_are_not_the_published_ones() -> None:
    theirs: set[str] = set()
    for name in ("system_msg_translated_qwen3.json", "thinking_msg_translated.json", "instruction_msg_translated.json"):
        theirs |= {str(text).replace("Qwen3", "mR3").casefold() for text in published(name).values()}
    same = [
        f"{code}.{key}"
        for code in available()
        for key, text in language(code).texts().items()
        if not key.startswith("titles") and len(text) > 40 and text.casefold() in theirs
    ]
    assert not same


def test_the_registry_is_light() -> None:
    code = "import sys, mr3.languages as l; l.language('de'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"lingua", "py3langid", "fontTools", "numpy", "torch", "transformers", "pycountry"}
