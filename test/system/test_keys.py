"""janus-keys and janus-client as their users have them: keys made by one serve the other."""

import base64
import json
import os
import re
import shutil
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
    ["account-key", "--bytes", "20"], ["--unknown"], ["rotate"], ["rotate", "x", "--only", "y"],
    ["rotate", "x", "--overlap", "long"], ["rotate", "x", "--overlap", "9999d"], ["token", "extra", "words"]])
def test_wrong_usage_exits_2(arguments):
    keys(*arguments, exit_code=2)


# --- Rotation ------------------------------------------------------------------------------


def check(folder):
    """That janusd takes the secrets in that folder."""
    config = folder / "janus.conf"
    config.write_text('@include "secret.conf"\n')
    done = run("janusd", "-t", "-c", str(config))
    os.remove(config)
    assert done.returncode == 0, done.stdout + done.stderr


def setting(text, name, index=0):
    """The value of that name in libconfig text, as it is written; of several the index-th."""
    return re.findall(rf"\b{name}\s*=\s*((?:\s*\"[^\"]*\")+|\d+)", text)[index].strip('"')


def contents(folder):
    return {name: (folder / name).read_bytes() for name in os.listdir(folder)}


def test_a_rotation_keeps_the_old_keys_as_previous_ones(folder):
    path = folder / "secret.conf"
    path.write_text(path.read_text().replace(
        "secret = {", 'worker = { count = 7; };\nsecret = {\n  push_token = "a \\"b\\" c";', 1))
    os.chmod(path, 0o640)
    old, before = path.read_text(), contents(folder)
    said = keys("rotate", str(folder), "--overlap", "2h")
    new = path.read_text()
    check(folder)
    assert mode(path) == 0o640
    assert sorted(os.listdir(folder)) == ["client.key", "client.key.1", "secret.conf",
                                          "server.pub", "server.pub.1"]
    for name in ("client.key", "server.pub"):
        assert (folder / f"{name}.1").read_bytes() == before[name] != (folder / name).read_bytes()
    assert setting(new, "push_token") == 'a \\' and setting(new, "count") == "7"
    for name in ("server_cert_version", "client_cert_version"):
        assert (setting(new, name), setting(new, name, 1)) == ("2", "1")
    account_key = setting(old, "account_aes_key")
    assert setting(new, "account_aes_key", 1) == account_key
    assert setting(new, "account_aes_key") != account_key
    until = setting(new, "until")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", until) and until in said
    assert "janusctl reload" in said and "account service" in said
    assert "logins_by_previous_account_key" in said
    for secret in (account_key, setting(new, "account_aes_key"), "PRIVATE"):
        assert secret not in said


def test_a_token_under_a_previous_key_is_shown_as_such(folder):
    secret = str(folder / "secret.conf")
    token = keys("token", "--secret", secret, "--uid", "5").strip()
    assert "previous" not in keys("show-token", "--secret", secret, token)
    for _ in range(2):
        keys("rotate", str(folder), "--only", "account-key")
        shown = keys("show-token", "--secret", secret, token)
        assert "uid       5\n" in shown and "key       a previous one\n" in shown


@pytest.mark.parametrize("only, same, other", [
    ("account-key", ("client_cert", "server_cert_version"), "account_aes_key"),
    ("certs", ("account_aes_key",), "client_cert")])
def test_one_kind_of_key_can_be_rotated_alone(folder, only, same, other):
    old, names = (folder / "secret.conf").read_text(), os.listdir(folder)
    keys("rotate", str(folder), "--only", only)
    new = (folder / "secret.conf").read_text()
    check(folder)
    assert (sorted(os.listdir(folder)) == sorted(names)) == (only == "account-key")

    def once(text):  # a PEM in several strings is one in the other form
        return text.replace('"', "").replace("\n    ", "")

    for name in same:
        assert once(setting(new, name)) == once(setting(old, name))
        with pytest.raises(IndexError):
            setting(new, name, 1)
    assert once(setting(new, other)) != once(setting(old, other))
    assert once(setting(new, other, 1)) == once(setting(old, other))


def test_a_rotation_drops_what_is_over_and_is_refused_without_room(folder):
    path = folder / "secret.conf"
    for _ in range(3):
        keys("rotate", str(folder), "--only", "account-key")
    check(folder)
    before = contents(folder)
    keys("rotate", str(folder), exit_code=1)
    assert contents(folder) == before
    newest = setting(path.read_text(), "account_aes_key")
    path.write_text(re.sub(r"\d{4}(-\d\d-\d\dT\d\d:\d\d:\d\dZ)", r"2020\1", path.read_text()))
    keys("rotate", str(folder))
    check(folder)
    text = path.read_text()
    assert len(re.findall(r"\buntil\b", text)) == 1
    assert setting(text, "account_aes_key", 1) == newest


def test_earlier_certificates_stay_what_they_were(folder):
    # A group of the previous ones that leaves the server's key out has it from the current one,
    # which is about to change.
    path = folder / "secret.conf"
    old = path.read_text()
    path.write_text(old.replace("secret = {", "secret = { previous = { client_cert_version = 9; };", 1))
    keys("rotate", str(folder), "--only", "certs")
    check(folder)
    text = path.read_text()
    assert [setting(text, "client_cert_version", i) for i in range(3)] == ["2", "1", "9"]
    assert setting(text, "server_cert_private_key", 2) == setting(text, "server_cert_private_key", 1)


def test_a_rotation_that_fails_changes_nothing(folder):
    (folder / "server.pub.1").write_text("somebody's")
    before = contents(folder)
    keys("rotate", str(folder), exit_code=1)
    assert contents(folder) == before
    (folder / "secret.conf").write_text('secret = { account_aes_key = "REPLACE"; };')
    before = contents(folder)
    keys("rotate", str(folder), "--only", "account-key", exit_code=1)
    assert contents(folder) == before
    (folder / "more.conf").write_text(f'account_aes_key = "{"k" * 32}";\n')
    (folder / "secret.conf").write_text('secret = {\n@include "more.conf"\n};\n')
    before = contents(folder)
    keys("rotate", str(folder), "--only", "account-key", exit_code=1)
    assert contents(folder) == before


def test_a_link_to_the_secrets_stays_one(folder, tmp_path):
    real = tmp_path / "real.conf"
    os.rename(folder / "secret.conf", real)
    os.symlink(real, folder / "secret.conf")
    before = real.read_text()
    keys("rotate", str(folder))
    assert os.path.islink(folder / "secret.conf") and real.read_text() != before
    check(folder)


# --- With janus-client ---------------------------------------------------------------------


@pytest.fixture
def gateway(start, backend, folder):
    """A gateway that has the secrets janus-keys made."""
    return gateway_of(start, backend, folder)


def gateway_of(start, backend, folder):
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


def test_clients_with_the_old_keys_and_with_the_new_ones_log_in(start, backend, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "old")
    keys("rotate", str(folder))
    gateway = gateway_of(start, backend, folder)
    for which, previous in ((folder, 0), (tmp_path / "old", 1)):
        done = client(gateway, which, 'send user 1 data="hello"; expect data="hello"; close')
        assert done.returncode == 0, done.stdout
        assert gateway.counter("logins_by_previous_account_key") == previous
        assert gateway.counter("logins_by_previous_certs") == previous
