"""What several test files share: nothing that is changed by a test."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# examples take as long as a busy machine makes them take, and none is remembered beside the code
settings.register_profile("zooft", deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
settings.load_profile("zooft")

_OF_THE_SHELL = (
    "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "TTY_INTERACTIVE",
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT",
    "OMP_WAIT_POLICY", "MALLOC_TRIM_THRESHOLD_", "MALLOC_ARENA_MAX", "PYTHONWARNINGS", "PYTHONOPTIMIZE",
)  # fmt: skip # a table of variables
"""Variables that change what commands do or how it looks; where the tests are run mustn't matter."""


@pytest.fixture(autouse=True, scope="session")
def _nothing_of_the_shell() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in (*_OF_THE_SHELL, *(name for name in os.environ if name.startswith("ZOOFT_"))):
            if name != "ZOOFT_TEST_DATA":
                patch.delenv(name, raising=False)
        yield


@pytest.fixture(autouse=True, scope="session")
def _a_key_of_the_tests_own(tmp_path_factory: pytest.TempPathFactory, _nothing_of_the_shell: None) -> Iterator[None]:
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
