"""Salted hashes, the key behind them, and silence of the libraries below."""

from __future__ import annotations

import hashlib
import hmac
import logging
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PureWindowsPath

import pytest

import zooft
from zooft_ct import privacy


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(privacy.KEY_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))


def test_a_hash_is_the_first_16_digits_of_hmac_sha256() -> None:
    expected = hmac.new(b"k" * 32, b"patient\x00007", hashlib.sha256).hexdigest()[:16]
    assert privacy.hash_value(privacy.Key(b"k" * 32), "patient", "007") == expected


def test_kinds_and_keys_give_hashes_of_their_own() -> None:
    one, other = privacy.Key(b"1" * 32), privacy.Key(b"2" * 32)
    hashes = {
        privacy.hash_value(one, "patient", "7"),
        privacy.hash_value(one, "file", "7"),
        privacy.hash_value(other, "file", "7"),
    }
    assert len(hashes) == 3


def test_a_key_doesnt_show_itself() -> None:
    assert repr(privacy.Key(b"secret" * 6)) == "Key()"


def test_a_run_makes_the_key_once_in_the_data_folder_and_for_its_owner_alone(tmp_path: Path) -> None:
    privacy.keep_key(tmp_path)
    key = privacy.key_of(tmp_path)
    assert (tmp_path / ".zooft-key").read_bytes() == key.secret
    assert (tmp_path / ".zooft-key").stat().st_mode & 0o777 == 0o600
    privacy.keep_key(tmp_path)
    assert privacy.key_of(tmp_path) == key
    assert privacy.key_of(tmp_path / "labels.csv") == key
    assert [path.name for path in tmp_path.iterdir()] == [".zooft-key"]


def test_what_only_reads_writes_nothing_beside_the_data_and_a_run_reuses_its_key(tmp_path: Path) -> None:
    key = privacy.key_of(tmp_path)
    privacy.key_near([tmp_path])
    privacy.keep_key(tmp_path)
    assert privacy.key_of(tmp_path) == privacy.key_near([tmp_path]) == key
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_closed_to_writing_has_its_key_with_the_user(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    privacy.keep_key(tmp_path)
    key = privacy.key_of(tmp_path)
    assert privacy.key_of(tmp_path) == key
    assert not list(tmp_path.iterdir())
    tmp_path.chmod(0o700)


@pytest.mark.parametrize("data", [".", "labels.csv"])
def test_no_key_lands_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str) -> None:
    monkeypatch.chdir(tmp_path)
    privacy.keep_key(Path(data))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("home", ["", "here", "~nobody-of-this-name"])
def test_a_user_without_folders_gets_a_key_for_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", home)
    monkeypatch.chdir(tmp_path)
    privacy._temporary_key.cache_clear()
    assert privacy.key_of(None) == privacy.key_of(None)
    assert not list(tmp_path.iterdir())
    assert "of this command alone" in caplog.text
    with pytest.raises(zooft.DataError, match="there is no place for the key"):
        privacy.keep_key(tmp_path)


def test_a_key_that_somebody_left_in_a_folder_open_to_all_isn_t_used(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / privacy.KEY_FILE).write_bytes(b"k" * 32)
    tmp_path.chmod(0o777)
    assert privacy.key_near([tmp_path / "own"]) == privacy.key_of(None) != privacy.Key(b"k" * 32)
    tmp_path.chmod(0o755)
    assert privacy.key_near([tmp_path / "own"]) == privacy.Key(b"k" * 32)


def test_the_variable_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(privacy.KEY_VARIABLE, str(tmp_path / "kept" / "key"))
    key = privacy.key_of(tmp_path)
    assert (tmp_path / "kept" / "key").read_bytes() == key.secret
    assert privacy.key_of(None) == key
    monkeypatch.setenv(privacy.KEY_VARIABLE, str(tmp_path / "kept" / "key" / "below a file"))
    with pytest.raises(zooft.DataError, match="key"):
        privacy.key_of(tmp_path)
    monkeypatch.setenv(privacy.KEY_VARIABLE, "key")
    with pytest.raises(zooft.ConfigError, match="has to be a whole path"):
        privacy.key_of(tmp_path)


def test_a_damaged_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".zooft-key").write_bytes(b"short")
    with pytest.raises(zooft.DataError, match="has 5 bytes instead of 32"):
        privacy.key_of(tmp_path)


def test_processes_that_start_together_agree_on_the_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(privacy.key_of, [tmp_path] * 16))
    assert len(keys) == 1


def test_the_owner_finds_the_file_behind_an_id(tmp_path: Path) -> None:
    path = tmp_path / "a" / "DOE.dcm"
    path.parent.mkdir()
    path.touch()
    name = privacy.file_id(privacy.key_of(tmp_path), tmp_path, path)
    assert "DOE" not in name
    assert privacy.find(tmp_path, name) == path
    assert privacy.find(tmp_path, "file 0000000000000000") is None


def test_libraries_are_kept_from_printing_values(caplog: pytest.LogCaptureFixture) -> None:
    from pydicom.dataset import Dataset

    with warnings.catch_warnings(record=True) as messages, caplog.at_level(logging.DEBUG):
        warnings.simplefilter("always")
        with privacy.quiet_pydicom():
            Dataset().PatientAge = "Doe John"
            logging.getLogger("pydicom").warning("Doe John")
            logging.getLogger("pydicom.pixels.decoders.base").warning("Doe John")
        assert not messages
        assert not caplog.records
        logging.getLogger("pydicom").warning("as before")
        assert [record.message for record in caplog.records] == ["as before"]


def test_names_need_no_root_that_windows_drives_share() -> None:
    assert privacy.relative(None, PureWindowsPath("D:/scans/a.dcm")) == "D:/scans/a.dcm"
    assert privacy.relative(Path("data"), Path("data/scans/a.dcm")) == "scans/a.dcm"


def test_file_systems_without_hard_links_have_their_key_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    privacy.keep_key(tmp_path)
    key = privacy.key_of(tmp_path)
    assert privacy.key_of(tmp_path) == key
    assert (tmp_path / privacy.KEY_FILE).read_bytes() == key.secret
    assert (tmp_path / privacy.KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [privacy.KEY_FILE]
