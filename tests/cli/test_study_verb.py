"""`workbench study` writes one page that needs no network, whose numbers are those of the JSON beside it."""

import copy
import json
import re
from html.parser import HTMLParser

import page_runs
import pytest

from apps.study_report.page import POLICY, study_page
from apps.study_report.style import SCRIPT

VOID = {"meta", "br", "img", "input", "hr", "link"}
DRAWN = {"line", "circle", "rect", "path", "polyline"}
EVIL = page_runs.HOSTILE_TEXT


class Page(HTMLParser):
    """Elements and text of a page; complains about what is not closed in order."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.numbers, self.scripts = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        assert tag in DRAWN

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["data"]:
            self.numbers.append((self.elements[-1][1]["value"], data))
        if self.open[-1:] == ["script"]:
            self.scripts.append(data)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("study")
    words = page_runs.tokenizer()
    page_runs.make_run(root / page_runs.HOSTILE, words, (8,))
    page_runs.make_run(root / "plain", words, (8,), layout="am")
    file = root / "stories.jsonl"
    told = [f"{EVIL} Tom saw Lily. Lily saw Tom {n} times, and Tom ran, Lily ran. <bos>" for n in range(800)]
    file.write_text("\n".join(json.dumps({"text": text}) for text in told))
    pairs = [
        {"UID": uid, "sentence_good": f"The {noun} runs.", "sentence_bad": f"The {noun} run."}
        for uid in ("<b>verbs</b> & 'x'", "nouns") for noun in ("cat", "dog", "bird")
    ]  # fmt: skip
    (root / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    return root


@pytest.fixture(scope="module")
def hostile(root):
    """The page and the numbers of a run with a hostile name, on hostile stories."""
    from apps.cli import main

    out = root / "report"
    words = ["study", root / page_runs.HOSTILE, "--out", out, "--data", root / "stories.jsonl", "--quick"]
    words += ["--pairs", root / "pairs.jsonl", "--prompt", EVIL, "--quiet"]
    assert main([*map(str, words)]) == 0
    assert {file.name for file in out.iterdir()} == {"index.html", "study.json"}
    return (out / "index.html").read_text(), json.loads((out / "study.json").read_text())


def numbers_in(value):
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from numbers_in(part)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def test_every_number_on_the_page_is_one_of_the_json(hostile):
    text, values = hostile
    known = {repr(number) for number in numbers_in(values)} | {
        repr(float(number)) for number in numbers_in(values)
    }
    page = Page(text)
    assert len(page.numbers) > 300
    for value, shown in page.numbers:
        assert value in known
        digits = len(shown.partition(".")[2])
        read = float(shown.replace("−", "-").replace(",", ""))
        assert min(abs(read - float(value)), abs(read - 100 * float(value))) <= 0.5001 * 10**-digits


def test_a_wrong_number_would_be_seen(hostile):
    values = copy.deepcopy(hostile[1])
    values["loss"]["value"] += 1e-3
    assert repr(values["loss"]["value"]) not in hostile[0]
    assert f'value="{values["loss"]["value"]!r}"' in study_page(values)


def test_the_page_asks_for_nothing(hostile):
    text, _ = hostile
    page = Page(text)
    assert not [
        attrs for _, attrs in page.elements if {"src", "href", "srcset", "action", "data"} & set(attrs)
    ]
    assert not re.search(r"url\(|@import|https?://", re.sub(r"arXiv:\S+", "", text))
    policies = [
        attrs["content"]
        for tag, attrs in page.elements
        if attrs.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policies == [POLICY]
    assert "default-src 'none'" in POLICY
    assert "unsafe-inline" not in POLICY.partition("script-src")[2]


def test_hostile_names_and_stories_stay_text(hostile):
    text, values = hostile
    page = Page(text)
    assert values["run"] == page_runs.HOSTILE
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"img", "a", "iframe", "object", "form", "link"}
    assert not [name for _, attrs in page.elements for name in attrs if name.startswith("on")]
    assert page.scripts[1:] == [SCRIPT]
    assert json.loads(page.scripts[0]) == values["attention"]["pattern"]
    assert "&lt;img src=x onerror=alert(1)&gt;" in text
    assert text.count("&lt;b&gt;verbs&lt;/b&gt; &amp; &#x27;x&#x27;") >= 3  # the accuracy and two heat tables
    assert values["sample"]["text"].startswith(EVIL)


def test_any_text_in_the_json_stays_text(hostile):
    """Every string replaced by an attack."""

    def poisoned(value, key=""):
        if isinstance(value, dict):
            return {name: poisoned(part, name) for name, part in value.items()}
        if isinstance(value, list):
            return [poisoned(part, key) for part in value]
        kept = {"method", "component", "components", "why", "kind", "paradigm", "paradigms", "attention"}
        return value if not isinstance(value, str) or key in kept else EVIL + "\x00\u2028]]>--><!--"

    values = poisoned(hostile[1])
    values["omitted"] = {EVIL: EVIL}
    page = Page(study_page(values))
    assert {tag for tag, _ in page.elements} == {tag for tag, _ in Page(hostile[0]).elements} | {
        "h3",
        "ul",
        "li",
    }
    assert len(page.scripts) == 2


def test_the_short_version_is_printed(workbench, root, tmp_path):
    words = ("--quick", "--limit", 2, "--quiet", "--pairs", root / "pairs.jsonl")
    found = workbench("study", root / "plain", "--out", tmp_path / "a b", *words)
    assert found.code == 0
    lines = [line for line in found.out.splitlines() if line.startswith("- ")]
    assert len(lines) >= 6
    assert re.match(r"- Its loss is \d+\.\d\d \(\d+\.\d\d to \d+\.\d\d\) nats a token; guessing", lines[0])
    assert not re.search(r"<|>|&", "".join(lines))
    assert "index.html and study.json" in found.out


def test_mistakes(workbench, root, tmp_path):
    file = tmp_path / "file"
    file.write_text("x")
    assert "is a file, not a folder" in workbench("study", root / "plain", "--out", file).err
    assert (
        "'--limit': Input should be greater than or equal to 2"
        in workbench("study", root / "plain", "--out", tmp_path, "--limit", 1).err
    )
    few = tmp_path / "few.jsonl"
    few.write_text('{"text": "Tom ran."}\n' * 40)
    code, _, err = workbench("study", root / "plain", "--out", tmp_path / "new", "--data", few, "--quiet")
    assert code == 2
    assert "stories" in err
    assert not (tmp_path / "new").exists()
