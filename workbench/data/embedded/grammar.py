"""A template grammar with agreement, and the lexicon of the embedded stories and pairs.

A template is text with slots. `{animal}` draws a lexeme of that class and writes its plain form; `{animal.p}`
writes another form of it. A slot that occurs twice in one template is the same lexeme, so a name determines
its pronouns: `{name} hurt {name.himself}`. A digit makes a second, different lexeme: `{name}` and `{name2}`.

Three forms stand for a grammatical number:

- `*`  the number drawn for this template, `s` or `p`: `{animal.*} {sleep.*}` is "cat sleeps" or "cats sleep";
- `~`  the opposite number, for distractors and for the ungrammatical sentence of a pair;
- `?`  a number of the lexeme's own.

A slot with an initial capital is written with one. A slot that names a rule writes one of its alternatives,
in a scope of its own; the lexemes of a story's `cast` are visible everywhere.

In the lexicon, regular forms are made by rule; a word with irregular ones lists them: `mouse/mice`,
`take/took/taken`. An underscore is a space. Classes named `odd_` have irregular plurals only.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

Lexeme = dict[str, str]
"""The forms of a word: `""` is the plain one, then `s p past part ing` or `he him his himself`."""

Draw = Callable[[], float]
"""A source of uniform random numbers in [0, 1), such as `random.Random(seed).random`."""

_NUMBERS: tuple[Lexeme, Lexeme] = ({"*": "s", "~": "p"}, {"*": "p", "~": "s"})
_NUMBER_FORMS = frozenset("*~?")
_SLOT = re.compile(r"\{(\w+)(?:\.([\w*~?]+))?\}")
_BEFORE_VOWEL = re.compile(r"\b([Aa]) (?=[aeiouAEIOU])")


class Slot(NamedTuple):
    """A slot of a template: which lexeme (`key`), drawn from what (`kind`), in which form."""

    key: str
    kind: str
    form: str
    capital: bool


Template = tuple[str | Slot, ...]


class Grammar:
    """Lexeme classes and compiled rules; `write` fills a template.

    Args:
        classes: class name -> lexemes.
        rules: rule name -> alternative templates.
        roles: names in a story's cast -> their class, so that a template may say `{hero}`.

    Raises:
        ValueError: a slot is neither class, role nor rule, or asks for a form that its class lacks.
    """

    def __init__(
        self,
        classes: Mapping[str, Sequence[Lexeme]],
        rules: Mapping[str, Sequence[str]],
        roles: Mapping[str, str],
    ) -> None:
        if twice := classes.keys() & rules.keys():
            raise ValueError(f"both class and rule: {', '.join(sorted(twice))}")
        self.classes = classes
        self.roles = roles
        self._rule_names = frozenset(rules)
        self.rules = {name: [self.compile(text) for text in texts] for name, texts in rules.items()}

    def compile(self, text: str) -> Template:
        """Split a template's text into literal pieces and slots."""
        parts: list[str | Slot] = []
        end = 0
        for match in _SLOT.finditer(text):
            parts += [text[end : match.start()], self._slot(match[1], match[2] or "", text)]
            end = match.end()
        parts.append(text[end:])
        if any("{" in part or "}" in part for part in parts if isinstance(part, str)):
            raise ValueError(f"stray brace in template {text!r}")
        return tuple(part for part in parts if part != "")

    def _slot(self, name: str, form: str, text: str) -> Slot:
        key = name[0].lower() + name[1:]
        capital = key != name
        if key in self._rule_names:
            return Slot(key, "", "", capital)
        kind = self.roles.get(key, key.rstrip("23456789"))
        if kind not in self.classes:
            raise ValueError(f"no class, role or rule {key!r} in template {text!r}")
        for needed in "sp" if form in _NUMBER_FORMS else (form,):
            if any(needed not in lexeme for lexeme in self.classes[kind]):
                raise ValueError(f"class {kind!r} has no form {needed!r}, in template {text!r}")
        return Slot(key, kind, form, capital)

    def pick(self, kind: str, draw: Draw, taken: Sequence[Lexeme] = ()) -> Lexeme:
        """Return a random lexeme of class `kind` that is not among `taken` (unless all are)."""
        options = self.classes[kind]
        for _ in range(20):
            lexeme = options[int(draw() * len(options))]
            if not any(lexeme is other for other in taken):
                return lexeme
        return next((lexeme for lexeme in options if not any(lexeme is other for other in taken)), options[0])

    def write_rule(self, name: str, draw: Draw, cast: Mapping[str, Lexeme]) -> str:
        """Fill one of a rule's alternatives, drawn uniformly."""
        alternatives = self.rules[name]
        return self.write(alternatives[int(draw() * len(alternatives))], draw, cast)

    def write(
        self,
        template: Template,
        draw: Draw,
        cast: Mapping[str, Lexeme],
        bound: dict[str, Lexeme] | None = None,
    ) -> str:
        """Fill a template: lexemes come from `bound` (which keeps what is drawn), `cast`, or are drawn."""
        bound = {} if bound is None else bound
        words: list[str] = []
        for part in template:
            if isinstance(part, str):
                words.append(part)
                continue
            key, kind, form, capital = part
            if not kind:
                word = self.write_rule(key, draw, cast)
            else:
                lexeme = bound.get(key) or cast.get(key)
                if lexeme is None:
                    lexeme = bound[key] = self.pick(kind, draw, (*bound.values(), *cast.values()))
                word = lexeme[form if form not in _NUMBER_FORMS else _number(key, form, draw, bound)]
            words.append(word[0].upper() + word[1:] if capital else word)
        return "".join(words)


