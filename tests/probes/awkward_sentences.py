"""200 sentences on which alignment goes wrong easily, with their words; written for these tests.

In `SPELT` words are parted by spaces, `|` parts two words that touch, and `_` is a space inside a word.
"""

import random

SPELT = """\
I do|n't know .
You ca|n't and you wo|n't|, will you|?
It|'s Lily|'s hat|, is|n't it|?
They|'re here|; we|'ve seen |them|.
I|'d've gone|!
She can|not swim|.
Gim|me that|, I|'m gon|na wan|na see|.
Do|n’t touch Max|’s cake|.
“|Hello|,|”| said Mia|.
"|Stop|!|"| she cried|.
'|Tis late|,|'| he said|.
He said|: "|'|Run|'|, she said|.|"
(|What|?|)
[|Not| sure|]
Wow|!|!|!
Really|?|!|?
Well|...| maybe|…
The end|.|.|.
A — no|, B – is it|?
rock|-|n|-|roll
mother|-|in|-|law|'s tea
semi|/|colon|;|and|/|or
50|% of 3|.|14 is 1|.|57
On 12|/|05|/|2021 at 10|:|30 p.m. we left|.
It cost $|5|.|99|.
e.g.| i.e.| etc|.
Mr.| Smith met Dr.| Jones|.
U.S.A.| won|.
antidisestablishmentarianism is long|.
floccinaucinihilipilification|!
Supercalifragilisticexpialidocious|,|she sang|.
pneumonoultramicroscopicsilicovolcanoconiosis
Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch is a village|.
aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
I love it 😀|.
😀|😀|😀
👍🏽 good|!
👩‍👩‍👧‍👦 is a family|.
🇫🇷 and 🇩🇪
so|😀|happy
❤️|!
:|-|) and ;|)
café au lait|.
naïve|, façade|, Zoë|'s résumé
e\u0301te\u0301 is summer
Straße und Weißwurst
Привет|, мир|!
日本|語|です|。
你好|，|世界
ไทย is Thai
مرحبا بالعالم
שלום
नमस्ते दुनिया
tab\there
two  spaces   three
10_000 people
New_York City
a|b|c|d|e|f
x²|+|y²|=|z²
http://example.com/a?b=c&d=e is a link
mail me@example.com now
#hashtag @someone
C++ and C#
foo_bar\\_baz
<bos> is text
<eos>|<pad>|<mask>
<|endoftext|> too
\u200bzero width\u200b
no\u00a0break here
ends in space 
ﬁ ligature
ＦＵＬＬ width
𝔘𝔫𝔦𝔠𝔬𝔡𝔢 letters
ab\u00adcd soft
"""
"""One sentence a line."""


def sentence(spelt: str) -> tuple[str, list[tuple[int, int]]]:
    """The text and its words' spans."""
    text, spans, word = "", [], -1
    for letter in spelt:
        if letter == "|" or letter.isspace():
            if word >= 0:
                spans.append((word, len(text)))
            word = -1
            text += "" if letter == "|" else letter
        else:
            word = len(text) if word < 0 else word
            text += " " if letter == "_" else letter
    if word >= 0:
        spans.append((word, len(text)))
    return text, spans


def awkward(n: int = 200) -> list[tuple[str, list[tuple[int, int]]]]:
    """The sentences above, then two of them in one, with a random join."""
    lines = SPELT.replace("<|endoftext|>", "<\uffffendoftext\uffff>").splitlines()
    found = [sentence(line) for line in lines]
    draw = random.Random(0)
    while len(found) < n:
        one, other = draw.sample(lines, 2)
        found.append(sentence(one + draw.choice(["", " ", "  ", "|", "\n", "\n\n", " \t "]) + other))
    return [(text.replace("\uffff", "|"), spans) for text, spans in found[:n]]
