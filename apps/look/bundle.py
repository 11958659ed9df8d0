"""CircuitsVis' JavaScript, served by the page itself: no view loads anything from another host."""

import hashlib
import importlib.util
from functools import cache
from pathlib import Path

from workbench.errors import InputError
from workbench.io import write_bytes

STATIC = Path(__file__).resolve().parents[1] / "static"


@cache
def bundle_url(static: Path = STATIC) -> str | None:
    """The bundle's address below the server's root; it is copied from the installed wheel on first use.

    Its name holds the hash of its content, so a browser never keeps an old one.

    Returns:
        None if the folder cannot be written; the bundle then goes into each view.
    """
    data = bundle()
    name = f"circuitsvis-{hashlib.sha256(data).hexdigest()[:12]}.js"
    path = static / name
    try:
        if not path.is_file() or path.read_bytes() != data:
            write_bytes(path, data)
    except OSError:
        return None
    return f"app/static/{name}"


@cache
def bundle() -> bytes:
    """The bundle itself, without its pointer to a source map that is not served.

    Raises:
        InputError: circuitsvis is not installed.
    """
    found = importlib.util.find_spec("circuitsvis")
    if found is None or found.origin is None:
        raise InputError("attention views need circuitsvis: pip install 'interp-workbench[app]'.")
    code = (Path(found.origin).parent / "dist" / "cdn" / "iife.js").read_bytes()
    return code.partition(b"\n//# sourceMappingURL=")[0] + b"\n"