def read_rules(text: str) -> dict[str, list[str]]:
    """Parse rules: a line `name:`, then alternatives that begin with `- ` and may continue on more lines."""
    rules: dict[str, list[str]] = {}
    alternatives: list[str] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        if line.startswith("- "):
            alternatives.append(line[2:])
        elif line.endswith(":") and line[:-1].isidentifier():
            alternatives = rules.setdefault(line[:-1], [])
        else:
            alternatives[-1] += " " + line
    return rules


def _number(key: str, form: str, draw: Draw, bound: dict[str, Lexeme]) -> str:
    scope = f"{key}?" if form == "?" else "*"
    if scope not in bound:
        bound[scope] = _NUMBERS[draw() < 0.5]
    return bound[scope]["~" if form == "~" else "*"]


def finish(text: str) -> str:
    """Write "an" for "a" before a vowel letter (the lexicon has no silent h and no "yoo")."""
    return _BEFORE_VOWEL.sub(r"\1n ", text)


def added_letters(text: str) -> list[int]:
    """Return the positions before which `finish` inserts an "n", ascending."""
    return [match.end(1) for match in _BEFORE_VOWEL.finditer(text)]


NOUNS = {
    "animal": "ant badger bear bee bird butterfly camel cat chicken cow crab crow dog donkey dragon duck "
    "elephant fox frog goat hedgehog hen horse kitten lamb lion monkey owl parrot penguin pig pony puppy "
    "rabbit snail spider squirrel swan tiger turtle",
    "odd_animal": "goose/geese mouse/mice wolf/wolves",
    "odd_person": "child/children man/men woman/women",
    "he_person": "boy brother king knight man/men prince uncle wizard",
    "she_person": "aunt fairy girl princess queen sister witch woman/women",
    "person": "aunt baker boy brother clown doctor fairy farmer giant girl hunter king knight neighbor "
    "nurse painter pirate prince princess queen sailor singer sister soldier teacher uncle witch wizard",
    "kin": "brother cousin friend helper mother neighbor sister teacher",
    "toy": "ball balloon boat book car crown doll drum kite puzzle robot rocket sled train wagon whistle",
    "tool": "bag basket bell blanket bottle bowl box broom brush bucket button candle clock coin cup fork "
    "hammer jar kettle key ladder lamp letter map mirror needle pan pen pencil picture pillow plate pot "
    "ribbon rope spoon stick tent towel umbrella wheel",
    "natural": "acorn feather flower pebble rock seed shell stone",
    "odd_thing": "knife/knives leaf/leaves loaf/loaves shelf/shelves",
    "wearable": "belt boot coat glove hat ring scarf/scarves shoe sock",
    "baked": "bun cake cookie muffin pancake pie sandwich",
    "food": "apple banana berry biscuit bun cake carrot cookie egg lemon melon muffin nut onion pancake "
    "peach pear pie plum potato/potatoes sandwich tomato/tomatoes",
    "keepable": "book box coat crown cup drum hat key letter map picture plate ribbon scarf/scarves spoon",
    "place": "bakery barn castle cave field forest garden house kitchen library market meadow park room "
    "school village yard",
    "spot": "bridge church cottage fence fountain garage gate hill lake mill pond river road tree wall well",
    "hideout": "bed bench bush chair sofa table",
}

VERBS = {
    "act": "dance jump laugh play rest run/ran/run sing/sang/sung sit/sat/sat sleep/slept/slept "
    "swim/swam/swum walk work",
    "like": "carry hold/held/held like love need paint see/saw/seen want wash watch",
    "sleep": "arrive fall/fell/fallen giggle laugh nap sleep/slept/slept smile sneeze wait yawn",
    "find": "bring/brought/brought find/found/found fix make/made/made send/sent/sent take/took/taken",
    "break": "break/broke/broken choose/chose/chosen draw/drew/drawn see/saw/seen shake/shook/shaken "
    "steal/stole/stolen take/took/taken tear/tore/torn throw/threw/thrown",
    "help": "follow help hug kiss meet/met/met thank tickle visit",
    "hurt": "cover dry hide/hid/hidden hurt/hurt/hurt wash",
    "know": "forget/forgot/forgotten guess know/knew/known remember see/saw/seen",
    "count": "buy/bought/bought carry find/found/found hold/held/held paint wash",
}

