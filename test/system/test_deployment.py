"""packaging/container and packaging/kubernetes: every path, port, command and setting that they name
is there, and a gateway does with them what they are for."""

import glob
import http.client
import os
import re
import subprocess

import pytest
import yaml

from janus.patience import patient
from janus.programs import BIN, BUILD, Gateway, libconfig_file, nodes_of, run, secret_settings, \
    write_file

ROOT = os.path.join(os.path.dirname(__file__), "..", "..")
STOP_S = 8  # of SIGTERM: drain.stop_spread and worker.stop_timeout


def read(*path):
    with open(os.path.join(ROOT, *path)) as file:
        return file.read()


@pytest.fixture(scope="module")
def manifest():
    """{kind: object}; there is one of each."""
    objects = list(yaml.safe_load_all(read("packaging", "kubernetes", "janus-gate.yaml")))
    kinds = {one["kind"]: one for one in objects}
    assert len(kinds) == len(objects)
    return kinds


@pytest.fixture(scope="module")
def pod(manifest):
    return manifest["Deployment"]["spec"]["template"]


@pytest.fixture(scope="module")
def container(pod):
    one, = pod["spec"]["containers"]
    return one


@pytest.fixture(scope="module")
def containerfile():
    """[(instruction, its words)] in order."""
    text = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", read("packaging/container/Containerfile"),
                                       flags=re.M))
    return [(line.split()[0], line.split()[1:]) for line in text.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def environment(container):
    """The settings among it, with what the cluster puts in."""
    known = {"status.podIP": "10.1.2.3", "spec.nodeName": "machine-7"}
    values = {}
    for one in container["env"]:
        value = one.get("value") or known[one["valueFrom"]["fieldRef"]["fieldPath"]]
        values[one["name"]] = re.sub(r"\$\((\w+)\)", lambda match: values[match[1]], value)
    return {name: value for name, value in values.items() if name.startswith("JANUS_")}


def setting_paths(text):
    """Of each scalar in a libconfig text."""
    paths, inside = set(), []
    for line in text.splitlines():
        line = line.split("#")[0].strip()
        opened = re.fullmatch(r"(\w+) = \{", line)
        scalar = re.match(r"(\w+) = [^{(]", line)
        if opened:
            inside.append(opened[1])
        elif line == "};":
            inside.pop()
        elif scalar:
            paths.add(".".join([*inside, scalar[1]]))
    return paths


def ports_of(text):
    """{name: port} of the listeners in a configuration."""
    return {name: int(port) for name, port in
            re.findall(r"\b(tcp|ws|kcp|http|grpc) = \{\s*(?:#.*\n\s*)*addr = \"[^\"]*:(\d+)\"", text)}


def named_ports(container):
    return {port["name"]: port["containerPort"] for port in container["ports"]}


# --- Kubernetes ---------------------------------------------------------------------------------


def test_the_embedded_configuration_passes_with_real_keys(manifest, environment, keys, tmp_path):
    config = write_file(tmp_path / "janus.conf", manifest["ConfigMap"]["data"]["janus.conf"], 0o440)
    write_file(tmp_path / "secret.conf", libconfig_file(secret_settings(keys)), 0o440)
    done = run("janusd", "-t", "-c", config, environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_example_of_a_secret_has_the_keys_there_are_and_is_refused(manifest, tmp_path):
    secret = manifest["Secret"]["stringData"]["secret.conf"]
    keys_in = re.compile(r"^\s*(?:# )?(\w+) = ", re.M)
    assert set(keys_in.findall(secret)) <= set(keys_in.findall(read("etc", "secret.conf")))
    config = write_file(tmp_path / "janus.conf", manifest["ConfigMap"]["data"]["janus.conf"], 0o440)
    write_file(tmp_path / "secret.conf", secret, 0o440)
    done = run("janusd", "-t", "-c", config)
    assert done.returncode == 1
    assert "secret.account_aes_key" in done.stdout + done.stderr


def test_each_variable_is_a_setting(environment):
    variables = {"JANUS_" + path.replace(".", "_").upper()
                 for path in setting_paths(read("etc", "janus.conf"))}
    assert environment and set(environment) <= variables


def test_each_port_is_one_where_the_gateway_listens(manifest, pod, container, containerfile):
    ports = named_ports(container)
    assert ports == ports_of(manifest["ConfigMap"]["data"]["janus.conf"])
    assert ports == ports_of(read("etc", "janus.conf"))
    assert sorted(ports.values()) == sorted(
        int(word.removesuffix("/udp"))
        for name, words in containerfile if name == "EXPOSE" for word in words)
    assert int(pod["metadata"]["annotations"]["prometheus.io/port"]) == ports["http"]
    for probe in ("livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] == "http"
    served = {port["targetPort"] for port in manifest["Service"]["spec"]["ports"]}
    assert served == {"tcp", "ws", "kcp"}, "players come by these, and no others are for the public"
    for port in manifest["Service"]["spec"]["ports"]:
        assert port["port"] == ports[port["targetPort"]]
    everybody, cluster = manifest["NetworkPolicy"]["spec"]["ingress"]
    assert "from" not in everybody and {port["port"] for port in everybody["ports"]} == served
    assert {port["port"] for port in cluster["ports"]} == set(ports) - served
    exposed = [word for name, words in containerfile if name == "EXPOSE" for word in words]
    assert f"{ports['kcp']}/udp" in exposed
    for ports_of_one in (container["ports"], manifest["Service"]["spec"]["ports"],
                         everybody["ports"]):
        for port in ports_of_one:
            is_kcp = "kcp" in (port.get("name"), port.get("port"))
            assert port.get("protocol", "TCP") == ("UDP" if is_kcp else "TCP")


def test_the_objects_find_each_other(manifest, pod, container):
    labels = pod["metadata"]["labels"]
    assert manifest["Service"]["spec"]["selector"] == labels
    for kind in ("Deployment", "PodDisruptionBudget"):
        assert manifest[kind]["spec"]["selector"]["matchLabels"] == labels
    assert manifest["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    configuration, run_folder = pod["spec"]["volumes"]
    sources = configuration["projected"]["sources"]
    assert sources[0]["configMap"]["name"] == manifest["ConfigMap"]["metadata"]["name"]
    assert sources[1]["secret"]["name"] == manifest["Secret"]["metadata"]["name"]
    assert configuration["projected"]["defaultMode"] == 0o440
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert f"(default {mounts[configuration['name']]}/janus.conf)" in run("janusd", "--help").stdout
    assert re.search(r'socket = "(.*)/', read("etc", "janus.conf"))[1] == mounts[run_folder["name"]]


def test_probes_and_drain_do_what_they_are_for(start, backend, pod, container):
    gateway = start(Gateway, nodes=nodes_of(backend.address))

    def ask(path):
        connection = http.client.HTTPConnection(*gateway.listener("http"), timeout=patient(30))
        connection.request("GET", path)
        status = connection.getresponse().status
        connection.close()
        return status

    alive = container["livenessProbe"]["httpGet"]["path"]
    ready = container["readinessProbe"]["httpGet"]["path"]
    assert ask(alive) == 200
    gateway.wait_nodes(backend.address)
    assert ask(ready) == 200
    assert ask(pod["metadata"]["annotations"]["prometheus.io/path"]) == 200
    program, *arguments = container["lifecycle"]["preStop"]["exec"]["command"]
    assert os.path.dirname(program) == "/usr/bin"
    done = subprocess.run([os.path.join(BIN, os.path.basename(program)), *arguments],
                          env={**os.environ, "JANUS_CONTROL_SOCKET": gateway.socket_path},
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=patient(60))
    assert done.returncode == 0, done.stdout
    assert ask(alive) == 200
    assert ask(ready) == 503


def test_a_drain_and_the_stop_fit_into_the_grace_period(pod, container):
    command = container["lifecycle"]["preStop"]["exec"]["command"]
    assert "--wait" in command

    def seconds(option):
        number, unit = re.fullmatch(r"(\d+)([smh])", command[command.index(option) + 1]).groups()
        return int(number) * {"s": 1, "m": 60, "h": 3600}[unit]

    grace = pod["spec"]["terminationGracePeriodSeconds"]
    assert grace >= seconds("--timeout") + seconds("--spread") + STOP_S + 30


# --- The container --------------------------------------------------------------------------------


def test_what_the_containerfile_copies_and_starts_is_there(containerfile, container, pod):
    programs = re.search(r"^PROGRAMS := (.*)$", read("Makefile"), re.M)[1].split()
    copied = [word for name, words in containerfile if name == "COPY" for word in words[:-1]
              if not words[0].startswith("--from")]
    assert len(copied) > 5
    for source in copied:
        assert os.path.exists(os.path.join(ROOT, source)), source
    (start,), = [words for name, words in containerfile if name == "ENTRYPOINT"]
    assert os.path.basename(start.strip('[]"')) in programs
    (user,), = [words for name, words in containerfile if name == "USER"]
    security = pod["spec"]["securityContext"]
    assert user == f"{security['runAsUser']}:{security['runAsGroup']}"


@pytest.mark.skipif(not os.path.exists("/etc/debian_version"), reason="these are Debian's names")
def test_the_image_has_the_libraries_that_the_programs_are_linked_with(containerfile):
    programs = [*glob.glob(os.path.join(BIN, "janus*")), os.path.join(BUILD, "libexec/janus-worker")]
    needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", subprocess.run(
        ["readelf", "-d", *programs], check=True, stdout=subprocess.PIPE, text=True).stdout))
    # Those of a sanitizer are in no image, and each image has the C library.
    needed = {name for name in needed if "san.so" not in name}
    owners = subprocess.run(["dpkg-query", "-S", *("*/" + name for name in sorted(needed))],
                            check=True, stdout=subprocess.PIPE, text=True).stdout
    packages = {line.split(":")[0] for line in owners.splitlines() if "-linux-gnu/" in line}
    last_stage = max(i for i, (name, words) in enumerate(containerfile) if name == "FROM")
    installed = [word for name, words in containerfile[last_stage:] if name == "RUN"
                 for word in words]
    assert len(packages) > 8
    assert packages - {"libc6", "libgcc-s1", "libstdc++6"} <= set(installed)
