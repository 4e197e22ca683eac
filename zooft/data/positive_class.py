"""Which of two classes is the positive one: the finding, not the word for having found nothing.

Sensitivity, the threshold, and the prediction for a patient whose slices differ depend on it, so the alphabet mustn't
choose it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from zooft.data.labels import spelling
from zooft.errors import ConfigError

_NOTHING = frozenset(
    """
    normal healthy negative neg none nothing nil clear clean no absent absence false 0 zero good ok okay
    intact undamaged unaffected uninfected unremarkable pass passed accept accepted sound genuine ham empty
    nofinding nofindings gesund unauffällig normalbefund negativ nein sain normale négatif negatif sano sana
    negativo negativa saudável norm norma ned nad 正常 阴性 陰性 无 無 норма
    """.split()  # noqa: SIM905 -- a list of words
)
"""Words for: nothing was found."""
_HARMLESS = frozenset(
    """
    benign control controls other others rest background regular gutartig kontrolle bénin benin benigno benigna 良性
    """.split()  # noqa: SIM905 -- the same
)
"""Words for a harmless finding: positive beside `_NOTHING`, negative beside everything else."""
_FINDING = frozenset(
    """
    abnormal abnormality abnormalities anomaly anomalies anomalous unhealthy sick ill affected positive pos
    present presence yes true finding findings pathology pathologic pathological disease diseased case cases
    patient patients lesion lesions nodule nodules mass masses polyp polyps tumor tumors tumour tumours cancer
    cancers cancerous malignant malignancy malign carcinoma adenocarcinoma melanoma lymphoma glioma metastasis
    metastases metastatic hemorrhage haemorrhage hemorrhagic bleed bleeding fracture fractures fractured
    pneumonia covid tuberculosis tb emphysema effusion edema oedema embolism pneumothorax stroke ischemia
    ischaemia infarct infarction aneurysm fibrosis infection infected inflamed inflammation defect defects
    defective bad nok ng fail failed failure fault faulty reject rejected crack cracks cracked broken damage
    damaged scratch scratched dent dented rust rusty rotten spoiled contaminated fake forged fraud spam krank
    krankhaft auffällig pathologisch bösartig krebs karzinom blutung fraktur positiv ja malade malin positif oui
    enfermo anormal anormale maligno maligna positivo positiva cáncer câncer 异常 異常 阳性 陽性 恶性 有
    """.split()  # noqa: SIM905 -- the same
)
"""Words for: something was found."""
_NEGATIONS = frozenset(
    "no non not without free kein keine keinen nicht ohne sans sin sem senza".split()  # noqa: SIM905 -- the same
)
_PAIRS = ({"n", "y"}, {"f", "t"}, {"n", "p"}, {"-", "+"}, {"-1", "1"})
"""Names that have a meaning only as a pair."""
_POSITIVE_OF_PAIR = frozenset({"y", "t", "p", "+", "1"})


def order_classes(
    names: Sequence[str], positive: str, *, ask: bool = False, fixed: bool = False
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Classes in the order of the targets, the positive one last, and notes on it for the user.

    Args:
        names: in their own order.
        positive: which one the user has named; "" for none.
        ask: of two names without a known meaning, raise instead of taking the last one; a finding beside an unknown
            word decides nothing then, since both may be findings.
        fixed: whether the order was given and stays, unless the user names a class.

    Raises:
        ConfigError: the named class isn't there, or none is named and none can be inferred.
    """
    if positive:
        chosen = next((name for name in names if name == positive), "") or next(
            (name for name in names if spelling(name) == spelling(positive)), ""
        )
        if not chosen:
            raise ConfigError(f"--positive names a class that the labels don't have; they have {', '.join(names)}")
        ordered = (*(name for name in names if name != chosen), chosen)
        if len(names) > 2:
            return ordered, (f"{chosen!r} stands last of the {len(names)} classes, as --positive states",)
        return ordered, (_sentence(ordered, "as --positive states"),)
    if len(names) != 2:
        return tuple(names), ()
    if fixed:
        return tuple(names), (_sentence(names, "the second as the data orders them; --positive names another"),)
    first, second = (_weight(name, other) for name, other in (names, reversed(names)))
    if first == second or (ask and max(first, second) > 0 and 0 in (first, second) and any(map(_is_unknown, names))):
        if ask:
            raise ConfigError(
                f"which class is the positive one can't be inferred from the names {names[0]!r} and {names[1]!r}; "
                f"name it: --positive {_quote(names[0])}, or --positive {_quote(names[1])}"
            )
        return tuple(names), (_sentence(names, "the last by name; --positive names another"),)
    ordered = tuple(names) if second > first else (names[1], names[0])
    return ordered, (_sentence(ordered, "by the meaning of the names; --positive names another"),)


