"""Print the README's paragraph about the family, from its files."""

import sys


def main() -> int:
    """Print the paragraph and return the exit code."""
    from workbench.errors import WorkbenchError
    from workbench.zoo.paragraph import paragraph

    try:
        print(paragraph(), end="")
    except WorkbenchError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
