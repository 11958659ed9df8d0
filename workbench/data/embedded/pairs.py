"""The embedded minimal pairs: templates with one `[good|bad]` contrast, filled in the stories' vocabulary.

They follow BLiMP's phenomena (Warstadt et al. 2020, TACL 8:377-392) but are not part of it: other, easier
sentences, with UIDs that begin with `embedded_`. See `grammar.py` for the slots.
"""

import random
import re
from collections import Counter
from typing import NamedTuple

from workbench.data.embedded.grammar import Lexeme, finish
from workbench.data.embedded.stories import grammar
from workbench.data.pairs import Pair, phenomenon_of
from workbench.errors import DataError
from workbench.stats import derive


class Paradigm(NamedTuple):
    """One kind of minimal pair.

    `term` is BLiMP's `linguistics_term`. `prefix` is the prefix method of BLiMP that applies: "one" if the
    critical word differs after a shared prefix, "two" if it is shared and the prefixes differ, else "". The
    templates are used in turn.
    """

    uid: str
    field: str
    term: str
    prefix: str
    templates: tuple[str, ...]


PARADIGMS = (
    Paradigm(
        "embedded_regular_plural_subject_verb_agreement",
        "morphology",
        "subject_verb_agreement",
        "one",
        (
            "The {creature.*} [{like.*}|{like.~}] the {thing.?}.",
            "The {creature.*} [{act.*}|{act.~}] in the {place}.",
            "The {creature.*} near the {spot} [{is.*}|{is.~}] {mood}.",
        ),
    ),
    Paradigm(
        "embedded_irregular_plural_subject_verb_agreement",
        "morphology",
        "subject_verb_agreement",
        "one",
        (
            "The {odd_creature.*} [{like.*}|{like.~}] the {thing.?}.",
            "The {odd_creature.*} [{act.*}|{act.~}] near the {spot}.",
            "The {odd_creature.*} in the {place} [{is.*}|{is.~}] {mood}.",
        ),
    ),
    Paradigm(
        "embedded_distractor_agreement_relational_noun",
        "morphology",
        "subject_verb_agreement",
        "one",
        (
            "The {kin.*} of the {creature.~} [{is.*}|{is.~}] {mood}.",
            "The {kin.*} of the {creature.~} [{like.*}|{like.~}] the {thing.?}.",
            "The {kin.*} of the {creature.~} [{act.*}|{act.~}] in the {place}.",
        ),
    ),
    Paradigm(
        "embedded_distractor_agreement_relative_clause",
        "morphology",
        "subject_verb_agreement",
        "one",
        (
            "The {creature.*} that {help.past} the {creature2.~} [{is.*}|{is.~}] {mood}.",
            "The {creature.*} that {help.past} the {creature2.~} [{like.*}|{like.~}] the {thing.?}.",
        ),
    ),
    Paradigm(
        "embedded_anaphor_gender_agreement",
        "morphology",
        "anaphor_agreement",
        "one",
        (
            "{he} {hurt.past} [himself|herself] {softly}.",
            "{she} {hurt.past} [herself|himself] {softly}.",
            "The {he_person} {hurt.past} [himself|herself] near the {spot}.",
            "The {she_person} {hurt.past} [herself|himself] near the {spot}.",
        ),
    ),
    Paradigm(
        "embedded_anaphor_number_agreement",
        "morphology",
        "anaphor_agreement",
        "one",
        (
            "The {beast.*} {hurt.past} [{itself.*}|{itself.~}] near the {spot}.",
            "The {he_person.s} {hurt.past} [himself|themselves] {softly}.",
            "The {he_person.p} {hurt.past} [themselves|himself] {softly}.",
            "The {she_person.s} {hurt.past} [herself|themselves] {softly}.",
            "The {she_person.p} {hurt.past} [themselves|herself] {softly}.",
        ),
    ),
    Paradigm(
        "embedded_determiner_noun_agreement",
        "morphology",
        "determiner_noun_agreement",
        "one",
        (
            "{name} {count.past} {this.*} [{thing.*}|{thing.~}].",
            "{name} {count.past} {that.*} [{thing.*}|{thing.~}].",
        ),
    ),
    Paradigm(
        "embedded_determiner_noun_agreement_irregular",
        "morphology",
        "determiner_noun_agreement",
        "two",
        (
            "{name} {count.past} [{this.*}|{this.~}] {odd_thing.*}.",
            "{name} {help.past} [{that.*}|{that.~}] {odd_creature.*}.",
            "{name} {help.past} [{this.*}|{this.~}] {mood} {odd_creature.*}.",
        ),
    ),
    Paradigm(
        "embedded_irregular_past_participle_verbs",
        "morphology",
        "irregular_forms",
        "one",
        (
            "{name} [{break.past}|{break.part}] the {keepable}.",
            "{name} had [{break.part}|{break.past}] the {keepable}.",
        ),
    ),
    Paradigm(
        "embedded_irregular_past_participle_adjectives",
        "morphology",
        "irregular_forms",
        "two",
        (
            "The [{torn}|{torn.other}] {keepable.*} {was.*} under the {hideout}.",
            "The [{torn}|{torn.other}] {keepable.*} {is.*} {color}.",
        ),
    ),
    Paradigm(
        "embedded_sentential_negation_npi_licensor_present",
        "semantics",
        "npi_licensing",
        "two",
        (
            "{name} had [not|really] ever {find.part} the {thing.?}.",
            "The {being.*} had [not|really] ever {help.part} {name}.",
        ),
    ),
    Paradigm(
        "embedded_matrix_question_npi_licensor_present",
        "semantics",
        "npi_licensing",
        "two",
        (
            "[Had {name}|{name} had] ever {find.part} the {thing.?}?",
            "[Has {name}|{name} has] ever {help.part} the {being.?}?",
        ),
    ),
    Paradigm(
        "embedded_transitive",
        "syntax",
        "argument_structure",
        "two",
        (
            "{name} [{find.past}|{sleep.past}] the {thing.?}.",
            "The {being.?} [{find.past}|{sleep.past}] the {color} {thing.?}.",
        ),
    ),
    Paradigm(
        "embedded_intransitive",
        "syntax",
        "argument_structure",
        "",
        (
            "{name} [{sleep.past}|{find.past}] near the {spot}.",
            "The {being.?} [{sleep.past}|{find.past}] {softly}.",
        ),
    ),
    Paradigm(
        "embedded_ellipsis_n_bar",
        "syntax",
        "ellipsis",
        "",
        (
            "{name} {count.past} one [{color} {thing}|{thing}], and {name2} {count.past} "
            "[{several}|{several} {color}].",
        ),
    ),
    Paradigm(
        "embedded_ellipsis_verb_phrase",
        "syntax",
        "ellipsis",
        "",
        (
            "{name} {find.past} the {thing.?}, and {name2} [did|{find.past}] too.",
            "The {being.?} {find.past} the {thing.?}, and {name} [did|{find.past}] too.",
        ),
    ),
    Paradigm(
        "embedded_existential_there_quantifiers",
        "semantics",
        "quantifiers",
        "one",
        (
            "There was [a|{whole}] {beast.s} in the {place}.",
            "There were [many|most] {beast.p} in the {place}.",
            "There were [{number}|all] {thing.p} near the {spot}.",
        ),
    ),
    Paradigm(
        "embedded_superlative_quantifiers",
        "semantics",
        "quantifiers",
        "",
        (
            "No {being.s} {count.past} [more than|at least] {number} {thing.p}.",
            "[The|No] {being.s} {count.past} at least {number} {thing.p}.",
        ),
    ),
    Paradigm(
        "embedded_wh_vs_that_with_gap",
        "syntax",
        "filler_gap_dependency",
        "",
        (
            "{name} {know.past} [what|that] {name2} {find.past}.",
            "The {being.?} {know.past} [what|that] the {being2.?} {find.past}.",
        ),
    ),
    Paradigm(
        "embedded_wh_vs_that_no_gap",
        "syntax",
        "filler_gap_dependency",
        "",
        (
            "{name} {know.past} [that|what] {name2} {find.past} the {tool.?}.",
            "The {being.?} {know.past} [that|what] the {being2.?} {find.past} the {tool.?}.",
        ),
    ),
    Paradigm(
        "embedded_principle_A_domain",
        "syntax_semantics",
        "binding",
        "one",
        (
            "{he} said that {she} {help.past} [him|himself].",
            "{she} said that {he} {help.past} [her|herself].",
            "{he} said that {she} {hurt.past} [herself|himself].",
            "{she} said that {he} {hurt.past} [himself|herself].",
        ),
    ),
    Paradigm(
        "embedded_principle_A_c_command",
        "syntax_semantics",
        "binding",
        "one",
        (
            "The {she_person} that {help.past} {he} {hurt.past} [herself|himself].",
            "The {he_person} that {help.past} {she} {hurt.past} [himself|herself].",
            "The {she_person} that {help.past} the {he_person} {hurt.past} [herself|himself].",
            "The {he_person} that {help.past} the {she_person} {hurt.past} [himself|herself].",
        ),
    ),
    Paradigm(
        "embedded_existential_there_subject_raising",
        "syntax_semantics",
        "control_raising",
        "",
        (
            "There [{seemed}|{tried}] to be {a.*} {beast.*} in the {place}.",
            "There [{seemed}|{tried}] to be {a.*} {thing.*} near the {spot}.",
        ),
    ),
    Paradigm(
        "embedded_tough_vs_raising",
        "syntax_semantics",
        "control_raising",
        "",
        (
            "The {thing.*} {was.*} [{easy}|{sure}] to {find}.",
            "{name} was [{sure}|{easy}] to {find} the {thing.?}.",
        ),
    ),
    Paradigm(
        "embedded_left_branch_island",
        "syntax",
        "island_effects",
        "",
        (
            "Whose [{thing.?} did {name} {find}|did {name} {find} {thing.?}]?",
            "Whose [{keepable.?} did the {being.?} {find}|did the {being.?} {find} {keepable.?}]?",
        ),
    ),
    Paradigm(
        "embedded_coordinate_structure_constraint",
        "syntax",
        "island_effects",
        "",
        (
            "What did [{name} and {name2} {find}|{name} {find} and {name2}]?",
            "What did [{name} and the {being.?} {find}|{name} {find} and the {being.?}]?",
            "What did [the {being.?} and {name} {find}|the {being.?} {find} and {name}]?",
        ),
    ),
)


