"""Arrays on disk that were computed once: memory-mapped, checked, bounded, safe among processes.

A shelf is a folder named for a hash of everything that its records depend on, so that another model, another
preprocessing or another version finds another shelf. Its records lie in segments, files that are written whole under
another name, synchronised, renamed, and never changed. Nothing here stops a job: what can't be written isn't stored,
and what can't be read is missing.
"""

from __future__ import annotations

from zooft.storage.cache.folders import Cleaned, ShelfInfo
from zooft.storage.cache.memory import MemoryShelf, MemoryStore
from zooft.storage.cache.shelf import Shelf, Store, default_folder, default_store
from zooft.storage.cache.sizes import parse_size, size_text

__all__ = [
    "Cleaned",
    "MemoryShelf",
    "MemoryStore",
    "Shelf",
    "ShelfInfo",
    "Store",
    "default_folder",
    "default_store",
    "parse_size",
    "size_text",
]
