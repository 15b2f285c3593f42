"""What a key of the answer means: `score` and `explanation`, also where a judge translated them although it should not.

The words are those that a JSON answer in the language would use for a mark and for the reasons behind it. A key that
only looks like one of the English two (other alphabets' letters, hidden characters) means neither and is refused.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Any

from mr3.parsing.parsed import Ambiguous
from mr3.parsing.plain import BLANKS, MARKS

# language: words for score | words for explanation
_TRANSLATED = """
af: telling, punt, punttelling | verduideliking
am: ነጥብ, ውጤት | ማብራሪያ
ar: الدرجة, درجة, النتيجة, التقييم | الشرح, شرح, التفسير, تفسير, التوضيح
as: স্ক'ৰ, নম্বৰ | ব্যাখ্যা
az: bal, xal | izahat, izah
be: адзнака, ацэнка, бал | тлумачэнне, тлумачэньне
bg: оценка, резултат, точки | обяснение
bn: স্কোর, নম্বর | ব্যাখ্যা
bs: ocjena, rezultat | objašnjenje, obrazloženje
ca: puntuació, qualificació | explicació
cs: skóre, hodnocení, známka | vysvětlení, zdůvodnění
cy: sgôr | esboniad
da: karakter | forklaring, begrundelse
de: bewertung, punktzahl, wertung, punkte | erklärung, begründung, erläuterung
el: βαθμολογία, βαθμός | εξήγηση, επεξήγηση
es: puntuación, puntaje, calificación | explicación
et: skoor, hinne, punktid | selgitus, põhjendus
eu: puntuazioa, puntuazio | azalpena, azalpen
fa: امتیاز, نمره | توضیح, شرح, توضیحات
fi: pisteet, pistemäärä, arvosana | selitys, perustelu
fr: note, évaluation, notation | explication
ga: scór | míniú
gl: puntuación, puntaxe | explicación
gu: સ્કોર, ગુણ | સમજૂતી
ha: maki | bayani
he: ציון, ניקוד | הסבר
hi: स्कोर, अंक | व्याख्या, स्पष्टीकरण
hr: ocjena, rezultat, bodovi | objašnjenje, obrazloženje
hu: pontszám, értékelés, pont | magyarázat, indoklás
hy: միավոր, գնահատական | բացատրություն
id: skor, nilai | penjelasan
ig: akara | nkọwa
is: einkunn, stig | útskýring
it: punteggio, voto, valutazione | spiegazione
ja: スコア, 得点, 点数, 評価, 評点 | 説明, 解説, 理由
jv: skor, biji | katrangan
ka: ქულა, შეფასება | ახსნა, განმარტება
kk: ұпай, балл, баға | түсіндірме, түсініктеме
km: ពិន្ទុ | ការពន្យល់
kn: ಅಂಕ, ಸ್ಕೋರ್ | ವಿವರಣೆ
ko: 점수, 평점 | 설명, 이유
ku: xal, pûan | ravekirin
la: punctum | explicatio
lo: ຄະແນນ | ຄຳອະທິບາຍ
lt: balas, įvertinimas | paaiškinimas
lv: rezultāts, vērtējums | paskaidrojums, skaidrojums
mk: оценка, резултат | објаснување
ml: സ്കോർ | വിശദീകരണം
mr: गुण, स्कोअर | स्पष्टीकरण
ms: skor, markah | penjelasan, penerangan
my: ရမှတ် | ရှင်းလင်းချက်
ne: अंक, स्कोर | व्याख्या
nl: beoordeling, punten | uitleg, toelichting, verklaring
no: poengsum, poeng, karakter | forklaring, begrunnelse
pa: ਸਕੋਰ, ਅੰਕ | ਵਿਆਖਿਆ
pl: ocena, wynik, punktacja | wyjaśnienie, uzasadnienie
pt: pontuação, nota | explicação
ro: scor, punctaj, notă | explicație, explicaţie
ru: оценка, балл | объяснение, пояснение
rw: amanota | ibisobanuro
si: ලකුණු | පැහැදිලි කිරීම
sk: skóre, hodnotenie, známka | vysvetlenie, zdôvodnenie
sl: ocena | razlaga, pojasnilo
so: dhibic, dhibco | sharaxaad
sq: pikët, vlerësimi | shpjegimi, shpjegim
sr: оцена, ocena, резултат, rezultat | објашњење, objašnjenje, образложење
sv: poäng, betyg | förklaring, motivering
sw: alama | maelezo, ufafanuzi
ta: மதிப்பெண் | விளக்கம்
te: స్కోరు, స్కోర్, మార్కులు | వివరణ
th: คะแนน | คำอธิบาย
tl: puntos, iskor, marka | paliwanag
tr: puan, skor, not | açıklama
tt: балл, бәя | аңлатма
uk: оцінка, бал | пояснення
ur: اسکور, نمبر | وضاحت, تشریح
uz: ball, baho | tushuntirish, izoh
vi: điểm, điểm số | giải thích
xh: amanqaku | inkcazelo
yo: àmì, ìwọ̀n | àlàyé
zh: 评分, 分数, 得分, 评价, 評分, 分數 | 解释, 说明, 解釋, 說明, 理由
zu: amaphuzu | incazelo
"""
_LONGEST = 40
_EDGES = BLANKS + MARKS + ":：*_`\"'"
_LOOKALIKES = str.maketrans(
    "асԁеɡһіјӏԛорѕսνхуԝεκιnηοѡρτυχ0",
    "acdeghijlqopsuvxywekinnowptuxo",
)


def _word(key: str) -> str:
    """A key in comparable form."""
    text = unicodedata.normalize("NFKC", key).strip(_EDGES).casefold()
    return unicodedata.normalize("NFC", " ".join(text.replace("_", " ").split()))


def _meanings() -> dict[str, str]:
    words = {"score": "score", "explanation": "explanation"}
    for line in _TRANSLATED.strip().splitlines():
        scores, reasons = line.partition(":")[2].split("|")
        for name, listed in (("score", scores), ("explanation", reasons)):
            for word in listed.split(","):
                assert words.setdefault(_word(word), name) == name, f"{word} would mean two things"
    return words


MEANINGS = _meanings()
SCORE_WORDS = tuple(word for word, name in MEANINGS.items() if name == "score")
_COLON = re.compile("[:：=]")


def names_a_score(text: str) -> bool:
    """Whether a score word is used as a key anywhere in a text: with a colon or an equals sign behind it."""
    for colon in _COLON.finditer(text):
        before = text[max(0, colon.start() - _LONGEST) : colon.start()]
        if before.casefold().rstrip(f"{BLANKS}\"'”’").endswith(SCORE_WORDS):
            return True
    return False


def _looks_like(word: str) -> bool:
    """Whether the eye would read `score` or `explanation` where other characters stand."""
    bare = [c for c in unicodedata.normalize("NFKD", word) if unicodedata.category(c) not in ("Mn", "Cf")]
    return "".join(bare).translate(_LOOKALIKES).replace(" ", "") in ("score", "explanation")


@lru_cache(maxsize=4096)
def _meaning(key: str) -> str | None:
    word = _word(key)
    name = MEANINGS.get(word)
    if name is None and _looks_like(word):
        raise Ambiguous(f"the key {key!a} only looks like a key of the answer")
    return name


def meaning(key: str) -> str | None:
    """`score`, `explanation`, or None for any other key.

    Raises:
        Ambiguous: for a key that looks like one of the two and is spelled with other characters.
    """
    return _meaning(key) if len(key) <= _LONGEST else None


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Pairs of one JSON object as a dict.

    Raises:
        Ambiguous: when a key comes twice, however it was escaped (JSON readers would silently take the last).
    """
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Ambiguous("a key of the answer comes twice")
    return found
