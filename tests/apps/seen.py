"""What an AppTest shows, and what the address can say: shared by the tests that go over every page."""

import ast
import re
from pathlib import Path

from apps.frame.told import FAILED

APPS = Path(__file__).resolve().parents[2] / "apps"
WORDS = ("html", "markdown", "caption", "error", "warning", "info", "success", "title", "header", "subheader",
         "text", "code", "metric", "toast")  # fmt: skip


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
    for room in ("frame", "pages"):
        for file in (APPS / room).rglob("*.py"):
            for call in ast.walk(ast.parse(file.read_text())):
                if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
                    continue
                owner = ast.unparse(call.func.value)
                first = call.args[0] if call.args else None
                if owner in ("address", "st.query_params") and isinstance(first, ast.Constant):
                    found.add(str(first.value))
                if owner == "address" and call.func.attr == "write":
                    found |= {each.arg for each in call.keywords if each.arg}
    return sorted(found)
