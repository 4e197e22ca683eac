"""The formatter formats all but tables of data, and each of these says so."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_only_tables_of_data_are_left_as_they_are() -> None:
    sources = [path for place in ("zooft", "plugins", "tests", "benchmarks") for path in (ROOT / place).rglob("*.py")]
    marked = [
        (path.relative_to(ROOT), line)
        for path in sources
        for line in path.read_text(encoding="utf-8").splitlines()
        if path != Path(__file__) and re.search(r"#\s*(fmt|yapf):", line)
    ]
    assert marked
    assert [each for each in marked if not re.search(r"# fmt: skip # a (table of|line a) \w", each[1])] == []
