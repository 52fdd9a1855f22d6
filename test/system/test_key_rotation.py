"""Keys that are being replaced: the previous ones are good beside the new ones."""

import time

import pytest

from janus import wire
from janus.programs import Gateway, nodes_of, secret_settings
from janus.wire import Keys


def moment(offset_s):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + offset_s))


def certs_of(keys, version):
    return {"server_cert_version": version + 10, "server_cert_private_key": keys.server_pem(),
            "client_cert_version": version, "client_cert": keys.certificate_pem}


@pytest.fixture(scope="module")
def older():
    return Keys(account_key=b"an account key a")


@pytest.fixture(scope="module")
def old():
    return Keys(account_key=b"an account key that was before.!")


@pytest.fixture(scope="module")
def gateway(start_module, backend, keys, old, older):
    """In the middle of a rotation: `keys` are current, `old` are good, `older` no longer."""
    secrets = secret_settings(keys)
    secrets["secret"].update(certs_of(keys, 3), previous=[
        {"account_aes_key": old.account_key.decode(), **certs_of(old, 2), "until": moment(3600)},
        {"account_aes_key": older.account_key.decode(), **certs_of(older, 1),
         "until": moment(-1)}])
    return start_module(Gateway, nodes=nodes_of(backend.address), secrets=secrets)


def login(gateway, keys, cert_version=0, token=None):
    """By those keys; a token of None is one under their account key. Plays a message."""
    with gateway.client() as client:
        client.keys = keys
        answer = client.login(cert_version=cert_version, token=token)
        assert client.ask(wire.USER, 1, b"hello").data == b"hello"
        return answer


def refused(gateway, keys, reason, **changes):
    with gateway.closes(reason):
        with gateway.client() as client:
            client.keys = keys
            client.send_raw(client.handshake_frame(**changes))
            assert client.receive_end() is None


def by_previous(gateway):
    counters = gateway.total()["counters"]
    return counters["logins_by_previous_account_key"], counters["logins_by_previous_certs"]


def test_new_keys_serve_and_do_not_count_as_previous(gateway, keys):
    before = by_previous(gateway)
    assert login(gateway, keys, cert_version=3).cert_version == 13
    assert login(gateway, keys).cert_version == 0
    assert by_previous(gateway) == before


def test_all_of_the_old_keys_serve_and_are_counted(gateway, old):
    account, certs = by_previous(gateway)
    assert login(gateway, old, cert_version=2).cert_version == 12
    login(gateway, old)  # names no version
    assert by_previous(gateway) == (account + 2, certs + 2)


def test_token_and_certificate_need_not_be_of_the_same_age(gateway, keys, old):
    account, certs = by_previous(gateway)
    login(gateway, keys, cert_version=3, token=old.token())
    assert by_previous(gateway) == (account + 1, certs)
    login(gateway, old, cert_version=2, token=keys.token())
    assert by_previous(gateway) == (account + 1, certs + 1)


def test_keys_whose_time_is_over_are_refused(gateway, keys, older):
    refused(gateway, keys, "token_seal", token=older.token())
    refused(gateway, older, "handshake_signature", token=keys.token(), cert_version=1)


def test_an_old_key_does_not_serve_under_the_new_version(gateway, old):
    refused(gateway, old, "handshake_signature", cert_version=3)


def test_no_key_is_ever_logged(gateway, keys, old):
    login(gateway, old, cert_version=2)
    for text in (keys.account_key.decode(), old.account_key.decode(), "PRIVATE KEY"):
        assert not any(text in line for line in gateway.lines)
