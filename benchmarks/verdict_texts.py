"""Verdicts as judges would write them, put together by hand: sentences, label sets, and a writer for each format.

Nothing here reads anything back: what a text says is known because it was written so.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

SENTENCES = (
    "The first answer is right and brief.",
    "Die zweite Antwort ist höflich, aber falsch.",
    "La respuesta es correcta y está completa.",
    "Cette réponse oublie la question.",
    "Ответ верен, но слишком длинный.",
    "الإجابة الأولى صحيحة ومهذبة.",
    "התשובה נכונה אך ארוכה מדי.",
    "उत्तर सही है पर अधूरा है।",
    "উত্তরটি সঠিক।",
    "答えは正しく、簡潔である。",
    "답변이 정확하고 친절하다.",
    "回答正确，但语气生硬。",
    "คำตอบถูกต้องและสุภาพ",
    "Câu trả lời đúng và ngắn gọn.",
    "Jibu ni sahihi na fupi.",
    "Yanıt doğru ama kaba.",
    "Η απάντηση είναι σωστή.",
    "Odpowiedź jest poprawna \\ zwięzła, 3 < 4 i 5 > 2.",
    "It says “yes” on line 2:\n- fine\n- but 8/10 at most 🙂",
)
# score and explanation as a judge that thinks in the language would call them
TRANSLATED_KEYS = (
    ("Punktzahl", "Begründung"),
    ("puntuación", "explicación"),
    ("note", "explication"),
    ("pontuação", "explicação"),
    ("punteggio", "spiegazione"),
    ("beoordeling", "toelichting"),
    ("ocena", "uzasadnienie"),
    ("оценка", "объяснение"),
    ("оцінка", "пояснення"),
    ("puan", "açıklama"),
    ("الدرجة", "الشرح"),
    ("ציון", "הסבר"),
    ("امتیاز", "توضیح"),
    ("अंक", "व्याख्या"),
    ("স্কোর", "ব্যাখ্যা"),
    ("คะแนน", "คำอธิบาย"),
    ("điểm", "giải thích"),
    ("skor", "penjelasan"),
    ("スコア", "説明"),
    ("점수", "설명"),
    ("评分", "解释"),
    ("評分", "解釋"),
    ("alama", "maelezo"),
    ("βαθμολογία", "εξήγηση"),
    ("మార్కులు", "వివరణ"),
    ("ქულა", "განმარტება"),
    ("ነጥብ", "ማብራሪያ"),
)
DIGITS = (
    "０１２３４５６７８９",
    "٠١٢٣٤٥٦٧٨٩",
    "۰۱۲۳۴۵۶۷۸۹",
    "०१२३४५६७८९",
    "০১২৩৪৫৬৭৮৯",
    "๐๑๒๓๔๕๖๗๘๙",
    "၀၁၂၃၄၅၆၇၈၉",
    "០១២៣៤៥៦៧៨៩",
)
END_OF_TURN = ("<|im_end|>", "<|im_end|>\n", "<|endoftext|>", "<|eot_id|>", "</s>")


def numbers(last: int) -> tuple[str, ...]:
    """The scale from 1."""
    return tuple(str(i) for i in range(1, last + 1))


def orders(letters: str) -> tuple[str, ...]:
    """All orders of some responses."""
    if len(letters) == 1:
        return (letters,)
    return tuple(f"{c} > {rest}" for c in letters for rest in orders(letters.replace(c, "")))


PAIR = ("Assistant A", "Assistant B")
LABELS: dict[str, tuple[str, ...]] = {
    "pair": PAIR,
    "tie": (*PAIR, "Tie"),
    "arena": (*PAIR, "Tie", "Both Bad"),
    "responses": ("Response 1", "Response 2"),
    "scale5": numbers(5),
    "scale6": numbers(6),
    "scale7": numbers(7),
    "scale10": numbers(10),
    "binary": ("true", "false"),
    "choice": tuple("ABCD"),
    "order2": orders("AB"),
    "order3": orders("ABC"),
    "order5": orders("ABCDE"),
}


def literal(text: str, lot: random.Random | None = None) -> str:
    """A JSON string, written by hand; with `lot`, every character may be spelled as an escape."""
    short = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}
    out = []
    for c in text:
        if ord(c) <= 0xFFFF and ((ord(c) < 32 and c not in short) or (lot is not None and lot.random() < 0.3)):
            out.append(f"\\u{ord(c):04{'x' if lot is None else lot.choice('xX')}}")
        else:
            out.append(short.get(c, c))
    return f'"{"".join(out)}"'


def sentence(lot: random.Random) -> str:
    """One to three sentences, of one or several languages."""
    return " ".join(lot.choice(SENTENCES) for _ in range(lot.randint(1, 3)))


@dataclass(frozen=True)
class Writer:
    """How judges of one format write: `native` is what they write for a label, `block` the closed end of a text."""

    name: str
    label_sets: tuple[str, ...]
    native: Callable[[str, tuple[str, ...]], str]
    block: Callable[[str, random.Random], tuple[str, str]]
    thinks: tuple[bool, ...] = (True, False)
    opens: tuple[str, ...] = field(default=("<think>",))

    def lead(self, lot: random.Random, inside: str) -> str:
        """What comes before the block: a trace that holds `inside`, and its end; formats without tags write nothing."""
        if not lot.choice(self.thinks):
            return ""
        return f"{lot.choice(self.opens)}\n{sentence(lot)} {inside} {sentence(lot)}\n</think>\n\n"


def _same(label: str, labels: tuple[str, ...]) -> str:
    return label


def _letter(label: str, labels: tuple[str, ...]) -> str:
    return {"Assistant A": "A", "Assistant B": "B", "Response 1": "A", "Response 2": "B"}.get(label, label)


def _ranking(label: str, labels: tuple[str, ...]) -> str:
    """1-6 for a pair; the reading of HelpSteer3's 1-7 has no middle. Chosen here, not looked up in the parser."""
    if len(labels) == 7:
        return {"1": "1", "2": "2", "3": "3", "5": "4", "6": "5", "7": "6"}[label]
    return {"Assistant A": "3", "Assistant B": "4", "Response 1": "1", "Response 2": "6"}.get(label, label)


