"""Data sets of the hub: reached within seconds or not at all, and from the cache when out of reach."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from workbench.data.reading import check_column, columns_of, first_line, kind_of, missing, str_or_none
from workbench.errors import DataError

HUB_SECONDS = 4.0


def read_hub(source: str, column: str, cache: Path | None) -> dict[str, Any]:
    """The columns of `owner/name` or `owner/name:configuration`, at the newest revision.

    One request with a short time limit decides whether the hub can be reached; if not, an earlier copy in the
    cache is opened, without the minute of retries that the libraries would spend.

    Raises:
        DataError: no such data set, or out of reach and not in the cache; says how to pass local data.
    """
    import datasets
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled, RepositoryNotFoundError

    repository, _, configuration = source.partition(":")
    revision, reason = None, ""
    try:
        revision = HfApi().dataset_info(repository, timeout=HUB_SECONDS).sha
    except GatedRepoError:
        raise DataError(
            f"{repository} is gated on the hub: ask for access there, then `hf auth login`."
        ) from None
    except RepositoryNotFoundError:
        advice = missing(Path(source))
        raise DataError(f"{source} is neither a path here nor a data set on the hub. {advice}") from None
    except OfflineModeIsEnabled:
        reason = "HF_HUB_OFFLINE is set"
    except Exception as error:  # the hub's client lets the errors of its HTTP library through
        reason = first_line(error) or type(error).__name__
    with _offline(bool(reason)):
        try:
            builder = datasets.load_dataset_builder(
                repository, configuration or None, revision=revision, cache_dir=str_or_none(cache)
            )
        except (OSError, ValueError) as error:
            if not reason:
                raise
            if "onfig" in str(error):
                reason = first_line(error)
            raise DataError(
                f"{source} is neither a path here nor in the cache, and the hub is out of reach "
                f"({reason}). Download it elsewhere and pass the folder or file, --data path/to/TinyStories, "
                "or leave --data out for the embedded stories."
            ) from None
        kind_of(builder, source)
        if builder.info.features:
            check_column(list(builder.info.features), column, source)
        builder.download_and_prepare()
        return columns_of(builder.as_dataset(), column)


@contextmanager
def _offline(wanted: bool) -> Iterator[None]:
    """The hub's clients in offline mode: they look into their caches only, at once and without retries."""
    import huggingface_hub.constants as hub
    from datasets import config

    before = config.HF_HUB_OFFLINE, hub.HF_HUB_OFFLINE
    if wanted:
        config.HF_HUB_OFFLINE = hub.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE, hub.HF_HUB_OFFLINE = before
