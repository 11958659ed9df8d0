"""Where a task's corpus lies: what `--data` names, or a folder in it."""

import os
from pathlib import Path

from probes.conllu import is_treebank
from workbench.errors import DataError, shown

_NAMES = {"ud": "treebank (.conllu, .conllu.gz)", "stories": "stories", "blimp": "minimal pairs"}
_FOLDERS = {"stories": ("tinystories", "stories"), "blimp": ("blimp",), "ud": ("ud",)}


def need_limit(limit: int | None) -> None:
    """Refuse a limit of documents below 1.

    Raises:
        DataError: it is.
    """
    if limit is not None and limit < 1:
        raise DataError(f"limit={limit}: at least 1 document.")


def find_source(data: str | None, corpus: str) -> str | None:
    """The file or folder that a task reads.

    Args:
        data: a corpus, or a folder that holds several (such as one with a treebank, TinyStories and BLiMP);
            None or `embedded` for what comes with the package.
        corpus: kind of corpus that the task reads.

    Returns:
        None for what comes with the package. A name that is no path is left as it is: it may be the hub's.

    Raises:
        DataError: a folder that holds no such corpus.
    """
    if data is None or data == "embedded" or corpus in ("embedded", "own"):
        return None if corpus != "own" else data
    place = Path(data).expanduser()
    if not os.path.isdir(place):
        return str(data)
    if corpus == "ud":
        if is_treebank(place):
            return str(place)
        found = [one for one in sorted(place.iterdir()) if one.is_dir() and is_treebank(one)]
    else:
        wanted = _FOLDERS[corpus]
        inside = [one for one in sorted(place.iterdir()) if one.is_dir()]
        found = [one for one in inside if one.name.lower() in wanted]
        if not found and not any(one.name.lower() in sum(_FOLDERS.values(), ()) for one in inside):
            return str(place)  # the corpus itself, whatever it is called
    if not found:
        raise DataError(f"{shown(data)} holds no {_NAMES[corpus]}, and no folder of it does.")
    return str(found[0])
