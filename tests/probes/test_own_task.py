"""A task of the user's own: a .jsonl file or a function, with every way of getting it wrong."""

import json

import pytest

from probes.align import align
from probes.examples import Document, Item
from probes.tasks import TASKS, load_task
from workbench.data.embedded.stories import stories
from workbench.data.tokenizer import train_tokenizer
from workbench.errors import DataError

GOOD = [
    {"text": "Lily saw a dog.", "span": [0, 4], "label": "person"},
    {"text": "Lily saw a dog.", "span": [11, 14], "label": "animal"},
    {"text": "A cat met Max.", "span": [10, 13], "label": "person", "group": "g", "word": "NAME"},
    {"text": "A cat met Max.", "span": [2, 5], "label": "animal", "group": "g"},
]


def written(folder, rows, name="mine.jsonl"):
    path = folder / name
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def test_a_file(tmp_path):
    path = written(tmp_path, [*GOOD[:2], "", *GOOD[2:]])
    task = load_task(path)
    assert (task.name, task.kind, task.n_spans, task.corpus) == ("mine", "classes", 1, "own")
    one, two = task.documents()
    assert [len(one.items), len(two.items)] == [2, 2]
    assert one.items[0] == Item(((0, 4),), "person", "lily")
    assert two.items[0] == Item(((10, 13),), "person", "NAME")
    assert two.group == "g"
    assert one.group.startswith("text ")
    assert len(list(task.documents(limit=1))) == 1
    tokenizer = train_tokenizer(stories(50), 400)
    assert align(load_task(str(path)).documents(), tokenizer, 40).classes == ("animal", "person")


def test_the_same_text_is_one_group_wherever_it_stands(tmp_path):
    task = load_task(written(tmp_path, [GOOD[0], GOOD[2], GOOD[1]]))
    groups = [document.group for document in task.documents()]
    assert groups[0] == groups[2] != groups[1]


@pytest.mark.parametrize(
    ("rows", "kind", "n_spans"),
    [
        ([{"text": "A cat.", "span": [0, 1], "label": 2}], "number", 1),
        ([{"text": "A cat.", "span": [0, 1], "label": True}], "classes", 1),
        ([{"text": "A cat.", "spans": [[0, 1], [2, 5]], "label": "det"}], "classes", 2),
        ([{"text": "A cat.", "spans": [[0, 1], [2, 5]], "label": 1.5}], "distance", 2),
    ],
)
def test_kinds(tmp_path, rows, kind, n_spans):
    task = load_task(written(tmp_path, rows))
    assert (task.kind, task.n_spans) == (kind, n_spans)


def row(**changes):
    return GOOD[0] | changes


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("{", r"line 2: not JSON \(.*\); such as"),
        ("[1]", "line 2: a list, where an object such as"),
        ("[" * 100000, "line 2: not JSON"),
        ({"text": "A cat."}, "give either 'span'"),
        (row(spans=[[0, 1]]), "give either 'span'"),
        (row(spn=[0, 1]), r"field 'spn' means nothing here. Did you mean 'span'\?"),
        (row(text=""), "field 'text' is blank, not text"),
        (row(text=7), "field 'text' is 7, not text"),
        (row(span=[0, 99]), r"span \[0, 99\] is not in its text of 15 characters"),
        (row(span=[-1, 2]), r"span \[-1, 2\] is not in its text"),
        (row(span=[3, 3]), r"span \[3, 3\]"),
        (row(span=[4, 5]), r"span \[4, 5\] holds nothing but white space"),
        (row(span=[0.0, 4]), "two whole numbers"),
        (row(span=[True, 4]), "two whole numbers"),
        (row(span=[0, 1, 2]), "two whole numbers"),
        (row(span="0:4"), "two whole numbers"),
        (row(span=[0, 10**5000]), r"is not in its text|digits"),
        (row(label=None), "field 'label' is None"),
        (row(label=""), "field 'label' is blank"),
        (row(label=["a"]), "not text"),
        (row(label="x" * 201), "a label of 201 characters"),
        (row(word="x" * 201), "'word' has 201 characters"),
        (row(group=3), "field 'group' is 3, not text"),
        (row(label=3), "is of another kind than the first label"),
        ('{"text": "A cat.", "span": [0, 1], "label": NaN}', "no number that a probe can learn"),
        ('{"text": "A cat.", "span": [0, 1], "label": 1e999}', "no number that a probe can learn"),
        ('{"text": "A \\ud800", "span": [0, 1], "label": "x"}', "half a surrogate pair"),
        ({"text": "A cat.", "spans": [], "label": "x"}, "not a list of one or two"),
        ({"text": "A cat.", "spans": [[0, 1]] * 3, "label": "x"}, "not a list of one or two"),
    ],
)
def test_a_bad_line_is_named(tmp_path, bad, words):
    try:
        path = written(tmp_path, [GOOD[0], bad])
    except ValueError:  # json cannot write a number of thousands of digits
        path = written(
            tmp_path, [GOOD[0], '{"text": "A cat.", "span": [0, 1%s], "label": "x"}' % ("0" * 3000)]
        )
    with pytest.raises(DataError, match=words) as caught:
        list(load_task(path).documents())
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    assert "mine" in message


