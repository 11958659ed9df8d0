"""The template grammar and the lexicon: numbers agree, lexemes differ, forms are spelt right."""

import random

import pytest

from workbench.data.embedded.grammar import Grammar, build_classes, finish, read_rules

CLASSES = build_classes()


def fill(text: str, seed: int = 0, rules: dict | None = None) -> str:
    tell = Grammar(CLASSES, rules or {}, {"hero": "name"})
    return tell.write(tell.compile(text), random.Random(seed).random, {})


def form_of(kind: str, word: str) -> str:
    return next(form for lexeme in CLASSES[kind] for form in ("s", "p") if lexeme[form] == word)


def test_a_star_is_one_number_and_a_tilde_the_other():
    seen = set()
    for seed in range(40):
        noun, verb, other = fill("{animal.*} {act.*} {beast.~}", seed).split()
        assert form_of("animal", noun) == form_of("act", verb) != form_of("beast", other)
        seen.add(form_of("animal", noun))
    assert seen == {"s", "p"}


def test_a_question_mark_is_a_number_of_its_own_that_a_second_filling_keeps():
    tell = Grammar(CLASSES, {}, {})
    template = tell.compile("{animal.?} {person.?} {animal.?}")
    numbers = set()
    for seed in range(60):
        draw, bound = random.Random(seed).random, {}
        first = tell.write(template, draw, {}, bound)
        assert tell.write(template, draw, {}, bound) == first
        animal, person, again = first.split()
        assert animal == again
        numbers.add((form_of("animal", animal), form_of("person", person)))
    assert len(numbers) == 4


def test_one_slot_name_is_one_lexeme_and_a_digit_makes_another():
    for seed in range(200):
        name, same, other, himself = fill("{name} {name} {name2} {name.himself}", seed).split()
        assert name == same != other
        assert himself == next(one["himself"] for one in CLASSES["name"] if one[""] == name)


def test_words_of_overlapping_classes_are_not_drawn_twice():
    for seed in range(300):
        one, two = fill("{he_person} {person}", seed).split()
        assert one != two


def test_capitals_and_rules():
    assert fill("{Greeting}, {Hero.he}.", rules={"greeting": ["good day"]}) in (
        "Good day, He.",
        "Good day, She.",
    )


def test_cast_is_seen_inside_rules():
    tell = Grammar(CLASSES, {"who": ["{hero}"]}, {"hero": "name"})
    tom = next(one for one in CLASSES["name"] if one[""] == "Tom")
    assert tell.write(tell.compile("{who} {hero.his}"), random.Random(0).random, {"hero": tom}) == "Tom his"


def test_rules_are_read_from_text_with_lines_that_go_on():
    assert read_rules("one:\n- a b\n  c\n- d: e\n\ntwo:\n- f\n") == {"one": ["a b c", "d: e"], "two": ["f"]}


@pytest.mark.parametrize(
    ("text", "rules", "words"),
    [
        ("The {anmal}.", {}, "no class, role or rule 'anmal'"),
        ("The {animal.himself}.", {}, "class 'animal' has no form 'himself'"),
        ("The {mood.*}.", {}, "class 'mood' has no form 's'"),
        ("The {animal.", {}, "stray brace"),
        ("The cat.", {"animal": ["cat"]}, "both class and rule: animal"),
    ],
)
def test_a_wrong_template_is_refused_when_compiled(text, rules, words):
    with pytest.raises(ValueError, match=words):
        fill(text, rules=rules)


def test_an_before_vowels_only():
    assert finish("A owl saw a cat and a apple. A Oscar") == "An owl saw a cat and an apple. An Oscar"
    assert finish("banana idea") == "banana idea"


@pytest.mark.parametrize(
    ("kind", "base", "forms"),
    [
        ("act", "run", {"s": "runs", "past": "ran", "part": "run", "ing": "running"}),
        ("act", "dance", {"s": "dances", "past": "danced", "part": "danced", "ing": "dancing"}),
        ("like", "carry", {"s": "carries", "past": "carried", "part": "carried", "ing": "carrying"}),
        ("help", "hug", {"s": "hugs", "past": "hugged", "part": "hugged"}),
        ("help", "kiss", {"s": "kisses", "past": "kissed"}),
        ("help", "visit", {"past": "visited"}),
        ("like", "need", {"past": "needed"}),
        ("like", "see", {"past": "saw", "part": "seen"}),
        ("hurt", "dry", {"past": "dried"}),
        ("sleep", "nap", {"past": "napped"}),
        ("find", "fix", {"s": "fixes", "past": "fixed"}),
        ("animal", "fox", {"p": "foxes"}),
        ("animal", "pony", {"p": "ponies"}),
        ("animal", "monkey", {"p": "monkeys"}),
        ("odd_animal", "goose", {"p": "geese"}),
        ("food", "berry", {"p": "berries"}),
        ("food", "tomato", {"p": "tomatoes"}),
        ("tool", "brush", {"p": "brushes"}),
        ("torn", "frozen", {"other": "froze"}),
        ("she", "Lily", {"he": "she", "him": "her", "his": "her", "himself": "herself", "boy": "girl"}),
    ],
)
def test_forms(kind, base, forms):
    lexeme = next(one for one in CLASSES[kind] if one[""] == base)
    assert {form: lexeme[form] for form in forms} == forms


def test_odd_classes_have_irregular_plurals_only():
    odd = [one for kind in CLASSES if kind.startswith("odd_") for one in CLASSES[kind]]
    assert odd
    assert not [one for one in odd if one["p"] in (one["s"] + "s", one["s"] + "es")]
    assert not [one for one in CLASSES["creature"] if any(one is other for other in odd)]