NAMES = {
    "he": "Adam Ben Billy Charlie Finn Freddy Henry Jack Leo Max Noah Oscar Peter Sam Tim Tom",
    "she": "Alice Anna Daisy Ella Emma Jane Kate Lily Lucy Mia Molly Nora Rosie Ruby Sara Zoe",
    "he_elder": "dad grandpa",
    "she_elder": "mom grandma",
}

PRONOUNS = {
    "he": {"he": "he", "him": "him", "his": "his", "himself": "himself", "boy": "boy"},
    "she": {"he": "she", "him": "her", "his": "her", "himself": "herself", "boy": "girl"},
}

PLAIN = {
    "color": "black blue brown gray green orange pink purple red silver white yellow",
    "size": "big huge little small tall tiny",
    "quality": "beautiful clean dusty fancy golden heavy lovely new nice old pretty round shiny "
    "soft special strange wooden",
    "trait": "brave cheerful clever curious friendly kind lazy polite shy silly",
    "mood": "busy excited glad happy hungry lonely proud quiet sad sleepy thirsty tired",
    "calm": "brave calm careful gentle kind patient quiet strong",
    "upset": "afraid angry cross grumpy sad scared worried",
    "number": "two three four five six seven",
    "several": "two three four five six many",
    "torn": "broken/broke forgotten/forgot frozen/froze hidden/hid stolen/stole torn/tore",
    "easy": "easy fun hard",
    "sure": "certain likely sure",
    "seemed": "appeared seemed",
    "tried": "hoped tried wanted",
    "whole": "each every",
    "softly": "bravely calmly carefully gently happily politely quickly quietly slowly softly sweetly",
    "sunny": "bright cold foggy rainy snowy sunny warm windy",
    "day": "day morning night spring summer winter",
    "water": "lake pond river",
    "built": "boat bridge castle house tower",
    "skill": "bake_a_cake climb_a_tree dance draw_a_horse fly_a_kite ride_a_horse sing swim write_a_letter",
}

NUMBERED = {
    "this": "this these",
    "that": "that those",
    "is": "is are",
    "was": "was were",
    "has": "has have",
    "itself": "itself themselves",
    "it": "it they",
    "one": "one some",
    "a": "a many",
}


def build_classes() -> dict[str, tuple[Lexeme, ...]]:
    """Return all lexeme classes by name. A word of two classes is one object: no template draws it twice."""
    made: dict[tuple[Callable[[str], Lexeme], str], Lexeme] = {}

    def lexemes(table: dict[str, str], make: Callable[[str], Lexeme]) -> dict[str, tuple[Lexeme, ...]]:
        return {
            name: tuple(made.setdefault((make, word), make(word)) for word in words.split())
            for name, words in table.items()
        }

    one = lexemes(NOUNS, _noun) | lexemes(VERBS, _verb) | lexemes(PLAIN, _plain)
    for name, words in NUMBERED.items():
        singular, plural = words.split()
        one[name] = ({"": singular, "s": singular, "p": plural},)
    for name, words in NAMES.items():
        one[name] = tuple({"": word, **PRONOUNS[name.removesuffix("_elder")]} for word in words.split())
    return one | {
        "name": one["he"] + one["she"],
        "elder": one["he_elder"] + one["she_elder"],
        "beast": one["animal"] + one["odd_animal"],
        "odd_creature": one["odd_animal"] + one["odd_person"],
        "creature": one["animal"] + one["person"],
        "being": one["animal"] + one["person"] + one["odd_animal"] + one["odd_person"],
        "thing": one["toy"] + one["tool"] + one["natural"] + one["wearable"],
    }


def _noun(word: str) -> Lexeme:
    singular, _, plural = word.partition("/")
    return {"": singular, "s": singular, "p": plural or _add_s(singular)}


def _verb(word: str) -> Lexeme:
    base, *irregular = word.split("/")
    stem = base
    if re.search("[^e]e$", base):
        stem = base[:-1]
    elif re.fullmatch("[^aeiou]*[aeiou][bgmnprt]", base):
        stem = base + base[-1]
    regular = (base[:-1] + "i" if re.search("[^aeiou]y$", base) else stem) + "ed"
    past, part = irregular or (regular, regular)
    return {"": base, "p": base, "s": _add_s(base), "past": past, "part": part, "ing": stem + "ing"}


def _plain(word: str) -> Lexeme:
    first, _, other = word.replace("_", " ").partition("/")
    return {"": first, "other": other or first}


def _add_s(word: str) -> str:
    if re.search("(s|x|ch|sh)$", word):
        return word + "es"
    return word[:-1] + "ies" if re.search("[^aeiou]y$", word) else word + "s"
