"""A template grammar in which agreement is one character of the template.

A template is text with slots. `{animal}` draws a lexeme of that class and writes its plain form; `{animal.p}`
writes another form of it. A slot named twice in one template is the same lexeme, so a name fetches its own
pronouns: `{name} hurt {name.himself}`. A digit makes a second, different lexeme: `{name}` and `{name2}`.

Three forms stand for a number:

- `*`  the number drawn for this template, `s` or `p`: `{animal.*} {sleep.*}` is "cat sleeps" or "cats sleep";
- `~`  the opposite number, for distractors and for the ungrammatical half of a pair;
- `?`  a number of the lexeme's own.

A slot that starts with a capital is written with one. A slot that names a rule writes one of its
alternatives, in a scope of its own; the lexemes of a story's `cast` are seen everywhere.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

Lexeme = dict[str, str]
"""The forms of one word: `""` the plain one, then `s p past part ing` or `he him his himself`."""

Draw = Callable[[], float]
"""A source of uniform numbers in [0, 1), such as `random.Random(seed).random`."""

_NUMBERS: tuple[Lexeme, Lexeme] = ({"*": "s", "~": "p"}, {"*": "p", "~": "s"})
_NUMBER_FORMS = frozenset("*~?")
_SLOT = re.compile(r"\{(\w+)(?:\.([\w*~?]+))?\}")
_BEFORE_VOWEL = re.compile(r"\b([Aa]) (?=[aeiouAEIOU])")


class Slot(NamedTuple):
    """One gap of a template: which lexeme (`key`), drawn from what (`kind`), in which form."""

    key: str
    kind: str
    form: str
    capital: bool


Template = tuple[str | Slot, ...]


class Grammar:
    """Lexeme classes and rules, compiled once; `write` fills a template.

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
        for wanted in "sp" if form in _NUMBER_FORMS else (form,):
            if any(wanted not in lexeme for lexeme in self.classes[kind]):
                raise ValueError(f"class {kind!r} has no form {wanted!r}, in template {text!r}")
        return Slot(key, kind, form, capital)

    def pick(self, kind: str, draw: Draw, taken: Sequence[Lexeme] = ()) -> Lexeme:
        """A lexeme of class `kind` that is not among `taken` (unless all are)."""
        options = self.classes[kind]
        for _ in range(20):
            lexeme = options[int(draw() * len(options))]
            if not any(lexeme is other for other in taken):
                return lexeme
        return next((one for one in options if not any(one is other for other in taken)), options[0])

    def write_rule(self, name: str, draw: Draw, cast: Mapping[str, Lexeme]) -> str:
        """Fill one of a rule's alternatives, each as likely as the others."""
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
    """Rules from text: a line `name:`, then alternatives that begin with `- ` and may go on in more lines."""
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
    """Places in the text before which `finish` puts an "n", ascending."""
    return [match.end(1) for match in _BEFORE_VOWEL.finditer(text)]
