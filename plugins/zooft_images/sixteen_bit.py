"""What a data set's pictures with 16 bits a level make of their range: reported where most of it lies idle.

A camera or a scanner of 12 bits in a 16-bit file leaves 16 of the 256 levels that a network sees, without looking wrong
to a program.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import zooft
from zooft_images.options import WHITE

if TYPE_CHECKING:
    from zooft_images.options import ImageOptions
    from zooft_images.read import Inspection

_FEW_BITS, _MANY_BITS = 12, 15


@dataclass(slots=True)
class Depths:
    """Largest values seen so far, by the bits that they need: of grey pictures in 16 bits, of colour in the upper 8."""

    grey: dict[int, int] = field(default_factory=dict)
    colour: dict[int, int] = field(default_factory=dict)
    largest: int = 0

    def add(self, seen: Inspection) -> None:
        """One more picture."""
        if seen.largest is None:
            return
        counts, bits = (self.colour if seen.in_colour else self.grey), seen.largest.bit_length()
        counts[bits] = counts.get(bits, 0) + 1
        if not seen.in_colour:
            self.largest = max(self.largest, seen.largest)

    def notes(self, options: ImageOptions) -> list[str]:
        """What the user should know."""
        return [*self._about_grey(*options.sixteen_bit_range), *self._about_colour()]

    def _about_grey(self, black: int, white: int) -> list[str]:
        number = sum(self.grey.values())
        if not number:
            return []
        bits = max(self.largest.bit_length(), 1)
        used = round(max(self.largest - black, 0) * 255 / (white - black)) + 1
        if 2 * used <= 256:
            return [
                f"warning: the largest value of {_pictures(number)} with 16 bits a level is {self.largest} of "
                f"{white}, so {used} of 256 levels are used; if {bits} bits are meant, give --sixteen-bit-range "
                f"0,{2**bits - 1}"
            ]
        few = sum(count for bits, count in self.grey.items() if bits <= _FEW_BITS)
        many = sum(count for bits, count in self.grey.items() if bits >= _MANY_BITS)
        if few and many and few + many == number:
            return [
                f"warning: {few} of {_pictures(number)} with 16 bits a level hold no value above {2**_FEW_BITS - 1}, "
                f"the others values up to {self.largest} of {WHITE}: they look like devices of different depth, and "
                "need one range"
            ]
        return []

    def _about_colour(self) -> list[str]:
        number = sum(self.colour.values())
        if not number:
            return []
        notes = [f"{_pictures(number)} with 16 bits a level in colour: the upper 8 are read"]
        used = 2 ** max(self.colour)
        if used <= 128:
            notes.append(
                f"warning: of those, no more than {used} of 256 levels are used, as where {max(self.colour) + 8} of "
                "the 16 bits are meant; convert them to 8 bits"
            )
        return notes


def _pictures(number: int) -> str:
    return zooft.pluralize(number, "picture")
