"""Traces in the task's language by translation: pieces of a trace one by one, then the explanation, then put together.

Words that the judge must write as they are (labels, headings) are checked in every piece: a piece that lost one, came
back empty or cut off, or failed, makes the whole row's translation fail with that reason. Nothing is patched up.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from mr3.factory.config import TRANSLATED, Translator
from mr3.factory.rows import SEPARATOR, read_head, told
from mr3.hub import open_tokenizer
from mr3.inference.engine import Completion, Request
from mr3.inference.generate_worker import GenerateWorker
from mr3.inference.identity import tokenizer_revision
from mr3.languages import ALL, canonical, language
from mr3.records import stable_hash

_SENTENCE = re.compile(r"(?<=[.!?。！？])\s+")
_PROMPT = """Translate the text below into {language}. Keep its tone, structure, \
line breaks and length. Leave these words exactly as they are: {keep}. Write the translation and nothing else.

{text}"""


def chunks(text: str, most: int) -> list[tuple[str, str]]:
    """Pieces of at most `most` characters and what stood behind each; joined they are the text.

    Cut between lines where that is enough, else between sentences, else anywhere.
    """
    pieces: list[tuple[str, str]] = []
    for line in re.split(r"(?<=\n)", text):
        body = line.rstrip("\n")
        pieces += _sentences(body, line[len(body) :], most)
    joined: list[tuple[str, str]] = []
    for body, behind in pieces:
        if joined and len(joined[-1][0]) + len(joined[-1][1]) + len(body) <= most:
            before, between = joined.pop()
            joined.append((before + between + body, behind))
        else:
            joined.append((body, behind))
    return [(body, behind) for body, behind in joined if body or behind]


def _sentences(line: str, behind: str, most: int) -> list[tuple[str, str]]:
    if len(line) <= most:
        return [(line, behind)]
    cuts = [0, *(m.end() for m in _SENTENCE.finditer(line)), len(line)]
    found: list[tuple[str, str]] = []
    for begin, end in pairwise(cuts):
        found += [(line[i : min(i + most, end)], "") for i in range(begin, end, most)]
    return [*found[:-1], (found[-1][0], behind)] if found else [("", behind)]


def language_name(code: str) -> str:
    """The language's English name, which models know better than its code; the code of a language unknown here."""
    known = canonical(code)
    return language(known).name if known in ALL else code


def lost_words(source: str, translation: str, keep: Sequence[str]) -> list[str]:
    """Words to keep that the source has and the translation has not, as often."""
    return [w for w in keep if _count(w, translation) < _count(w, source)]


def _count(word: str, text: str) -> int:
    # Not between word boundaries: a translation may put them beside letters of a script without blanks.
    return (
        text.count(word)
        if not word.isascii()
        else len(re.findall(rf"(?<![A-Za-z]){re.escape(word)}(?![A-Za-z])", text))
    )


def piece_reason(source: str, completion: Completion, keep: Sequence[str]) -> str | None:
    """None for a piece that is translated, else why it is not."""
    if completion.finish != "stop":
        return {"length": "truncated"}.get(completion.finish, completion.finish)
    if not completion.text.strip():
        return "empty"
    return "lost_word" if lost_words(source, completion.text, keep) else None


class TranslateWorker:
    """Payload: a row and its verdicts. Becomes the same, a separator, and `{"trace", "explanation", "reason"}`."""

    def __init__(
        self, translator: dict[str, Any], model_key: str, store: str, seed: int, run: str | None = None
    ) -> None:
        self._settings = settings = Translator.model_validate(translator)
        self._seed = seed
        self._tokenizer = open_tokenizer(settings.model, tokenizer_revision(settings.backend, settings.revision))
        self._inner = GenerateWorker(settings.engine_config(), model_key, store, run)

    def _request(self, code: str, text: str) -> dict[str, Any]:
        asked = _PROMPT.format(language=language_name(code), keep=", ".join(self._settings.keep), text=text)
        prompt: str = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": asked}], tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        identity = stable_hash("translate", code, text)
        sampling = self._settings.sampling.model_copy(update={"seed": int(stable_hash(self._seed, identity)[:7], 16)})
        return Request(id=identity, prompt=prompt, sampling=sampling).model_dump(mode="json")

    def _pieces(self, payload: str) -> tuple[str, list[tuple[str, str]]]:
        code, verdict = read_head(payload)["language"], told(payload)[0][TRANSLATED][0]
        if verdict["trace"] is None or verdict["explanation"] is None:
            return code, []
        return code, [*chunks(verdict["trace"], self._settings.chunk_chars), (verdict["explanation"], "")]

    async def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One batch of rows. English rows are their own translation."""
        pieces = [self._pieces(payload) for payload in batch["payload"]]
        requests = [
            [] if code == "en" else [self._request(code, text) for text, _ in found if text.strip()]
            for code, found in pieces
        ]
        asked = {"group": batch["group"], "payload": [json.dumps({"requests": r}) for r in requests]}
        answers = await self._inner(asked)
        payloads = []
        for payload, (code, found), answer in zip(batch["payload"], pieces, answers["payload"], strict=True):
            completions = [Completion.model_validate(c) for c in json.loads(answer)["completions"]]
            made = assemble(found, None if code == "en" else completions, self._settings.keep)
            payloads.append(payload + SEPARATOR + json.dumps(made, ensure_ascii=False))
        return {"group": batch["group"], "payload": np.array(payloads, dtype=object)}


def assemble(
    pieces: Sequence[tuple[str, str]], completions: Sequence[Completion] | None, keep: Sequence[str]
) -> dict[str, str | None]:
    """Trace and explanation from their pieces, or the reason why there is none.

    Args:
        pieces: (text, what stood behind it); the last is the explanation.
        completions: one for each piece that has text; None leaves the pieces as they are.
    """
    if not pieces:
        return {"trace": None, "explanation": None, "reason": "no_trace"}
    made, left = [], iter(completions or ())
    for text, behind in pieces:
        if completions is None or not text.strip():
            made.append(text + behind)
            continue
        completion = next(left)
        reason = piece_reason(text, completion, keep)
        if reason is not None:
            return {"trace": None, "explanation": None, "reason": reason}
        made.append(completion.text.strip() + behind)
    return {"trace": "".join(made[:-1]), "explanation": made[-1], "reason": None}