_CONTRAST = re.compile(r"\[([^|\]]*)\|([^|\]]*)\]")
_TRIES = 50
FINGERPRINT = "693b7787c48a30be"
"""`PairSet.fingerprint` of `open_pairs(None)`, known without generating the pairs."""


def embedded_pairs(n: int = 200, seed: int = 0) -> dict[str, list[Pair]]:
    """Return `n` distinct minimal pairs of each embedded paradigm; a larger `n` extends a smaller one.

    Returns:
        UID -> pairs. UIDs begin with `embedded_`: these are easier pairs than BLiMP's.

    Raises:
        DataError: `n` is below 1, or more than a paradigm's templates can give.
    """
    if n < 1:
        raise DataError(f"embedded_pairs(n={n}): at least 1 pair per paradigm.")
    return {paradigm.uid: _pairs(paradigm, n, seed) for paradigm in PARADIGMS}


def _pairs(paradigm: Paradigm, n: int, seed: int) -> list[Pair]:
    writer = grammar()
    templates = [
        (writer.compile(_CONTRAST.sub(r"\1", text)), writer.compile(_CONTRAST.sub(r"\2", text)))
        for text in paradigm.templates
    ]
    draw = random.Random(derive(seed, f"embedded pairs {paradigm.uid}")).random
    distinct: dict[tuple[str, str], None] = {}
    for attempt in range(n * _TRIES):
        bound: dict[str, Lexeme] = {}
        good, bad = (writer.write(side, draw, {}, bound) for side in templates[attempt % len(templates)])
        distinct.setdefault((finish(good), finish(bad)))
        if len(distinct) == n:
            return [_pair(paradigm, number, *sentences) for number, sentences in enumerate(distinct)]
    raise DataError(f"{paradigm.uid} gives only {len(distinct)} distinct pairs; request fewer than {n}.")


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
