"""Parts of speech by word list, for most of the words of children's stories.

A word list knows no context: a word is in the class that it mostly has in such stories, and only in that one.
Nouns, verbs, adjectives and adverbs of the embedded stories are included with all their forms.
"""

from collections import Counter
from collections.abc import Iterable
from functools import cache

from workbench.data.embedded import grammar

_CLOSED = {
    "determiner": "a an the this that these those my your his her its our their every each some any no "
    "another",
    "pronoun": "i you he she it we they me him us them himself herself itself themselves myself yourself "
    "someone something everyone everything nothing anyone anything who",
    "preposition": "of in on at with from into by for near under behind inside through across towards around "
    "over above below between without until after before",
    "conjunction": "and but or so because if when while although than as",
    "auxiliary": "is are was were am be been being has have had do does did can could will would may might "
    "must should shall don't didn't can't couldn't won't wouldn't isn't wasn't it's i'm i'll "
    "let's",
    "number": "one two three four five six seven eight nine ten",
}

_OPEN = {
    "noun": "time day days sky sun bug toy toys food mommy daddy buddy thing things people story hand "
    "hands town truck ice ground family magic animals store lady eyes fruit world friend "
    "friends lesson candy gift dress blocks grass shapes beach sand puddle butter colors "
    "mouth sea notebook clouds set star stars nose popcorn drawer festival glue treasure feet "
    "stories side body teaspoon raft wings factory bike plant shirt oven worm yogurt milk "
    "birthday rainbow name tools plants avocado pizza crocodile backyard sunshine finger shop "
    "attic oil fire moon juice rug window hair job mess adventure game park house parents mud "
    "bunny whiskers life clothes storm plane pieces sack scissors soup couch floor noise door "
    "kitty kids monster face music event beak study cabin lunch dirt arms ink crayons crayon "
    "grapes shark octopus jet pasta envelope cloth cushion yacht ghost oysters menu creature "
    "glass television year years bugs land voice idea sound promise lots",
    "verb": "said went told got came put felt asked began saw looked started heard thought let lived "
    "gave grew picked opened listened kept tried stopped ate named called wished shared "
    "shouted cried moved used found took made climbed reached explored nodded agreed waved "
    "replied continued blew pushed noticed stayed wagged clapped splash finished barked "
    "cheered hopped grabbed fell caught dropped joined woke rolled enjoyed wore pointed "
    "slipped passed mailed chased pretended drank grab hear listen give tell eat go get come "
    "say keep think believe learn learned decided happened became turned returned screamed "
    "pulled knocked smelled tasted smiled ran walked jumped played liked loved wanted needed "
    "says goes looks going looking eating trying having making coming flying getting sharing "
    "exploring reading",
    "adjective": "good great bad sorry better best safe loud okay ready dark surprised higher dirty hot "
    "wonderful wise alone cool deep scary delicious tasty colorful amazing dangerous perfect "
    "smelly furry able cute difficult brilliant nervous impatient comfortable large creative "
    "smooth secret grateful noisy ugly honest magical bitter longer forever upset ashamed "
    "whole mighty uncomfortable smaller incredible bored famous favorite different important "
    "yummy unexpected fluffy naughty real easy sharp",
    "adverb": "very too then there again away together always never soon suddenly just even now anymore "
    "still finally maybe here ever once sometimes also almost tomorrow today everywhere later "
    "already really",
}


@cache
def word_classes() -> dict[str, frozenset[str]]:
    """Return lower-case words by class: the closed classes first, then noun, verb, adjective and adverb."""
    lexemes = grammar.build_classes()

    def forms_of(names: Iterable[str]) -> set[str]:
        forms = {form for name in names for lexeme in lexemes[name] for form in lexeme.values()}
        return {form for form in forms if " " not in form}

    adjectives = ("color", "size", "quality", "trait", "mood", "calm", "upset", "easy", "sunny")
    classes = {name: set(words.split()) for name, words in _CLOSED.items()}
    closed = set().union(*classes.values())
    for name, more in (
        ("noun", forms_of(grammar.NOUNS)),
        ("verb", forms_of(grammar.VERBS)),
        ("adjective", forms_of(adjectives)),
        ("adverb", forms_of(("softly",))),
    ):
        classes[name] = (more | set(_OPEN[name].split())) - closed
    counts = Counter(word for words in classes.values() for word in words)
    return {name: frozenset(word for word in words if counts[word] == 1) for name, words in classes.items()}
