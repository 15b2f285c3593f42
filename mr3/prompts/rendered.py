"""What rendering gives, and how text that is data is kept from posing as markup."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from functools import cache

from pydantic import BaseModel, ConfigDict

# Characters that show nothing, and that tokenizers or readers may drop: what they split is read as if it were whole.
_HIDDEN = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e01ef"
)
_LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_TAGS = (
    "think", "thinking", "tool_call", "tool_response", "tool_calls", "tool_responses", "s", "bos", "eos", "pad", "unk",
    "mask", "cls", "sep", "start_of_turn", "end_of_turn", "start_of_image", "end_of_image", "start_of_role",
    "end_of_role", "end_of_text",
)  # fmt: skip
_BRACKETED = (
    "INST", "SYS", "SYSTEM_PROMPT", "AVAILABLE_TOOLS", "TOOL_CALLS", "TOOL_RESULTS", "TOOL_CONTENT", "THINK", "gMASK",
    "CLS", "SEP", "PAD", "UNK", "MASK",
)  # fmt: skip
_ROLES = ("user", "assistant", "system", "tool")


class Rendered(BaseModel):
    """What goes to the chat template, and what the assistant's turn is made to begin with."""

    model_config = ConfigDict(frozen=True)

    system: str
    user: str
    assistant_prefix: str = "<think>"

    @property
    def messages(self) -> list[dict[str, str]]:
        """System and user turn."""
        return [{"role": "system", "content": self.system}, {"role": "user", "content": self.user}]


@cache
def _folded() -> dict[int, str]:
    """Characters that compatibility folding (NFKC) reads as one ASCII character: full-width forms and the like."""
    found = {}
    for code in (*range(0x80, 0xD800), *range(0xE000, 0x20000)):
        form = unicodedata.normalize("NFKC", chr(code))
        if len(form) == 1 and "!" <= form <= "~":
            found[code] = form
    return found


def _special(gap: str) -> re.Pattern[str]:
    """Tokens of chat templates, with `gap` allowed within; the longest words first."""

    def words(known: Collection[str]) -> str:
        spelled = "|".join(gap.join(map(re.escape, word)) for word in sorted(known, key=len, reverse=True))
        return f"(?:/{gap})?(?:{spelled}){gap}"

    return re.compile(
        rf"<{gap}(?:\|(?P<bar>[^\s<>|]{{1,60}}?)\|{gap}>|(?P<tag>{words(_TAGS)}/?){gap}>"
        rf"|<{gap}(?P<sys>{words(['SYS'])})>{gap}>)"
        rf"|\[{gap}(?P<bracket>{words(_BRACKETED)})\]"
    )


_GAP = f"[{_HIDDEN}]*"
_SPECIAL, _SPECIAL_ASCII = _special(_GAP), _special("")
_TURN = re.compile(
    rf"<{_GAP}(?P<tag>(?:/{_GAP})?(?:{'|'.join(_GAP.join(role) for role in _ROLES)}){_GAP})>", re.IGNORECASE
)
_BLANKS = rf"(?:[^\S{_LINE_ENDS}]|[{_HIDDEN}])*"
_HEADING = re.compile(rf"(?:^|(?<=[{_LINE_ENDS}])){_BLANKS}(?P<mark>#)(?=[\s{_HIDDEN}])")


def _shown(match: re.Match[str], text: str) -> str:
    """What stands in the prompt for a token that was found in the folded form of a text."""
    group = match.lastgroup
    assert group is not None, "each branch names what is inside the brackets"
    inside = text[match.start(group) : match.end(group)]
    if group == "sys":
        return f"<<¦{inside}¦>>"
    return f"[¦{inside}¦]" if group == "bracket" else f"<¦{inside}¦>"


def _replaced(pattern: re.Pattern[str], text: str) -> str:
    """Matches in the folded form of a text, each made inert. Folding keeps places, so all else comes back unchanged."""
    folded = text if text.isascii() else text.translate(_folded())
    parts, end = [], 0
    for match in pattern.finditer(folded):
        parts += [text[end : match.start()], _shown(match, text)]
        end = match.end()
    return "".join([*parts, text[end:]]) if parts else text


_OPENERS = re.compile(r"[<\[＜﹤［﹇]")
# No writing needs so many in a row (a flag of a region has six): they carry words to models that people don't see, or
# only noise.
_SMUGGLED = re.compile(rf"[{_HIDDEN}]{{8,}}")


def neutralise(text: str) -> str:
    """Make chat-template tokens inside data inert, visibly: `<|im_end|>` becomes `<¦im_end¦>`.

    Covers what the templates of common models are made of: `<|...|>`, think and tool tags, `<s>`, `<start_of_turn>`,
    `[INST]`, `<<SYS>>` and their like, also in full-width or other compatibility forms, and split by characters that
    show nothing. Eight and more of such characters in a row are left out: nobody but a model would read them. All other
    text comes back unchanged, what looks like a neutralised token included: it is no token.
    """
    if not text.isascii():
        text = _SMUGGLED.sub("", text)
    if not _OPENERS.search(text):
        return text
    return _replaced(_SPECIAL_ASCII if text.isascii() else _SPECIAL, text)


def neutralise_turn(text: str) -> str:
    """As `neutralise`, for one turn of a conversation: nor can it close its own turn (`</user>`) or open another."""
    text = neutralise(text)
    return _replaced(_TURN, text) if _OPENERS.search(text) else text


def neutralise_own(text: str, tokens: re.Pattern[str] | None) -> str:
    """Make one tokenizer's own special tokens inert in text that holds data (`own_tokens` makes the pattern)."""
    if tokens is None:
        return text
    return tokens.sub(lambda m: f"{m[0][0]}¦{m[0][1:-1]}¦{m[0][-1]}", text)


def own_tokens(tokenizer_tokens: Collection[str]) -> re.Pattern[str] | None:
    """A pattern of those of a tokenizer's special tokens that `neutralise` does not know by their form."""
    own = [token for token in tokenizer_tokens if len(token) > 1 and neutralise(token) == token]
    return re.compile("|".join(map(re.escape, sorted(own, key=len, reverse=True)))) if own else None


def without_headings(text: str) -> str:
    r"""Lines that look like a prompt's own headings, escaped: `# Input` becomes `\# Input`.

    A line may begin behind any line end that a reader of the prompt may take for one, and behind blanks or characters
    that show nothing; the mark may be a full-width one.
    """
    if "#" not in text and "＃" not in text and "﹟" not in text:
        return text
    folded = text if text.isascii() else text.translate(_folded())
    parts, end = [], 0
    for match in _HEADING.finditer(folded):
        at = match.start("mark")
        parts += [text[end:at], "\\"]
        end = at
    return "".join([*parts, text[end:]]) if parts else text
