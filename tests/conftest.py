"""What several test files share: nothing that is changed by a test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def _a_key_of_the_tests_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Salted ids neither write beside data nor into the user's folders; one key, since modules share runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOOFT_KEY_FILE", str(tmp_path_factory.mktemp("key") / "key"))
        yield


@pytest.fixture(autouse=True)
def _stay_in_a_folder_of_ones_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs without --out go below the working directory, what they keep into a store of the test's own."""
    monkeypatch.chdir(tmp_path_factory.mktemp("work"))
    monkeypatch.setenv("ZOOFT_CACHE", str(tmp_path_factory.mktemp("store")))
    monkeypatch.delenv("ZOOFT_WEIGHTS", raising=False)