def nothing_first(names: Sequence[str]) -> tuple[str, ...]:
    """More than two classes with words for having found nothing first, otherwise in their own order."""
    return tuple(sorted(names, key=lambda name: min(_weight(name, ""), 0)))


def nothing_of(names: Sequence[str], positive: str = "") -> str:
    """The one of more than two classes that means that nothing was found; "" where no name means that, or several do.

    Args:
        names: of all classes.
        positive: the one that the user has named as positive, whatever its name means; "" for none.
    """
    found = [name for name in names if _weight(name, "") == -2] if len(names) > 2 else []
    return found[0] if len(found) == 1 and spelling(found[0]) != spelling(positive) else ""


def _sentence(ordered: Sequence[str], why: str) -> str:
    return f"the positive class is {ordered[-1]!r}, and {ordered[0]!r} the negative one: {why}"


def _weight(name: str, other: str) -> int:
    """What a name means: −2 nothing was found, −1 something harmless, 0 unknown, 1 a finding."""
    name, other = (spelling(text) if _is_number(text) else text.strip() for text in (name, other))
    whole, others = name.casefold(), other.casefold()
    if {whole, others} in _PAIRS:
        return 1 if whole in _POSITIVE_OF_PAIR else -2
    tokens = _tokens(name)
    negations, rest = _count_negations(tokens, _tokens(other))
    nothing, harmless, finding = (len(rest & known) > 0 for known in (_NOTHING, _HARMLESS, _FINDING))
    if negations % 2:
        return 1 if nothing and not finding else -2
    if nothing or harmless:
        return 0 if finding else -2 if nothing else -1
    return 1 if finding else 0


def _is_unknown(name: str) -> bool:
    """Whether no word of a name is known, so that it may be a finding, too."""
    return not set(_tokens(name)) & (_NOTHING | _HARMLESS | _FINDING)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?\d+([.,]\d*)?", text.strip()) is not None


def _tokens(name: str) -> list[str]:
    """Words and numbers in lower case; a sign at the end is a word."""
    spaced = re.sub(r"(?<=[^\W\d_A-Z])(?=[A-Z])", " ", name)
    sign = {"+": ["positive"], "-": ["negative"]}.get(name[-1:], [])
    return re.findall(r"[^\W\d_]+|\d+", spaced.casefold()) + sign


def _count_negations(tokens: Sequence[str], others: Sequence[str]) -> tuple[int, set[str]]:
    """How often a name is negated, and the negated words; ``no``, ``non`` and ``free`` may be joined to them."""
    known = _NOTHING | _HARMLESS | _FINDING | set(others)
    count, rest = 0, set()
    for token in tokens:
        if token in _NEGATIONS:
            count += 1
            continue
        bare = next(
            (
                part
                for part in (token.removeprefix("non"), token.removeprefix("no"), token.removesuffix("free"))
                if part != token and part in known
            ),
            "",
        )
        count += bool(bare and token not in known)
        rest.add(bare if bare and token not in known else token)
    return count, rest


def _quote(name: str) -> str:
    return name if re.fullmatch(r"[\w.-]+", name) and not name.startswith("-") else repr(name)
