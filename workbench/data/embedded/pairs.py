"""The embedded minimal pairs: the templates of `paradigms.py`, filled in the vocabulary of the stories."""

import random
import re
from collections import Counter

from workbench.data.embedded.grammar import Lexeme, finish
from workbench.data.embedded.paradigms import PARADIGMS, Paradigm
from workbench.data.embedded.stories import grammar
from workbench.data.pairs import Pair
from workbench.data.phenomena import phenomenon_of
from workbench.errors import DataError
from workbench.seeds import derive

_CONTRAST = re.compile(r"\[([^|\]]*)\|([^|\]]*)\]")
_TRIES = 50
FINGERPRINT = "693b7787c48a30be"
"""`PairSet.fingerprint` of what `open_pairs(None)` gives, to be known without making the pairs."""


def embedded_pairs(n: int = 200, seed: int = 0) -> dict[str, list[Pair]]:
    """`n` distinct minimal pairs for each embedded paradigm; the same for a seed, more of them go on alike.

    Returns:
        UID -> pairs. UIDs begin with `embedded_`: these are not BLiMP's pairs, and easier.

    Raises:
        DataError: `n` is below 1, or more than a paradigm's templates can give.
    """
    if n < 1:
        raise DataError(f"embedded_pairs(n={n}): at least 1 pair a paradigm.")
    return {paradigm.uid: _pairs(paradigm, n, seed) for paradigm in PARADIGMS}


def _pairs(paradigm: Paradigm, n: int, seed: int) -> list[Pair]:
    tell = grammar()
    templates = [
        (tell.compile(_CONTRAST.sub(r"\1", text)), tell.compile(_CONTRAST.sub(r"\2", text)))
        for text in paradigm.templates
    ]
    draw = random.Random(derive(seed, f"embedded pairs {paradigm.uid}")).random
    found: dict[tuple[str, str], None] = {}
    for attempt in range(n * _TRIES):
        bound: dict[str, Lexeme] = {}
        good, bad = (tell.write(side, draw, {}, bound) for side in templates[attempt % len(templates)])
        found.setdefault((finish(good), finish(bad)))
        if len(found) == n:
            return [_pair(paradigm, number, *sentences) for number, sentences in enumerate(found)]
    raise DataError(f"{paradigm.uid} gives {len(found)} distinct pairs, {n} were asked for; ask for fewer.")


def _pair(paradigm: Paradigm, number: int, good: str, bad: str) -> Pair:
    return Pair(
        sentence_good=good,
        sentence_bad=bad,
        uid=paradigm.uid,
        phenomenon=phenomenon_of(paradigm.uid, paradigm.term),
        pair_id=number,
        field=paradigm.field,
        linguistics_term=paradigm.term,
        simple_LM_method=True,
        one_prefix_method=paradigm.prefix == "one",
        two_prefix_method=paradigm.prefix == "two",
        lexically_identical=_words(good) == _words(bad),
    )


def _words(sentence: str) -> Counter[str]:
    return Counter(re.findall(r"[a-z]+", sentence.lower()))
