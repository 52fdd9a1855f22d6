"""janus-keys and janus-client as their users have them: keys made by one serve the other."""

import base64
import json
import os
import re
import stat

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from janus.programs import Gateway, nodes_of, run
from janus.wire import AuthToken, seal, token_text


def keys(*arguments, exit_code=0):
    done = run("janus-keys", *arguments)
    assert done.returncode == exit_code, done.stderr
    return done.stdout


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.fixture
def folder(tmp_path):
    keys("init", str(tmp_path / "keys"))
    return tmp_path / "keys"


def test_a_whole_set_is_made_with_private_files_private(folder):
    assert sorted(os.listdir(folder)) == ["client.key", "secret.conf", "server.pub"]
    assert mode(folder / "secret.conf") == 0o600
    assert mode(folder / "client.key") == 0o600
    config = folder / "janus.conf"
    config.write_text('@include "secret.conf"\n')
    assert run("janusd", "-t", "-c", str(config)).returncode == 0


def test_nothing_is_written_over_without_force(folder):
    before = (folder / "secret.conf").read_text()
    keys("init", str(folder), exit_code=1)
    assert (folder / "secret.conf").read_text() == before
    os.chmod(folder / "secret.conf", 0o644)
    keys("init", str(folder), "--force")
    assert (folder / "secret.conf").read_text() != before
    assert mode(folder / "secret.conf") == 0o600


def test_the_group_that_may_read_the_secrets_stays_so(folder):
    before = (folder / "secret.conf").read_text()
    os.chmod(folder / "secret.conf", 0o640)
    keys("init", str(folder), "--force")
    assert (folder / "secret.conf").read_text() != before
    assert mode(folder / "secret.conf") == 0o640
    assert mode(folder / "client.key") == 0o600


def test_a_set_is_made_whole_or_not_at_all(folder):
    os.remove(folder / "secret.conf")
    keys("init", str(folder), exit_code=1)
    assert not (folder / "secret.conf").exists()


@pytest.mark.parametrize("length", [16, 24, 32])
def test_account_keys_come_in_each_length(length, tmp_path):
    assert len(keys("account-key", "--bytes", str(length)).strip()) == length
    keys("init", str(tmp_path / "set"), "--bytes", str(length))
    config = tmp_path / "set" / "janus.conf"
    config.write_text('@include "secret.conf"\n')
    assert run("janusd", "-t", "-c", str(config)).returncode == 0


def test_the_client_certificate_is_as_asked_for():
    text = keys("client-cert", "--days", "7")
    certificate = x509.load_pem_x509_certificate(text[text.index("-----BEGIN CERT"):].encode())
    assert certificate.version == x509.Version.v3
    assert isinstance(certificate.public_key(), Ed25519PublicKey)
    assert 7 <= (certificate.not_valid_after - certificate.not_valid_before).days <= 8


def test_a_token_says_what_it_was_made_with(folder):
    secret = str(folder / "secret.conf")
    token = keys("token", "--secret", secret, "--uid", "-7", "--color", "green", "--sid", "9",
                 "--status", "admin", "--lifetime", "2h").strip()
    shown = dict(line.split(None, 1) for line in
                 keys("show-token", "--secret", secret, token).splitlines())
    assert (shown["uid"], shown["color"], shown["sid"], shown["status"]) == ("-7", "green", "9", "3")
    other = keys("account-key").strip()
    other_file = folder / "other"
    other_file.write_text(other + "\n")
    keys("show-token", "--account-key-file", str(other_file), token, exit_code=1)


@pytest.mark.parametrize("start", ["-", "--", "_"])
def test_a_token_that_begins_like_an_option_is_shown(folder, keys, start):
    # The first letters of a token are its nonce's.
    nonce = base64.urlsafe_b64decode((start + "AAAAAAAAAAAAAAAA")[:16])
    token = token_text(seal(keys.account_key, AuthToken(account_id=5).encode(), nonce))
    assert token.startswith(start)
    file = folder / "account.key"
    file.write_bytes(keys.account_key)
    for words in (("--account-key-file", file, token), (token, "--account-key-file", file)):
        assert "uid       5\n" in run("janus-keys", "show-token", *map(str, words)).stdout


@pytest.mark.parametrize("arguments", [
    [], ["nothing"], ["init"], ["token", "--uid", "many"], ["token", "--lifetime", "3 weeks"],
    ["account-key", "--bytes", "20"], ["--unknown"], ["token", "extra", "words"]])
def test_wrong_usage_exits_2(arguments):
    keys(*arguments, exit_code=2)


# --- With janus-client ---------------------------------------------------------------------


@pytest.fixture
def gateway(start, backend, folder):
    """A gateway that has the secrets janus-keys made."""
    made = start(Gateway, nodes=nodes_of(backend.address), start=False)
    with open(folder / "secret.conf") as secret:
        with open(os.path.join(made.directory, "secret.conf"), "w") as out:
            out.write(secret.read())
    Gateway.start(made)
    return made


def client(gateway, folder, commands, *arguments):
    address = ":".join(map(str, gateway.address))
    return run("janus-client", "--connect", address, "--keys", str(folder), "--color", "blue",
               *arguments, "-e", commands)


def test_a_player_logs_in_with_those_keys(gateway, folder):
    done = client(gateway, folder, 'send user 1 data="hello"; expect mod=user data="hello"; close')
    assert done.returncode == 0, done.stdout


def test_an_expectation_that_fails_exits_1(gateway, folder):
    done = client(gateway, folder, 'send user 1 data="hello"; expect data="bye" within=200ms')
    assert done.returncode == 1


def test_no_login_exits_3(gateway, folder, tmp_path):
    keys("init", str(tmp_path / "other"))
    assert client(gateway, tmp_path / "other", "close").returncode == 3
    gateway.wait_log("reason=token_seal")


def test_every_line_of_json_is_an_object(gateway, folder):
    done = client(gateway, folder, "heartbeat; expect mod=system; close", "--json")
    assert done.returncode == 0
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(isinstance(event, dict) for event in events)
    assert any(re.search("heartbeat", json.dumps(event)) for event in events)
