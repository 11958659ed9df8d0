"""The minimal pair, and the phenomenon of each BLiMP paradigm (Warstadt et al. 2020)."""

from dataclasses import dataclass

TERMS = {
    "anaphor_agreement": "anaphor agreement",
    "argument_structure": "argument structure",
    "s-selection": "argument structure",
    "binding": "binding",
    "control_raising": "control/raising",
    "determiner_noun_agreement": "determiner-noun agreement",
    "ellipsis": "ellipsis",
    "filler_gap_dependency": "filler-gap",
    "irregular_forms": "irregular forms",
    "island_effects": "island effects",
    "npi_licensing": "NPI licensing",
    "quantifiers": "quantifiers",
    "subject_verb_agreement": "subject-verb agreement",
}
"""`linguistics_term` in BLiMP's files -> the paper's phenomenon (s-selection is argument structure)."""

_UIDS = {
    "anaphor agreement": "anaphor_gender_agreement anaphor_number_agreement",
    "argument structure": "animate_subject_passive animate_subject_trans causative drop_argument "
    "inchoative intransitive passive_1 passive_2 transitive",
    "binding": "principle_A_c_command principle_A_case_1 principle_A_case_2 principle_A_domain_1 "
    "principle_A_domain_2 principle_A_domain_3 principle_A_reconstruction",
    "control/raising": "existential_there_object_raising existential_there_subject_raising "
    "expletive_it_object_raising tough_vs_raising_1 tough_vs_raising_2",
    "determiner-noun agreement": "determiner_noun_agreement_1 determiner_noun_agreement_2 "
    "determiner_noun_agreement_irregular_1 determiner_noun_agreement_irregular_2 "
    "determiner_noun_agreement_with_adj_2 determiner_noun_agreement_with_adj_irregular_1 "
    "determiner_noun_agreement_with_adj_irregular_2 determiner_noun_agreement_with_adjective_1",
    "ellipsis": "ellipsis_n_bar_1 ellipsis_n_bar_2",
    "filler-gap": "wh_questions_object_gap wh_questions_subject_gap "
    "wh_questions_subject_gap_long_distance wh_vs_that_no_gap wh_vs_that_no_gap_long_distance "
    "wh_vs_that_with_gap wh_vs_that_with_gap_long_distance",
    "irregular forms": "irregular_past_participle_adjectives irregular_past_participle_verbs",
    "island effects": "adjunct_island complex_NP_island "
    "coordinate_structure_constraint_complex_left_branch coordinate_structure_constraint_object_extraction "
    "left_branch_island_echo_question left_branch_island_simple_question sentential_subject_island "
    "wh_island",
    "NPI licensing": "matrix_question_npi_licensor_present npi_present_1 npi_present_2 "
    "only_npi_licensor_present only_npi_scope sentential_negation_npi_licensor_present "
    "sentential_negation_npi_scope",
    "quantifiers": "existential_there_quantifiers_1 existential_there_quantifiers_2 "
    "superlative_quantifiers_1 superlative_quantifiers_2",
    "subject-verb agreement": "distractor_agreement_relational_noun distractor_agreement_relative_clause "
    "irregular_plural_subject_verb_agreement_1 irregular_plural_subject_verb_agreement_2 "
    "regular_plural_subject_verb_agreement_1 regular_plural_subject_verb_agreement_2",
}

BLIMP = {uid: phenomenon for phenomenon, uids in _UIDS.items() for uid in uids.split()}
"""UID -> phenomenon, for BLiMP's 67 paradigms."""


def phenomenon_of(uid: str, linguistics_term: str = "") -> str:
    """Return the paper's phenomenon of a BLiMP term or UID; otherwise the term, or the UID without one."""
    return TERMS.get(linguistics_term) or BLIMP.get(uid) or linguistics_term or uid


@dataclass(frozen=True)
class Pair:
    """A grammatical and an ungrammatical sentence, with BLiMP's fields (`UID` is `uid` here)."""

    sentence_good: str
    sentence_bad: str
    uid: str
    phenomenon: str
    pair_id: int
    field: str = ""
    linguistics_term: str = ""
    simple_LM_method: bool = True  # noqa: N815 (BLiMP's name)
    one_prefix_method: bool = False
    two_prefix_method: bool = False
    lexically_identical: bool = False

    def to_row(self) -> dict[str, str | int | bool]:
        """Return the pair as a row of BLiMP's schema."""
        return {
            "sentence_good": self.sentence_good,
            "sentence_bad": self.sentence_bad,
            "field": self.field,
            "linguistics_term": self.linguistics_term,
            "UID": self.uid,
            "simple_LM_method": self.simple_LM_method,
            "one_prefix_method": self.one_prefix_method,
            "two_prefix_method": self.two_prefix_method,
            "lexically_identical": self.lexically_identical,
            "pair_id": self.pair_id,
        }
