"""Parsed sentences with no download: a small treebank that the embedded stories' words fill.

Each template spells a sentence as `form/UPOS/relation/head`, words in order; a form may be a slot of the
template grammar (`workbench/data/embedded/grammar.py`), where `*` and `~` are a number and its opposite.
Heads and relations follow Universal Dependencies' guidelines: tasks read these sentences as they read UD.
"""

import random
from collections.abc import Iterator
from functools import cache
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

from probes.conllu import Sentence, Word, read_treebank
from probes.sources import need_limit
from workbench.stats import derive

N_EMBEDDED = 2000
"""Sentences when nobody says how many."""

TEMPLATES = """\
sentence:
- The/DET/det/2 {creature.*}/NOUN/nsubj/3 {like.*}/VERB/root/0 the/DET/det/5 {thing.?}/NOUN/obj/3
  ./PUNCT/punct/3
- The/DET/det/2 {creature.*}/NOUN/nsubj/3 {act.*}/VERB/root/0 in/ADP/case/6 the/DET/det/6
  {place}/NOUN/obl/3 ./PUNCT/punct/3
- The/DET/det/2 {creature.*}/NOUN/nsubj/7 near/ADP/case/5 the/DET/det/5 {spot}/NOUN/nmod/2
  {is.*}/AUX/cop/7 {mood}/ADJ/root/0 ./PUNCT/punct/7
- The/DET/det/2 {kin.*}/NOUN/nsubj/7 of/ADP/case/5 the/DET/det/5 {creature.~}/NOUN/nmod/2 {is.*}/AUX/cop/7
  {mood}/ADJ/root/0 ./PUNCT/punct/7
- The/DET/det/2 {kin.*}/NOUN/nsubj/6 of/ADP/case/5 the/DET/det/5 {creature.~}/NOUN/nmod/2
  {like.*}/VERB/root/0 the/DET/det/8 {thing.?}/NOUN/obj/6 ./PUNCT/punct/6
- The/DET/det/2 {creature.*}/NOUN/nsubj/8 that/PRON/nsubj/4 {help.past}/VERB/acl:relcl/2 the/DET/det/6
  {creature2.~}/NOUN/obj/4 {is.*}/AUX/cop/8 {mood}/ADJ/root/0 ./PUNCT/punct/8
- The/DET/det/2 {creature.*}/NOUN/nsubj/7 that/PRON/nsubj/4 {help.past}/VERB/acl:relcl/2 the/DET/det/6
  {creature2.~}/NOUN/obj/4 {like.*}/VERB/root/0 the/DET/det/9 {thing.?}/NOUN/obj/7 ./PUNCT/punct/7
- Every/DET/det/2 {day}/NOUN/obl:tmod/6 ,/PUNCT/punct/6 the/DET/det/5 {being.*}/NOUN/nsubj/6
  {act.*}/VERB/root/0 near/ADP/case/9 the/DET/det/9 {spot}/NOUN/obl/6 ./PUNCT/punct/6
- {name}/PROPN/nsubj/2 {count.past}/VERB/root/0 {this.*}/DET/det/5 {color}/ADJ/amod/5 {thing.*}/NOUN/obj/2
  ./PUNCT/punct/2
- {name}/PROPN/nsubj/2 {find.past}/VERB/root/0 the/DET/det/5 {quality}/ADJ/amod/5 {thing.?}/NOUN/obj/2
  {softly}/ADV/advmod/2 ./PUNCT/punct/2
- {name}/PROPN/nsubj/4 and/CCONJ/cc/3 {name2}/PROPN/conj/1 {act.past}/VERB/root/0 near/ADP/case/7
  the/DET/det/7 {spot}/NOUN/obl/4 ./PUNCT/punct/4
- {name}/PROPN/nsubj/2 {know.past}/VERB/root/0 that/SCONJ/mark/5 {name2}/PROPN/nsubj/5
  {find.past}/VERB/ccomp/2 the/DET/det/7 {tool.?}/NOUN/obj/5 ./PUNCT/punct/2
- {name}/PROPN/nsubj/3 had/AUX/aux/3 {break.part}/VERB/root/0 the/DET/det/6 {quality}/ADJ/amod/6
  {keepable}/NOUN/obj/3 ./PUNCT/punct/3
- There/PRON/expl/2 {was.*}/VERB/root/0 {a.*}/DET/det/4 {beast.*}/NOUN/nsubj/2 in/ADP/case/7 the/DET/det/7
  {place}/NOUN/obl/2 ./PUNCT/punct/2
- There/PRON/expl/2 were/VERB/root/0 {number}/NUM/nummod/4 {thing.p}/NOUN/nsubj/2 under/ADP/case/7
  the/DET/det/7 {hideout}/NOUN/obl/2 ./PUNCT/punct/2
- {name}/PROPN/nsubj/2 {tried}/VERB/root/0 to/PART/mark/5 be/AUX/cop/5 {calm}/ADJ/xcomp/2 ,/PUNCT/punct/9
  and/CCONJ/cc/9 {name2}/PROPN/nsubj/9 {act.past}/VERB/conj/2 too/ADV/advmod/9 ./PUNCT/punct/2
- The/DET/det/2 {keepable.*}/NOUN/nsubj:pass/4 {was.*}/AUX/aux:pass/4 {break.part}/VERB/root/0
  by/ADP/case/7 the/DET/det/7 {beast.?}/NOUN/obl:agent/4 ./PUNCT/punct/4
- When/SCONJ/mark/3 {name}/PROPN/nsubj/3 {sleep.past}/VERB/advcl/7 ,/PUNCT/punct/7 the/DET/det/6
  {being.*}/NOUN/nsubj/7 {find.past}/VERB/root/0 the/DET/det/9 {thing.?}/NOUN/obj/7 ./PUNCT/punct/7
- {name}/PROPN/nmod:poss/3 's/PART/case/1 {kin.*}/NOUN/nsubj/4 {like.*}/VERB/root/0 {food.p}/NOUN/obj/4
  ./PUNCT/punct/4
- The/DET/det/2 {being.*}/NOUN/nsubj/4 always/ADV/advmod/4 {has.*}/VERB/root/0 {food.p}/NOUN/obj/4
  ,/PUNCT/punct/11 but/CCONJ/cc/11 the/DET/det/9 {being2.~}/NOUN/nsubj/11 never/ADV/advmod/11
  {has.~}/VERB/conj/4 {food2.p}/NOUN/obj/11 ./PUNCT/punct/4
- {name}/PROPN/nsubj/2 said/VERB/root/0 that/SCONJ/mark/7 the/DET/det/5 {being.*}/NOUN/nsubj/7
  {is.*}/AUX/cop/7 {mood}/ADJ/ccomp/2 ./PUNCT/punct/2
"""


