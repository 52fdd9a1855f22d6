"""janusd -t, janusd's options, and what a configuration can and can't say."""

import os
import re

import pytest

from janus.programs import (Gateway, libconfig_file, merged, nodes_of, run, secret_settings,
                            write_file)

GOOD = {"server": {"tcp": {"addr": "127.0.0.1:0"}}, "nodes": nodes_of("127.0.0.1:9")}


@pytest.fixture
def check(tmp_path, keys):
    """check(settings, secrets, mode, environment) runs janusd -t on a configuration."""

    def run_check(settings=None, secrets=None, mode=0o600, environment=None, text=""):
        secret = write_file(tmp_path / "secret.conf",
                            libconfig_file(secrets or secret_settings(keys)), mode)
        path = write_file(tmp_path / "janus.conf",
                          libconfig_file(GOOD if settings is None else settings)
                          + f'@include "{os.path.basename(secret)}"\n' + text, 0o644)
        done = run("janusd", "-t", "-c", path, environment=environment)
        return done.returncode, done.stdout + done.stderr

    return run_check


def test_a_good_configuration_passes(check):
    code, output = check()
    assert code == 0, output


def test_every_fault_is_reported_in_one_run_with_file_line_and_key(check):
    settings = merged(GOOD, {
        "server": {"tcp": {"addr": "nowhere"}},
        "worker": {"count": "two", "cuont": 2},
        "limits": {"idle_timeout": 60, "messages_per_s": -1},
        "colour": "blue",
        "nodes": [{"service": "roma.player.service", "addr": "127.0.0.1:70000"}, {"addr": "h:1"}],
    })
    code, output = check(settings)
    assert code != 0
    lines = libconfig_file(settings).splitlines()
    for key in ("server.tcp.addr", "worker.count", "worker.cuont", "limits.idle_timeout",
                "limits.messages_per_s", "colour", "nodes[0].addr", "nodes[1].service"):
        found = re.search(rf"janus\.conf:(\d+): {re.escape(key)}: \S", output)
        assert found, f"{key} is not reported:\n{output}"
        if "[" not in key:
            assert key.rpartition(".")[2] in lines[int(found.group(1)) - 1]


def test_a_syntax_error_is_reported_with_its_line(check):
    code, output = check(text="limits = { idle_timeout = ;\n")
    assert code != 0
    assert re.search(r"janus\.conf:\d+: ", output)


def test_faulty_secrets_are_reported_by_key_and_never_shown(check, keys):
    secrets = secret_settings(keys)
    secrets["secret"]["account_aes_key"] = "seventeen-letters"
    secrets["secret"]["server_cert_private_key"] = "not a key"
    secrets["secret"]["client_cert"] = keys.server_pem()
    code, output = check(secrets=secrets)
    assert code != 0
    for key in ("account_aes_key", "server_cert_private_key", "client_cert"):
        assert re.search(rf"secret\.conf:\d+: secret\.{key}: ", output), output
    assert "seventeen-letters" not in output
    assert "PRIVATE KEY" not in output


def test_an_expired_client_certificate_is_refused(check, keys):
    code, output = check(secrets=secret_settings(keys, keys.expired_certificate()))
    assert code != 0
    assert "secret.client_cert" in output


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o666])
def test_a_secret_file_that_others_can_read_is_refused(check, mode):
    code, output = check(mode=mode)
    assert code != 0
    assert "secret.conf" in output


def test_a_secret_file_that_its_group_can_read_is_accepted(check):
    assert check(mode=0o640)[0] == 0


def test_a_missing_secret_file_is_named(tmp_path):
    path = write_file(tmp_path / "janus.conf", libconfig_file(GOOD) + '@include "secret.conf"\n')
    done = run("janusd", "-t", "-c", path)
    assert done.returncode != 0
    assert "secret.conf" in done.stdout + done.stderr or "include" in done.stdout + done.stderr


def test_a_missing_file_is_named(tmp_path):
    done = run("janusd", "-c", str(tmp_path / "none.conf"))
    assert done.returncode != 0
    assert "none.conf" in done.stdout + done.stderr


def test_the_environment_overrides_a_scalar_and_its_faults_are_reported(check):
    assert check(environment={"JANUS_WORKER_COUNT": "3"})[0] == 0
    code, output = check(environment={"JANUS_WORKER_COUNT": "many", "JANUS_LABEL_ENCRYPTED": "maybe"})
    assert code != 0
    assert "JANUS_WORKER_COUNT" in output and "JANUS_LABEL_ENCRYPTED" in output


def test_a_secret_in_the_environment_is_refused(check):
    code, output = check(environment={"JANUS_SECRET_ACCOUNT_AES_KEY": "0123456789abcdef"})
    assert code != 0
    assert "0123456789abcdef" not in output


def test_the_environment_reaches_the_running_gateway(start, tmp_path):
    gateway = start(Gateway, nodes=nodes_of("127.0.0.1:9"),
                    environment={"JANUS_WORKER_COUNT": "1", "JANUS_LABEL_ENCRYPTED": "false"})
    assert gateway.ctl("status")["workers"]["configured"] == 1
    with gateway.client(encrypted=False) as client:
        assert client.login().pub == bytes(32)


def test_a_gateway_with_a_faulty_configuration_does_not_start(tmp_path, keys):
    path = write_file(tmp_path / "janus.conf", "worker = { count = -1; };\n")
    done = run("janusd", "-c", path)
    assert done.returncode != 0
    assert "worker.count" in done.stdout + done.stderr


def test_an_address_in_use_is_reported(start, keys, tmp_path):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        write_file(tmp_path / "secret.conf", libconfig_file(secret_settings(keys)))
        path = write_file(tmp_path / "janus.conf", libconfig_file(merged(GOOD, {
            "server": {"tcp": {"addr": f"127.0.0.1:{port}"}},
            "control": {"socket": str(tmp_path / "control.sock")},
        })) + '@include "secret.conf"\n')
        done = run("janusd", "-c", path)
    assert done.returncode != 0
    assert str(port) in done.stdout + done.stderr


@pytest.mark.parametrize("program", ["janusd", "janusctl", "janus-keys", "janus-roma",
                                     "janus-client", "janus-bench"])
def test_every_program_explains_itself(program):
    done = run(program, "--help")
    assert done.returncode == 0
    assert program in done.stdout
    assert run(program, "--no-such-option").returncode not in (0, None)


def test_janusd_tells_its_version():
    done = run("janusd", "--version")
    assert done.returncode == 0
    assert re.search(r"\d+\.\d+\.\d+", done.stdout)


def test_janusctl_without_a_gateway_fails_with_a_reason(tmp_path):
    done = run("janusctl", "--socket", str(tmp_path / "none.sock"), "status")
    assert done.returncode != 0
    assert "none.sock" in done.stderr
