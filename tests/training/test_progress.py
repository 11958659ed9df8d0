"""The progress line: seldom drawn, never in the way, and nothing breaks when the terminal goes."""

import io
import time

import pytest

from workbench.console import Progress, clock, short


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


def test_on_a_terminal_one_line_is_redrawn_at_most_five_times_a_second(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    progress = Progress("tiny", stream)
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        if progress.due():
            progress.update(0.43, "step 12  loss 2.314")
    progress.close()
    text = stream.getvalue()
    assert 2 <= text.count("step 12") <= 4
    assert "\n" not in text
    assert text.endswith("\r\x1b[2K")
    assert "━" * 9 + "\x1b[2m" + "─" * 11 in text
    assert "43%" in text


def test_sentences_stand_above_the_line(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    progress = Progress("tiny", stream)
    progress.update(0.5, "half")
    progress.say("step 3  validation loss 1.000")
    assert stream.getvalue().endswith("\r\x1b[2Kstep 3  validation loss 1.000\n")
    assert progress.due()


@pytest.mark.parametrize("columns", [10, 40, 80, 200])
def test_the_line_fits_the_terminal(columns, monkeypatch):
    import re

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = Terminal()
    Progress("a-rather-long-name-of-a-run", stream).update(
        0.5, "step 1,000  loss 2.314  81.2k tok/s  12:01 left"
    )
    shown = re.sub(r"\x1b\[\d*[mK]|\r", "", stream.getvalue())
    assert 0 < len(shown) < max(columns, 2)


def test_without_a_terminal_lines_are_rare_and_plain():
    stream = io.StringIO()
    progress = Progress("tiny", stream, pause=0.1)
    end = time.monotonic() + 0.35
    while time.monotonic() < end:
        if progress.due():
            progress.update(0.5, "step 1")
    progress.close()
    assert set(stream.getvalue().splitlines()) == {"tiny   50%  step 1"}
    assert 2 <= stream.getvalue().count("\n") <= 4


def test_quiet_says_only_sentences():
    stream = Terminal()
    progress = Progress("tiny", stream, quiet=True)
    assert not progress.due()
    progress.update(0.5, "x")
    progress.say("validation loss 1.0")
    progress.close()
    assert stream.getvalue() == "validation loss 1.0\n"


class Gone(Terminal):
    """A terminal whose window was closed."""

    def write(self, text):
        raise OSError(5, "Input/output error")


def test_a_terminal_that_goes_away_is_no_error(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    progress = Progress("tiny", Gone())
    for _ in range(3):
        progress.update(0.5, "x")
        progress.say("y")
    progress.close()


def test_a_stream_that_knows_no_unicode(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    stream.isatty = lambda: True  # type: ignore[method-assign]
    progress = Progress("tiny", stream)
    progress.update(0.5, "x")
    progress.say("validation loss 1.0")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.4, "0:59"), (59.6, "1:00"), (245, "4:05"), (3723, "1:02:03")]
)
def test_clock(seconds, text):
    assert clock(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (812, "812"), (81_234, "81.2k"), (3.4e6, "3.4M"), (2e9, "2.0G")]
)
def test_short(value, text):
    assert short(value) == text
