"""What an enemy would write into an address or a field: 60 paths and 60 strings."""

from itertools import product

_UP = ["../secret", "../../secret", "../secret/checkpoints/step-000008", "scored/../../secret", "./../secret",
       "scored/../secret", "../secret/", "..//secret", ".//..//secret", "....//secret", "..;/secret",
       "group/../../secret", "group/inner/../../../secret", "scored/checkpoints/../../../secret"]  # fmt: skip
_ENCODED = ["%2e%2e/secret", "..%2fsecret", "%2e%2e%2fsecret", "..%252fsecret", "%c0%ae%c0%ae/secret",
            "\u2025/secret", "\uff0e\uff0e/secret", "..\u2215secret", "..\u2044secret", "..\\secret",
            "scored\\..\\..\\secret", "\\\\host\\share\\secret", "C:\\Windows\\win.ini"]  # fmt: skip
_ABSOLUTE = ["{secret}", "{secret}/config.yaml", "/{secret}", "file://{secret}", "file:///etc/passwd",
             "/etc/passwd", "/etc/shadow", "/proc/self/environ", "/proc/self/mem", "/dev/zero", "/dev/stdin",
             "/", "//", "~", "~/.ssh/id_rsa", "$HOME", "${HOME}/.netrc"]  # fmt: skip
_CUT = ["linked", "linked/", "linked/checkpoints", "../secret\x00", "scored\x00/../secret", "\x00", ".", "..",
        "scored@8/../../secret", "scored@../secret", "../secret@8", "../secret@0", "", " ../secret",
        "../secret\n", "a" * 5000]  # fmt: skip
PATHS = [*_UP, *_ENCODED, *_ABSOLUTE, *_CUT]
"""Sixty ways to name something outside the runs folder; `{secret}` is a run beside it, `linked` a link there."""
assert len(set(PATHS)) == 60

MARK = "zqx"
"""Stands in every hostile string, so that it can be found again."""
_TAGS = ["<{m} on{m}=1>", "<script>{m}</script>", "</script><script>{m}", "<img src={m} onerror=alert(1)>",
         "<svg/onload={m}>", "<iframe src=javascript:{m}>", "<a href=javascript:{m}>x</a>", "<b>{m}</b>",
         "<style>*{{{m}:1}}</style>", "</style><{m}>", "<!--{m}-->", "<![CDATA[{m}]]>", "<?{m}?>", "</div></p><{m}>",
         "<input autofocus onfocus={m}>", "<form action=//{m}><button>", "<base href=//{m}>",
         "<meta http-equiv=refresh content=0;{m}>", "<link rel=stylesheet href=//{m}>", "<math><{m}></math>"]  # fmt: skip
_ATTRIBUTES = ["\" on{m}=1 x=\"", "' on{m}=1 x='", "\"><{m}>", "'><{m}>", "` on{m}=1", "\" style=\"{m}:1",
               "\"/><{m} a=\"", "{m}=\"&quot;><{m}>", "&#34; on{m}=1", "&lt;{m}&gt;"]  # fmt: skip
_MARKDOWN = ["[l](javascript:{m})", "![i](//{m}/x.png)", "<//{m}>", "https://{m}.example", ":red[{m}]", "${m}$",
             "$${m}$$", "**{m}**", "`{m}`", "# {m}", "- {m}", "> {m}", "|a|{m}|\n|-|-|\n|1|2|", ":material/{m}:",
             "[{m}]: //x", "~~{m}~~", ":{m}-badge[x]", "<{m}@example.org>", "\n\n***\n{m}", "1. {m}"]  # fmt: skip
_SCRIPT = ["</script><!--<script>{m}", "\u2028{m}\u2029", "\\u003c{m}>", "{{{{{m}}}}}", "\u202e{m}\u2066",
           "{m}\x00<{m}>", "{m}\r\n<{m}>", "<<{m}>>", "<{m}", "\ud7ff{m}\ufeff<{m}/>"]  # fmt: skip
STRINGS = [each.format(m=MARK) for each in (*_TAGS, *_ATTRIBUTES, *_MARKDOWN, *_SCRIPT)]
"""Sixty texts that would become an element, an attribute, a link or a script where nobody escapes them."""
assert len(set(STRINGS)) == 60, len(STRINGS)


def addresses(keys: list[str], values: list[str], count: int | None = None) -> list[dict[str, str]]:
    """Queries that put each value into each key once: the nth gives key k the value n + k. `count`: the first
    of them alone, which still have every value somewhere."""
    rows = range(len(values) if count is None else count)
    return [{key: values[(row + 7 * at) % len(values)] for at, key in enumerate(keys)} for row in rows]


def covered(queries: list[dict[str, str]]) -> set[tuple[str, str]]:
    """Which value stood in which key."""
    return {pair for query in queries for pair in query.items()}


def every(keys: list[str], values: list[str]) -> set[tuple[str, str]]:
    """Each value in each key."""
    return set(product(keys, values))
