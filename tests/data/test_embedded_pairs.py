"""Embedded pairs: BLiMP's schema, 200 distinct pairs a paradigm, the stories' words, and the good one is good."""

import re
from collections import Counter

import pytest

from workbench.data.embedded.grammar import NAMES, build_classes
from workbench.data.embedded.pairs import PARADIGMS, embedded_pairs
from workbench.data.embedded.stories import stories
from workbench.data.pairs import BLIMP, Pair, open_pairs
from workbench.errors import DataError

CLASSES = build_classes()
UIDS = [paradigm.uid for paradigm in PARADIGMS]


@pytest.fixture(scope="module")
def pairs() -> dict[str, list[Pair]]:
    return embedded_pairs()


@pytest.fixture(scope="module")
def story_words() -> Counter[str]:
    return Counter(word for text in stories(4000) for word in words(text))


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def number_of(word: str, *kinds: str) -> str | None:
    forms = {one[form]: form for kind in kinds for one in CLASSES[kind] for form in "sp"}
    return forms.get(word)


def test_counts_and_labels(pairs):
    assert list(pairs) == UIDS
    assert len(set(UIDS)) == len(UIDS) >= 12
    assert all(uid.startswith("embedded_") for uid in UIDS)
    assert not set(UIDS) & BLIMP.keys()
    assert {one.phenomenon for some in pairs.values() for one in some} == set(BLIMP.values())
    for uid, some in pairs.items():
        assert len({(one.sentence_good, one.sentence_bad) for one in some}) == 200
        assert {one.uid for one in some} == {uid}
        assert [one.pair_id for one in some] == list(range(200))


def test_same_seed_same_pairs_and_more_go_on_alike(pairs):
    again = embedded_pairs(60)
    assert all(again[uid] == pairs[uid][:60] for uid in UIDS)
    other = embedded_pairs(60, seed=1)
    assert all(other[uid] != again[uid] for uid in UIDS)


def test_no_good_sentence_is_anywhere_a_bad_one(pairs):
    good = {one.sentence_good for some in pairs.values() for one in some}
    bad = {one.sentence_bad for some in pairs.values() for one in some}
    assert not good & bad


def test_every_word_occurs_in_the_stories(pairs, story_words):
    some = [one for seed in (0, 1) for rows in embedded_pairs(200, seed).values() for one in rows]
    missing = {word for one in some for word in words(one.sentence_good + " " + one.sentence_bad)} - {
        word for word, count in story_words.items() if count >= 5
    }
    assert not missing


def test_the_pairs_are_not_copied_from_the_stories(pairs):
    text = "\n".join(stories(2000))
    good = [one.sentence_good for some in pairs.values() for one in some]
    assert sum(sentence in text for sentence in good) < 0.02 * len(good)


def test_most_pairs_have_equally_many_words(pairs):
    same = [
        len(words(one.sentence_good)) == len(words(one.sentence_bad))
        for some in pairs.values()
        for one in some
    ]
    assert sum(same) > 0.95 * len(same)


def test_sentences_are_well_formed(pairs):
    for some in pairs.values():
        for one in some:
            for sentence in (one.sentence_good, one.sentence_bad):
                assert re.fullmatch(r"[A-Z][A-Za-z, ]+[.?]", sentence), sentence
                assert not re.search(r"\ba [aeiou]|  ", sentence), sentence


def test_prefix_methods_hold(pairs):
    for uid, some in pairs.items():
        for one in some:
            good, bad = one.sentence_good.split(), one.sentence_bad.split()
            if one.one_prefix_method or one.two_prefix_method:
                lower = [(a.lower(), b.lower()) for a, b in zip(good, bad, strict=True)]
                differ = [index for index, (a, b) in enumerate(lower) if a != b]
                assert differ[-1] - differ[0] < 2, uid
                assert differ[0] > 0 or one.two_prefix_method, uid
                assert differ[-1] < len(good) - 1 or one.one_prefix_method, uid
            assert not (one.one_prefix_method and one.two_prefix_method)
            assert one.lexically_identical == (
                sorted(words(one.sentence_good)) == sorted(words(one.sentence_bad))
            )


def test_the_row_has_the_columns_of_blimp(real_data):
    import pyarrow.parquet as pq

    file = next((real_data / "blimp" / "transitive").glob("*.parquet"))
    row = embedded_pairs(1)["embedded_transitive"][0].to_row()
    columns = pq.read_schema(file)
    assert set(row) == set(columns.names)
    kinds = {"string": str, "bool": bool, "int64": int}
    assert all(type(row[field.name]) is kinds[str(field.type)] for field in columns)


@pytest.mark.parametrize("uid", [uid for uid in UIDS if "subject_verb" in uid or "distractor" in uid])
def test_the_good_verb_agrees_with_the_head_noun_and_the_bad_one_does_not(pairs, uid):
    verbs = ("is", "act", "like")
    for one in pairs[uid]:
        (verb, wrong), *_ = [
            pair
            for pair in zip(words(one.sentence_good), words(one.sentence_bad), strict=True)
            if pair[0] != pair[1]
        ]
        head = number_of(words(one.sentence_good)[1], "being", "kin")
        assert head == number_of(verb, *verbs) != number_of(wrong, *verbs)
        if "distractor" in uid:
            between = [number_of(word, "being") for word in words(one.sentence_good)[2:-2]]
            assert {"s": "p", "p": "s"}[head or ""] in between, "no distractor"


def test_the_good_anaphor_has_the_gender_of_its_subject(pairs):
    he = set(NAMES["he"].lower().split()) | {one["s"] for one in CLASSES["he_person"]}
    for uid in ("embedded_anaphor_gender_agreement", "embedded_principle_A_c_command"):
        for one in pairs[uid]:
            subject = words(one.sentence_good)[one.sentence_good.startswith("The ")]
            right, wrong = ("himself", "herself") if subject in he else ("herself", "himself")
            assert right in words(one.sentence_good)
            assert wrong in words(one.sentence_bad)


def test_the_good_determiner_fits_its_noun(pairs):
    for uid in ("embedded_determiner_noun_agreement", "embedded_determiner_noun_agreement_irregular"):
        for one in pairs[uid]:
            for sentence, fits in ((one.sentence_good, True), (one.sentence_bad, False)):
                determiner = next(word for word in words(sentence) if number_of(word, "this", "that"))
                noun = number_of(words(sentence)[-1], "thing", "odd_thing", "odd_creature")
                assert (number_of(determiner, "this", "that") == noun) is fits


@pytest.mark.parametrize("n", [0, -3])
def test_at_least_one_pair(n):
    with pytest.raises(DataError, match=f"n={n}"):
        embedded_pairs(n)


def test_more_pairs_than_the_templates_hold(monkeypatch):
    from workbench.data.embedded import pairs as module

    small = PARADIGMS[0]._replace(templates=("The boy [is|are] {calm}.",))
    monkeypatch.setattr(module, "PARADIGMS", (small,))
    assert len(module.embedded_pairs(8)[small.uid]) == 8
    with pytest.raises(DataError, match=f"{small.uid} gives only 8 distinct pairs; request fewer than 9"):
        module.embedded_pairs(9)


def test_there_are_more_pairs_than_the_default_asks_for():
    assert {len(some) for some in embedded_pairs(1500).values()} == {1500}


def test_open_pairs_gives_them_by_default(pairs):
    found = open_pairs()
    assert (found.name, found.source) == ("embedded", "embedded")
    assert dict(found.paradigms) == pairs
    assert list(found.paradigms) == sorted(UIDS)
    assert open_pairs("embedded").fingerprint == found.fingerprint