def test_hostile_content_is_kept_as_text(tmp_path):
    hostile = "<script>alert(1)</script>\x1b[31m$x^2$ 😀"
    rows = [{"text": hostile, "span": [0, 8], "label": hostile, "group": hostile} for _ in range(3)]
    (document,) = load_task(written(tmp_path, rows)).documents()
    assert document.text == hostile
    assert document.items[0].label == hostile


def test_bad_files(tmp_path):
    with pytest.raises(DataError, match=r"mine\.jsonl cannot be read: No such file"):
        load_task(tmp_path / "mine.jsonl")
    with pytest.raises(DataError, match="holds no labels: each line is one"):
        load_task(written(tmp_path, ["", "  "]))
    (tmp_path / "latin.jsonl").write_bytes('{"text": "café"}'.encode("latin1"))
    with pytest.raises(DataError, match=r"latin\.jsonl, line 1: not UTF-8 \(byte 14\)"):
        load_task(tmp_path / "latin.jsonl")
    (tmp_path / "long.jsonl").write_bytes(b"x" * 2**24)
    with pytest.raises(DataError, match="line 1: over 16,777,216 bytes"):
        load_task(tmp_path / "long.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        load_task(tmp_path / "folder.jsonl")


def rhymes():
    for text in ("A cat.", "A hat.", "A dog."):
        yield Document(text, text, (Item(((2, 5),), str(text.endswith("at.")), text[2:5]),))


def dictionaries(source=None):
    yield {"text": source or "A cat.", "span": [0, 1], "label": "x"}


def fails():
    yield from rhymes()
    raise ZeroDivisionError("by zero\nand a second line")


def test_functions():
    task = load_task(rhymes)
    assert (task.name, task.kind) == ("rhymes", "classes")
    assert [one.items[0].label for one in task.documents(limit=2)] == ["True", "True"]
    assert [one.text for one in load_task(dictionaries).documents("Another")] == ["Another"]
    assert [one.text for one in load_task(dictionaries).documents()] == ["A cat."]


def test_functions_by_name(tmp_path, monkeypatch):
    (tmp_path / "my_tasks.py").write_text(
        "from probes.tasks import TASKS\n"
        "def rhymes():\n    return [{'text': 'A cat.', 'span': [2, 5], 'label': 'at'}]\n"
        "again = TASKS['pos']\nnumber = 3\n"
    )
    (tmp_path / "broken_tasks.py").write_text("import nothing_like_this\n")
    (tmp_path / "failing_tasks.py").write_text("\n\n1 / 0\n")
    monkeypatch.chdir(tmp_path)
    assert load_task("my_tasks:rhymes").name == "rhymes"
    assert load_task("my_tasks:again") is TASKS["pos"]
    for target, words in (
        ("my_tasks:rhyms", "my_tasks has no 'rhyms'. Did you mean 'rhymes'"),
        ("my_tasks:number", "my_tasks:number is 3, neither a function nor a Task"),
        ("other_tasks:rhymes", "No module 'other_tasks'"),
        ("broken_tasks:rhymes", "broken_tasks needs nothing_like_this, which is not installed"),
        (
            "failing_tasks:rhymes",
            r"cannot be imported: ZeroDivisionError: division by zero \(failing_tasks\.py, line 3\)",
        ),
        (":rhymes", "write module:function"),
        ("a b:c", "write module:function"),
    ):
        with pytest.raises(DataError, match=words):
            load_task(target)


def test_functions_that_go_wrong():
    with pytest.raises(
        DataError,
        match=r"fails failed after 3 items: ZeroDivisionError: by zero and a second line \(test_own",
    ):
        list(load_task(fails).documents())
    for function, words in (
        (lambda: [], "gave no documents"),
        (lambda: [3], "item 1: a int, where an object"),
        (lambda: [Document("A cat.", "g", ())], "first document has no items"),
        (lambda: [Document("A cat.", "g", (Item(((0, 99),), "x", "w"),))], "span .0, 99. is not in its text"),
        (lambda: 3, "'int' object is not iterable"),
        (lambda a, b: [], "needs more than a source"),
    ):
        with pytest.raises(DataError, match=words):
            list(load_task(function).documents())
