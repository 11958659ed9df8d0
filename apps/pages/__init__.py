"""The pages of the explorer, in the order of the menu.

A page is a module with `show(frame: Frame) -> None`; it is imported when it is first looked at.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Page:
    """One entry of the menu."""

    key: str
    """What the address calls it."""
    title: str
    module: str


PAGES = {
    page.key: page
    for page in (
        Page("explain", "Explain", "apps.pages.explain.page"),
        Page("blimp", "Minimal pairs", "apps.pages.blimp.page"),
        Page("heads", "Heads and neurons", "apps.pages.heads.page"),
        Page("probes", "Probes", "apps.pages.probes.page"),
        Page("patch", "Ablate and patch", "apps.pages.patch.page"),
        Page("training", "Compare and training", "apps.pages.training.page"),
        Page("generate", "Generate", "apps.pages.generate.page"),
    )
}
