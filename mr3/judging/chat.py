"""From rendered messages to the prompt text that a judge continues: chat template, then the assistant prefix.

Qwen3's rule: render with `add_generation_prompt` and `enable_thinking`, and append `<think>` if the result lacks it.
Some templates already end with `<think>` or `<think>\\n`; then only what follows `<think>` in the prefix (a forced
first sentence) is appended, behind the template's own ending, newline included. Nothing is stripped: the prompt must
be token for token the one of training, which renders the same messages with the same template.

Rendering has made known forms of chat tokens inert; what else the tokenizer takes for a special one is made so here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from mr3.prompts import Rendered
from mr3.prompts.rendered import neutralise_own, own_tokens

_OPEN = "<think>"
_SYSTEM, _USER = "\x02system probe\x03", "\x02user probe\x03"
_CACHED_PREFIXES, _CACHED_CHARS = 1_024, 32_768
_CHARS_PER_TOKEN = 8
# A template that trims, escapes or rewrites contents does so to this one.
_ODD = ("  \n a <b> & {{c}} é\u3000\n\n", "\n<tool_response>x</tool_response> \\n 'q' \n ")


def _apply(tokenizer: Any, system: str, user: str) -> str:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    text: str = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, enable_thinking=True
    )
    return text


def with_prefix(text: str, prefix: str) -> str:
    """The template's output followed by the assistant prefix, `<think>` being said once."""
    if text.rstrip().endswith(_OPEN):
        return text + prefix.removeprefix(_OPEN)
    return text + prefix


def least_tokens(encode: Callable[[str], Sequence[int]], text: str, most: int) -> int | None:
    """Tokens of a long text's beginning, where that alone is far over `most`; None where the whole must be counted.

    Megabytes that no judge could read cost seconds and a gigabyte to tokenise. Twice the limit is asked of the
    beginning, because where it is cut its last word has other tokens than in the whole.
    """
    end = _CHARS_PER_TOKEN * most
    while end < len(text):
        tokens = len(encode(text[:end]))
        if tokens > 2 * most:
            return tokens
        end *= 2
    return None


class ChatPrompt:
    """Renders one tokenizer's template, as string concatenation where that is provably the same."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder.values()
        self._own = own_tokens({token.content for token in added if token.special})
        self._parts = self._split()
        self._boundary = self._find_boundary()
        self._prefix_ids: OrderedDict[str, list[int]] = OrderedDict()

    def _split(self) -> tuple[str, str, str] | None:
        """The template's text around system and user content, or None when it looks into the contents."""
        whole = _apply(self._tokenizer, _SYSTEM, _USER)
        if whole.count(_SYSTEM) != 1 or whole.count(_USER) != 1 or whole.index(_SYSTEM) > whole.index(_USER):
            return None
        head, rest = whole.split(_SYSTEM)
        middle, tail = rest.split(_USER)
        system, user = _ODD
        if _apply(self._tokenizer, system, user) != head + system + middle + user + tail:
            return None
        return head, middle, tail

    def text(self, rendered: Rendered) -> str:
        """The whole prompt of one rendered task."""
        system, user = (neutralise_own(text, self._own) for text in (rendered.system, rendered.user))
        if self._parts is None:
            whole = _apply(self._tokenizer, system, user)
        else:
            head, middle, tail = self._parts
            whole = f"{head}{system}{middle}{user}{tail}"
        return with_prefix(whole, rendered.assistant_prefix)

    def _find_boundary(self) -> str | None:
        """The added token that ends the system message. Text is cut at added tokens before it is tokenised, so the ids
        of what stands before and behind one are the ids of the whole, unless the token swallows blanks."""
        if self._parts is None:
            return None
        for token in self._tokenizer.added_tokens_decoder.values():
            plain = not (token.lstrip or token.rstrip or token.single_word or token.normalized)
            if plain and self._parts[1].startswith(token.content):
                content: str = token.content
                return content
        return None

    def ids(self, prompts: Sequence[str]) -> list[list[int]]:
        """Token ids of whole prompts; system messages that many tasks share are tokenised once."""
        if self._boundary is None or any(self._boundary not in p for p in prompts):
            return self._encode(prompts)  # also prompts that another writer laid out (harmony)
        cuts = [p.index(self._boundary) + len(self._boundary) for p in prompts]
        prefixes = [p[:cut] for p, cut in zip(prompts, cuts, strict=True)]
        known = {p: self._prefix_ids[p] for p in dict.fromkeys(prefixes) if p in self._prefix_ids}
        unknown = [p for p in dict.fromkeys(prefixes) if p not in known]
        found = self._encode([*unknown, *(p[cut:] for p, cut in zip(prompts, cuts, strict=True))])
        fresh = dict(zip(unknown, found, strict=False))
        self._prefix_ids.update((p, ids) for p, ids in fresh.items() if len(p) <= _CACHED_CHARS)
        while len(self._prefix_ids) > _CACHED_PREFIXES:
            self._prefix_ids.popitem(last=False)
        known |= fresh
        return [known[prefix] + rest for prefix, rest in zip(prefixes, found[len(unknown) :], strict=True)]

    def at_least(self, prompt: str, most: int) -> int | None:
        """As `least_tokens`, of a whole prompt."""
        return least_tokens(lambda text: self._encode([text])[0], prompt, most)

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        found: list[list[int]] = self._tokenizer(
            list(texts), add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False
        )["input_ids"]
        return found
