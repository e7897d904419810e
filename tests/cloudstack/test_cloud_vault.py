"""What the records keep encrypted: readable with the right key, in its own place, and not else."""

from __future__ import annotations

import base64

import pytest

from harness.cloudstack.vault import Vault
from harness.runtime.threads import ThreadRuntime
from harness.spi.errors import InvalidParameter

KEY = "a key of the configuration"
PLACE = "passphrase 1"


@pytest.fixture
def vault() -> Vault:
    return Vault(ThreadRuntime("test"), KEY)


def test_a_text_is_read_back_and_never_stored_twice_alike(vault: Vault) -> None:
    first, second = vault.encrypt("secret", PLACE), vault.encrypt("secret", PLACE)
    assert first != second and b"secret" not in base64.b64decode(first)
    assert vault.decrypt(first, PLACE) == vault.decrypt(second, PLACE) == "secret"


def test_another_key_another_row_or_a_changed_text_is_refused_without_showing_any(vault: Vault) -> None:
    sealed = vault.encrypt("secret", PLACE)
    data = bytearray(base64.b64decode(sealed))
    data[-1] ^= 1
    other = Vault(ThreadRuntime("test"), KEY + ".")
    for reader, text, place in (
        (other, sealed, PLACE),
        (vault, sealed, "passphrase 2"),
        (vault, base64.b64encode(bytes(data)).decode(), PLACE),
        (vault, "no base64!", PLACE),
        (vault, "", PLACE),
    ):
        with pytest.raises(InvalidParameter, match="database_key") as caught:
            reader.decrypt(text, place)
        assert "secret" not in str(caught.value) and KEY not in str(caught.value)


def test_without_a_key_nothing_is_kept() -> None:
    vault = Vault(ThreadRuntime("test"), None)
    assert not vault.open
    for use in (vault.encrypt, vault.decrypt):
        with pytest.raises(InvalidParameter, match="database_key"):
            use("text", PLACE)
