"""Commands from typed functions: parsing by signature, shared option types, printing and saving results."""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from workbench.errors import ConfigError, nearest
from workbench.settings import amount

if TYPE_CHECKING:
    import pandas as pd

    from workbench.result import Result


_settings: ContextVar[dict[str, Any]] = ContextVar("settings of the running command")


def run_command(function: Callable[..., Any], program: str, words: Sequence[str]) -> int:
    """Parse the words by the function's signature and call it.

    The docstring of the function is the help text.

    Args:
        function: parameters have typer's annotations.
        program: what the user types in front of the words, such as `workbench patch`.
        words: the command line after that.

    Returns:
        The function's exit code, 0 if it returns None.

    Raises:
        ConfigError: the words do not fit the signature.
    """
    import typer
    from typer.exceptions import TyperException

    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    settings = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
    app.command(program, context_settings=settings)(function)
    command = typer.main.get_command(app)
    try:
        # Not `command.main`, which would turn signals and a closed pipe into its own exit codes.
        with command.make_context(program, list(words)) as context:
            _settings.set({"command": program, **context.params})
            return command.invoke(context) or 0
    except typer.Exit as leaving:  # after --help
        return leaving.exit_code
    except TyperException as error:
        raise ConfigError(f"{program}: {_reason(error, command)} See `{program} --help`.") from None


def _reason(error: Any, command: Any) -> str:
    """Return the parser's message as a sentence, with the nearest option in place of an unknown one."""
    option = getattr(error, "option_name", None)
    if option and type(error).__name__ == "NoSuchOption":
        options = [flag for parameter in command.params for flag in parameter.opts if flag.startswith("--")]
        return f"There is no option {option}. {nearest(option, options)}"
    return error.format_message().replace("Value error, ", "").rstrip(".") + "."


def with_options_of(other: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let a command, which takes `**options`, accept the options of another command besides its own."""

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        own = inspect.signature(function, eval_str=True)
        more = inspect.signature(other, eval_str=True).parameters
        parameters = [one for one in own.parameters.values() if one.kind is not one.VAR_KEYWORD]
        parameters += [one for name, one in more.items() if name not in own.parameters]
        parameters = [one.replace(kind=one.KEYWORD_ONLY) for one in parameters]

        @functools.wraps(function)
        def call(**options: Any) -> Any:
            return function(**options)

        del call.__wrapped__
        call.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {one.name: one.annotation for one in parameters}
        return call

    return wrap


def count(text: str | int) -> int:
    """Read `5000`, `1e6`, `50k`, `2.5M` or `1G` as a whole number of 0 or more."""
    try:
        value = 0.0 if str(text).strip() == "0" else amount(str(text), "it")
        if value != int(value):
            raise ValueError
    except (ConfigError, ValueError):
        raise ValueError(f"{text!r} is no whole number; write 5000, 1e6 or 2.5M") from None
    return int(value)


def names(values: Sequence[str] | None) -> list[str] | None:
    """Split values of an option that takes several names, with commas or given repeatedly; None if empty."""
    words = [word.strip() for value in values or () for word in value.split(",")]
    return [word for word in words if word] if values else None


def _checked_folder(name: str | None) -> str | None:
    from workbench.console import out_folder

    return None if name is None else str(out_folder(name))


RunName = Annotated[
    str, Argument(metavar="RUN", help="a run folder, run@step, or a shipped model such as zoo/tiny-4h")
]
Out = Annotated[
    str | None,
    Option(
        "--out", metavar="DIR", callback=_checked_folder, help="write tables, settings and pictures there"
    ),
]
Quiet = Annotated[bool, Option("--quiet", help="no progress bar")]
Seed = Annotated[int, Option("--seed", metavar="N", help="seed of everything random")]
Top = Annotated[int, Option("--top", min=1, metavar="N", help="rows to print")]
Stories = Annotated[int, Option("--stories", min=2, metavar="N", help="stories to read")]
Names = list[str] | None
PairsSource = Annotated[
    str | None,
    Option(
        "--pairs",
        metavar="PAIRS",
        help="minimal pairs: a folder in hub layout, .jsonl files or a hub name (default: embedded pairs)",
    ),
]
PairsData = Annotated[
    str | None,
    Option(
        "--pairs",
        "--data",
        metavar="PAIRS",
        help="minimal pairs: a folder in hub layout, .jsonl files or a hub name (default: embedded pairs)",
    ),
]
Paradigms = Annotated[
    Names,
    Option("--paradigms", "--paradigm", metavar="UID,...", help="only these paradigms (commas, or repeated)"),
]
PairLimit = Annotated[
    int | None, Option("--limit", min=1, metavar="N", help="only the first N pairs of each paradigm")
]
Protocol = Annotated[
    str, Option("--protocol", metavar="NAME", help="how a sentence is scored; see `workbench blimp --help`")
]
Pll = Annotated[str, Option("--pll", metavar="KIND", help="masked models: original or within_word_l2r")]


def emit(
    results: "Mapping[str, Result]", out: str | None, *, title: object = None, rows: int | None = None
) -> None:
    """Print the summary of each result; with a folder, save each of them there as `save_results` does.

    Args:
        results: by the name that their files get.
        out: the folder, if one was given.
        title: printed in front of the first summary, such as the run.
        rows: rows of each summary's tables.
    """
    from workbench.console import clean, show

    if title is not None:
        print(f"{clean(title)}: ", end="")
    for index, result in enumerate(results.values()):
        show("" if index else None, result.summary() if rows is None else result.summary(rows))
    if out is not None:
        save_results(results, out)


@contextmanager
def saving(out: str | None) -> "Iterator[dict[str, Result | pd.DataFrame]]":
    """Collect results and tables by name, and save them at the end, also after Ctrl-C or an error."""
    results: dict[str, Result | pd.DataFrame] = {}
    try:
        yield results
    finally:
        if out is not None and results:
            save_results(results, out)


def save_results(results: "Mapping[str, Result | pd.DataFrame]", out: str) -> None:
    """Write results and tables to a folder, and say so.

    Of a table `name`: name.parquet. Of a result: name.parquet (`to_frame`), name.png (`plot`, where there is
    one) and the folder name/, which `Result.read` opens. The options of the command go to settings.json.
    """
    from workbench.console import clean, save_picture, save_table
    from workbench.io import write_json
    from workbench.result import Result

    folder = Path(out)
    for name, result in results.items():
        if not isinstance(result, Result):
            save_table(folder / f"{name}.parquet", result)
            continue
        save_table(folder / f"{name}.parquet", result.to_frame())
        if type(result).plot is not Result.plot:
            save_picture(folder / f"{name}.png", result.plot())
        result.save(folder / name)
    settings = {
        name: value for name, value in _settings.get({}).items() if name not in ("out", "quiet", "top")
    }
    write_json(folder / "settings.json", settings)
    print(f"\nsaved: {clean(folder)} ({', '.join(results)})")