class _Token(NamedTuple):
    template: Any
    slot: str
    """The slot's own text between the braces, or "" for a literal."""
    upos: str
    deprel: str
    head: int


@cache
def _templates() -> tuple[tuple[_Token, ...], ...]:
    from workbench.data.embedded.grammar import read_rules
    from workbench.data.embedded.stories import grammar

    made = []
    for line in read_rules(TEMPLATES)["sentence"]:
        tokens = []
        for entry in line.split():
            form, upos, deprel, head = entry.rsplit("/", 3)
            slot = form[1:-1] if form.startswith("{") else ""
            tokens.append(_Token(grammar().compile(form), slot, upos, deprel, int(head)))
        made.append(tuple(tokens))
    return tuple(made)


def embedded_sentence(index: int, seed: int = 0) -> Sentence:
    """Sentence `index` of a seed: a pure function of both, so that a longer list begins with the shorter."""
    from workbench.data.embedded.stories import grammar

    draw = random.Random(derive(seed, "embedded treebank", index)).random
    templates = _templates()
    tokens = templates[int(draw() * len(templates))]
    bound: dict[str, Any] = {}
    words, text = [], ""
    for place, token in enumerate(tokens, start=1):
        form = grammar().write(token.template, draw, {}, bound)
        if place == 1:
            form = form[0].upper() + form[1:]
        if words and words[-1].form == "a" and form[0] in "aeiou":
            words[-1] = words[-1]._replace(form="an", end=words[-1].end + 1)
            text += "n"
        if text and token.upos != "PUNCT" and form != "'s":
            text += " "
        start, feats = len(text), _number(token, bound)
        text += form
        words.append(
            Word(place, form, form.lower(), token.upos, feats, token.head, token.deprel, start, len(text))
        )
    return Sentence(f"embedded {seed}:{index}", text, tuple(words))


def _number(token: _Token, bound: dict[str, Any]) -> str:
    """The feature Number of a noun or a finite verb that agrees; `_` for the others."""
    key, _, form = token.slot.partition(".")
    if form in ("*", "~"):
        form = bound["*"][form]
    elif form == "?":
        form = bound[f"{key}?"]["*"]
    elif token.upos in ("NOUN", "PROPN") and token.slot:
        form = form or "s"
    if form not in ("s", "p") or token.upos not in ("NOUN", "PROPN", "VERB", "AUX", "DET"):
        return "_"
    return "Number=Sing" if form == "s" else "Number=Plur"


def sentences(source: str | Path | None, limit: int | None, seed: int) -> Iterator[Sentence]:
    """Parsed sentences: of a treebank's file or folder, or of the package (None or "embedded").

    Raises:
        DataError: as `read_treebank`; a limit below 1.
    """
    need_limit(limit)
    if source is None or str(source) == "embedded":
        for index in islice(count(), N_EMBEDDED if limit is None else limit):
            yield embedded_sentence(index, seed)
    else:
        yield from read_treebank(source, limit)
