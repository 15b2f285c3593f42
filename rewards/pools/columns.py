"""`columns:` of a pool's source: which of its columns is what.

An expression is
    question            a column
    a.b  a.0.text  c.-1.content     a field of a struct, an element of a list (negative: from the end)
    =en                 the constant text after the equals sign
    json:turns.0        a column that holds JSON text, decoded, and what stands at a path in it
    $.model             inside `each`: a column of the row instead of a field of the element
What is absent or null counts as not given.

    prompt: question                        a text, or a list of messages
    system: system_prompt                   put before the prompt as a system message where it is not empty
    responses: [{text: answer_a, policy: model_a}, {text: answer_b, policy: model_b}]
    responses: [chosen, rejected]           the same, with the columns' names as policies
    responses: {each: completions, text: response, policy: model}
    responses: answers                      a list of texts (or of conversations), with
    policy: models                          one policy for all of them, or a list of as many
    prompt_id, language, reference: an expression; meta: an expression for a mapping, or {name: expression}

A response may be a whole conversation (chosen and rejected of many preference sets): its last assistant turn is the
response, and what stands before it is the prompt; `prompt` may then be left out. A conversation of one user turn is
an ordinary text prompt. Without `prompt_id` the id is a hash of the content, the same in every run. A language may be
a code or an English name; anything else (HelpSteer3 gives programming languages) is told by the text instead.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from mr3.rows import BadRow, parse_json
from rewards.pools.messages import Unreadable

_CONSTANT, _JSON, _ROW = "=", "json:", "$."


def _checked(expression: str) -> str:
    path = expression.removeprefix(_ROW).removeprefix(_JSON)
    if not expression.startswith(_CONSTANT) and "" in path.split("."):
        raise ValueError(f"{expression!r} is no expression: write a column, a.b, a.0, json:column or =constant")
    return expression


Expression = Annotated[str, AfterValidator(_checked)]


class ResponseColumns(BaseModel):
    """One response of a row."""

    model_config = ConfigDict(extra="forbid")

    text: Expression = Field(description="its text, or the conversation that it ends")
    policy: Expression | None = Field(None, description="who wrote it; unset: the name of the text's column")
    id: Expression | None = Field(None, description="its id, unique in the pool; unset: made of the prompt's id")


class EachResponse(ResponseColumns):
    """One response per element of a list."""

    each: Expression = Field(description="the list; the other expressions are about its elements")


class Columns(BaseModel):
    """A source's names for the columns of a pool; the values are expressions (see the module)."""

    model_config = ConfigDict(extra="forbid")

    responses: Expression | list[Expression | ResponseColumns] | EachResponse
    prompt: Expression | None = None
    system: Expression | None = None
    policy: Expression | None = Field(None, description="with `responses` as one expression: who wrote them")
    prompt_id: Expression | None = None
    language: Expression | None = None
    reference: Expression | None = None
    meta: Expression | dict[str, Expression] | None = None

    @model_validator(mode="after")
    def _policy_has_its_place(self) -> Columns:
        if isinstance(self.responses, str) and self.policy is None:
            raise ValueError("say who wrote the responses: policy: COLUMN, or a constant such as policy: '=unknown'")
        if not isinstance(self.responses, str) and self.policy is not None:
            raise ValueError("policy belongs into the entries of responses here")
        return self

    def names(self) -> set[str]:
        """The source's columns that are read."""
        given = [self.prompt, self.system, self.policy, self.prompt_id, self.language, self.reference]
        given += self.meta.values() if isinstance(self.meta, dict) else [self.meta]
        if isinstance(self.responses, str):
            given.append(self.responses)
        elif isinstance(self.responses, EachResponse):
            inner = (self.responses.text, self.responses.policy, self.responses.id)
            given += [self.responses.each, *(e for e in inner if e and e.startswith(_ROW))]
        else:
            for entry in self.responses:
                given += [entry] if isinstance(entry, str) else [entry.text, entry.policy, entry.id]
        return {column_of(e) for e in given if e and not e.startswith(_CONSTANT)}


def column_of(expression: str) -> str:
    """The column that an expression begins with."""
    return expression.removeprefix(_ROW).removeprefix(_JSON).split(".")[0]


def lookup(value: Any, path: str) -> Any:
    """What stands at a dotted path; None where nothing does. A column whose own name has dots is found too."""
    if isinstance(value, dict) and path in value:
        return value[path]
    head, dot, rest = path.partition(".")
    if isinstance(value, dict):
        found = value.get(head)
    elif isinstance(value, list) and head.lstrip("-").isdigit() and -len(value) <= int(head) < len(value):
        found = value[int(head)]
    else:
        return None
    return lookup(found, rest) if dot else found


def evaluate(expression: str | None, element: Any, row: Any) -> Any:
    """The value of an expression about `element`, which is the row itself outside of `each`; None without one.

    Raises:
        Unreadable: when a column that must hold JSON text does not.
    """
    if expression is None:
        return None
    if expression.startswith(_CONSTANT):
        return expression[len(_CONSTANT) :]
    if expression.startswith(_ROW):
        return evaluate(expression[len(_ROW) :], row, row)
    if not expression.startswith(_JSON):
        return lookup(element, expression)
    head, dot, rest = expression[len(_JSON) :].partition(".")
    text = lookup(element, head)
    if text is None or text == "":
        return None
    if not isinstance(text, str):
        raise Unreadable(f"{head} holds no JSON text but {type(text).__name__}")
    try:
        found = parse_json(text)
    except BadRow as error:
        raise Unreadable(f"{head} holds no JSON text: {error}") from error
    return lookup(found, rest) if dot else found
