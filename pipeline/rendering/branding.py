"""The vendor's name, addresses and colours for the templates."""

from dataclasses import dataclass
from functools import cached_property

READABLE = 4.5  # minimum contrast ratio of text, WCAG 2.2 success criterion 1.4.3
PAPER, INK = "#fcfcfd", "#24303c"  # background and text; mail programs in dark mode handle pure white and black badly


@dataclass(frozen=True)
class Branding:
    """The vendor that sends the mails: the template global `vendor`. `colour` is `#rrggbb`."""

    name: str
    url: str
    address: str
    colour: str
    product: str
    support_email: str

    @cached_property
    def accent(self) -> str:
        """The vendor's colour if it is readable on the background, otherwise the text colour."""
        return self.colour if _contrast(self.colour, PAPER) >= READABLE else INK

    @cached_property
    def on_colour(self) -> str:
        """The text colour with the higher contrast on the vendor's colour: light or dark."""
        return max((PAPER, INK), key=lambda text: _contrast(text, self.colour))


def _contrast(one: str, other: str) -> float:
    """Return the WCAG 2.2 contrast ratio of two `#rrggbb` colours, from 1 to 21."""
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
