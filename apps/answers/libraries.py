"""The large libraries, read by one session for all."""

import threading

_READING = threading.Lock()


def libraries() -> None:
    """Read torch, transformer_lens and transformers, which takes two seconds the first time. To be called
    before anything that imports them: a session that imports transformers while another has it half read
    gets a module without its names."""
    with _READING:
        import transformer_lens  # noqa: F401
        import transformers  # noqa: F401
