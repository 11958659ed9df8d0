"""What an AppTest shows, and what the address can say: shared by the tests that go over every page."""

import re
from pathlib import Path

from apps.frame.told import FAILED

APPS = Path(__file__).resolve().parents[2] / "apps"
WORDS = ("html", "markdown", "caption", "error", "warning", "info", "success", "title", "header", "subheader",
         "text", "code", "metric", "toast")  # fmt: skip
_KEYS = re.compile(
    r'address\.(?:choice|words|switch|forget)\(\s*"(\w+)"|query_params(?:\.get\(|\[)\s*"(\w+)"|write\(((?:\w+=[^()]*)+)'
)


def bodies(block, *kinds: str) -> list[str]:
    """Texts of a page or of one block of it, such as `test.main`, as they were sent."""
    found = []
    for kind in kinds or WORDS:
        for each in block.get(kind):
            text = getattr(each, "body", None) or getattr(each, "value", None) or ""
            found.append(str(text))
    return found


def said(block, *kinds: str) -> str:
    """The same in one string, without the backslashes that keep Markdown plain."""
    return re.sub(r"\\(?=[^\w\s])", "", "\n".join(bodies(block, *kinds)))


def check(test) -> None:
    """No traceback, no failure of our own, and something to read in the middle of the page.

    Raises:
        AssertionError: one of these does not hold.
    """
    assert not test.exception, [error.value for error in test.exception]
    assert FAILED not in said(test), said(test, "error")
    letters = re.sub(r"<[^>]*>", "", said_html_free(test.main))
    assert len(re.findall(r"\w+", letters)) >= 5, f"a blank page: {letters!r}"


def said_html_free(block) -> str:
    """Words of a block; the style sheet is none."""
    return "\n".join(body for body in bodies(block) if not body.startswith("<style"))


def address_keys() -> list[str]:
    """Every parameter that the explorer reads from its address or writes there."""
    found = {"page"}
    for file in APPS.rglob("*.py"):
        if file.parent.name == "verbs":
            continue
        for one, other, several in _KEYS.findall(file.read_text()):
            found |= {one, other} - {""}
            found |= set(re.findall(r"(\w+)=", several))
    return sorted(found)