def _json_block(value: str, lot: random.Random) -> tuple[str, str]:
    return f'{{"explanation": {literal(sentence(lot))}, "score": "', '"}'


def _rm_r1_block(value: str, lot: random.Random) -> tuple[str, str]:
    return f"<type>Chat</type>\n<eval>{sentence(lot)}</eval>\n<answer>[[", "]]</answer>"


def _prometheus_block(value: str, lot: random.Random) -> tuple[str, str]:
    return f"{lot.choice(['Feedback: ', ''])}{sentence(lot)} [RESULT] ", ""


def _genrm_pair(value: str, lot: random.Random) -> tuple[str, str]:
    scores = f"[The Begin of Individual Scores]\n\\boxed{{{lot.randint(1, 5)}, {lot.randint(1, 5)}}}\n"
    head = f"[The Begin of Analysis on Response 1]\n{sentence(lot)}\n[The End of Analysis on Response 1]\n{scores}"
    begin = "[The End of Individual Scores]\n\n[The Begin of Ranking Score]\n\\boxed{"
    return f"{head}{begin}", "}\n[The End of Ranking Score]"


def _genrm_single(value: str, lot: random.Random) -> tuple[str, str]:
    return f"{sentence(lot)}\n[The Begin of Individual Scores]\n\\boxed{{", "} \n[The End of Individual Scores]"


WRITERS = (
    Writer("mr3", tuple(LABELS), _same, _json_block, thinks=(True,), opens=("", "<think>")),
    Writer("r3", ("scale5", "binary", "responses", "pair"), _same, _json_block, opens=("", "<think>")),
    Writer("rm-r1", ("pair", "responses"), _letter, _rm_r1_block),
    Writer("prometheus", ("scale5", "pair", "responses"), _letter, _prometheus_block),
    Writer("nemotron-genrm", ("pair", "responses", "scale6", "scale7"), _ranking, _genrm_pair),
    Writer("nemotron-genrm", ("scale5",), _same, _genrm_single),
)
