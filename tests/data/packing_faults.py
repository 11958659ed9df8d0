"""Run by test_packing.py in a process of its own: packs in forked children that are killed, starved or raced.

Usage: python packing_faults.py SCENARIO FOLDER [RANDOM KILLS]; prints one JSON object.
"""

import errno
import json
import os
import random
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

from workbench.data.corpus import open_corpus
from workbench.data.packing import open_packed, pack, verify
from workbench.data.tokenizer import train_tokenizer
from workbench.errors import DataError
from workbench.io import sha256


def child(work):
    """Fork; the child does `work` and exits with 0, or 3 after a DataError that it prints to a file."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except DataError as error:
        (Path(sys.argv[2]) / f"error-{os.getpid()}").write_text(str(error))
        code = 3
    finally:
        os._exit(code)


def left(cache):
    """Everything but locks and whole folders that is in the cache's packed folder."""
    return sorted(path.name for path in (cache / "packed").glob("*") if path.name.endswith(".tmp"))


def state(cache):
    """Folders under their final names: each must be whole, to the last byte."""
    whole = []
    for folder in (cache / "packed").glob("[!.]*"):
        verify(open_packed(folder))
        whole.append({path.name: sha256(path) for path in sorted(folder.iterdir())})
    return whole


def counted(number):
    """Die by SIGKILL at the given one of all writes to disk, fsyncs and renames."""
    calls = 0

    def wrap(function):
        def wrapped(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return wrapped

    for name in ("fsync", "rename", "replace", "chmod"):
        setattr(os, name, wrap(getattr(os, name)))
    Path.write_bytes = wrap(Path.write_bytes)


def kills(cache, do, reference, moments):
    started = time.perf_counter()
    do(cache / "timing")
    takes = time.perf_counter() - started
    whole = died = 0
    rng = random.Random(0)
    for number in range(1, 21 + moments):  # at each system call that commits something, then at random
        place = cache / str(number)

        def work(place=place, number=number):
            if number <= 20:
                counted(number)
            do(place)

        pid = child(work)
        if number > 20:
            time.sleep(rng.random() * takes * 1.1)
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        died += os.WIFSIGNALED(status)
        found = state(place)
        assert found in ([], [reference]), "a half-written cache was taken for a whole one"
        whole += bool(found)
        do(place)
        assert state(place) == [reference]
        assert left(place) == []
        shutil.rmtree(place)
    return {"killed": died, "whole": whole}


def race(cache, do, reference, locks=True):
    if not locks:
        import fcntl

        def refuse(*_):
            raise OSError(errno.ENOLCK, "No locks available")

        fcntl.flock = refuse
    pids = [child(lambda: do(cache)) for _ in range(4)]
    codes = [os.WEXITSTATUS(os.waitpid(pid, 0)[1]) for pid in pids]
    return {"codes": codes, "same": state(cache) == [reference], "left": left(cache)}


def full(cache, do, limit):
    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        do(cache)

    pid = child(work)
    code = os.WEXITSTATUS(os.waitpid(pid, 0)[1])
    message = (Path(sys.argv[2]) / f"error-{pid}").read_text() if code == 3 else ""
    return {"code": code, "message": message, "left": left(cache), "whole": len(state(cache))}


def main():
    scenario, folder = sys.argv[1], Path(sys.argv[2])
    corpus = open_corpus(n_stories=600)
    tokenizer = train_tokenizer(corpus.train[:200], 500)

    def do(cache):
        pack(corpus, tokenizer, 64, cache)

    do(folder / "reference")
    (reference,) = state(folder / "reference")
    if scenario == "kills":
        result = kills(folder / "kills", do, reference, int(sys.argv[3]))
    elif scenario == "race":
        rounds = [race(folder / f"race{number}", do, reference, locks=number < 2) for number in range(8)]
        result = {"locked": rounds[:2], "unlocked": rounds[2:]}
    else:
        result = {"packing": full(folder / "full", do, 100_000), "manifest": full(folder / "full2", do, 500)}
        stories = folder / "tales.jsonl"
        stories.write_text("".join(json.dumps({"text": story}) + "\n" for story in corpus.train))
        result["reading"] = full(
            folder / "full3", lambda _: open_corpus(str(stories), cache=folder / "arrow"), 100_000
        )
        result["arrow"] = [str(path) for path in (folder / "arrow").rglob("*.arrow")]
    print(json.dumps(result))


main()
