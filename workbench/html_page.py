"""An HTML document that needs nothing else: no network, and a script only where its policy allows it."""

from html import escape

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""Content security: own styles and pictures inside the document, nothing from elsewhere, no script."""


def html(text: object) -> str:
    """Text as HTML shows it, letter for letter."""
    return escape(str(text), quote=True)


def document(title: str, style: str, body: str, policy: str = POLICY) -> str:
    """The whole document.

    Args:
        title: as text.
        style: rules.
        body: HTML, escaped where it comes from elsewhere.
        policy: its content security policy.
    """
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html(title)}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""
