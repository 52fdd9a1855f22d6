"""The manual pages: well formed, and without a gap."""

import json
import os
import re
import shutil
import subprocess

import pytest
from janus.programs import BIN, run

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
MAN = os.path.join(ROOT, "packaging", "man")
TOOLS = ["janusd.8", "janusctl.8", "janus-keys.1", "janus-client.1", "janus-roma.1",
         "janus-bench.1", "janus-routesim.1"]
PAGES = [*TOOLS, "janus.conf.5"]
CONFIGURATION = [os.path.join(ROOT, "etc", name) for name in ("janus.conf", "secret.conf")]


@pytest.fixture(scope="module")
def page_of(tmp_path_factory):
    """The path of a page, made from what this build says of itself."""
    folder = tmp_path_factory.mktemp("man")

    def page_of(name):
        sources = CONFIGURATION if name == "janus.conf.5" else \
            [os.path.join(BIN, name.rpartition(".")[0])]
        with open(folder / name, "w") as out:
            subprocess.run([os.path.join(MAN, "generate"), os.path.join(MAN, f"{name}.in"),
                            *sources], stdout=out, check=True,
                           env={**os.environ, "SOURCE_DATE_EPOCH": "1767225600"})
        return str(folder / name)

    return page_of


@pytest.fixture(scope="module")
def text_of(page_of):
    """What a reader sees."""
    def text_of(name):
        done = subprocess.run(["mandoc", "-Tascii", "-O", "width=200", page_of(name)], check=True,
                              stdout=subprocess.PIPE, text=True)
        return re.sub(".\b", "", done.stdout)

    return text_of


needs = {program: pytest.mark.skipif(not shutil.which(program), reason=f"{program} is missing")
         for program in ("man", "mandoc")}


def test_there_is_a_page_for_each_program():
    templates = {name.removesuffix(".in") for name in os.listdir(MAN) if name.endswith(".in")}
    assert templates == set(PAGES)
    assert {name for name in os.listdir(BIN)} == {name.rpartition(".")[0] for name in TOOLS}


@needs["man"]
@pytest.mark.parametrize("name", PAGES)
def test_man_has_nothing_to_complain_of(page_of, name):
    done = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", page_of(name)],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env={**os.environ, "LC_ALL": "C.UTF-8", "MANROFFSEQ": "",
                               "MANWIDTH": "80"})
    assert done.returncode == 0 and done.stderr == "" and len(done.stdout) > 1000


@needs["mandoc"]
@pytest.mark.parametrize("name", PAGES)
def test_mandoc_has_nothing_to_complain_of(page_of, name):
    done = subprocess.run(["mandoc", "-Tlint", page_of(name)], stdout=subprocess.PIPE, text=True)
    said = [line for line in done.stdout.splitlines()
            if "referenced manual not found" not in line]  # they are not installed
    assert said == []


def test_a_page_is_the_same_whenever_it_is_made(page_of):
    with open(page_of("janus.conf.5")) as page:
        assert page.readline() == ".Dd January 1, 2026\n"


@needs["mandoc"]
@pytest.mark.parametrize("name", [name for name in TOOLS if name != "janusctl.8"])
def test_each_word_of_a_programs_help_is_in_its_page(text_of, name):
    program = name.rpartition(".")[0]
    text = text_of(name)
    words = re.findall(r"[\w/@.:|=-]+", run(program, "--help").stdout)
    # The first line stands under NAME in other words.
    first = set(re.findall(r"[\w/@.:|=-]+", run(program, "--help").stdout.splitlines()[0]))
    known = set(re.findall(r"[\w/@.:|=-]+", text))
    missing = {word for word in words if word not in known and word not in first
               and word.lower().rstrip(":") not in ("usage", "example", "examples", "exit",
                                                   "status", "codes", "options", "commands")}
    # At the end of a line that goes on in the page, or at its beginning.
    assert {word for word in missing if word.strip(".:").capitalize() not in text
            and word.strip(".:") not in text} == set()


@needs["mandoc"]
def test_janusctls_page_has_every_command_option_and_example(text_of):
    text = text_of("janusctl.8")
    for command in json.loads(run("janusctl", "help", "--json").stdout)["commands"]:
        entry = re.search(rf"^ {{5}}{command['name']}(?: {{2,}}| UID| \[| N| TIER|$)(.*?)^ {{5}}\w",
                          text + "     x", re.M | re.S)
        assert entry, command["name"]
        for option in command["options"]:
            assert f"--{option['name']}" in entry.group(0), (command["name"], option["name"])
        for example in command["examples"]:
            assert example in entry.group(0), (command["name"], example)
        said = re.sub(r"\s+", " ", entry.group(0))
        assert ("Not for control.read_group" in said) != command["read_only"], command["name"]


def keys_of(source):
    """The paths of the keys in a table of ours, as the compiler sees it."""
    done = subprocess.run(["cc", "-E", "-P", "-I.", "-D_GNU_SOURCE", '-DJANUS_VERSION="0"', source],
                          cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    tables = re.findall(r"static const struct key (\w+)\[\] = \{(.*?)\n?\};", done.stdout, re.S)
    return {name: {"".join(re.findall(r'"([^"]*)"', path)): row for path, row in
                   re.findall(r'\{\s*\.path = ((?:"[^"]*"\s*)+),([^{}]*)\}', table)}
            for name, table in tables}


def test_the_page_of_the_configuration_has_every_key_and_no_other(page_of):
    with open(page_of("janus.conf.5")) as page:
        text = page.read()
    described = set(re.findall(r"^\.It Cm ([\w.]+)", text, re.M))
    tables = keys_of("common/config_keys.c")
    keys = {path for path, row in tables["keys"].items() if "KEY_ELSEWHERE" not in row}
    keys |= set(keys_of("common/config_secrets.c")["secret_keys"])
    assert len(keys) > 100
    # A listener for WebSocket has what one for TCP has, and the page says so.
    missing = {key for key in keys - described
               if key.replace("server.ws.", "server.tcp.") not in described}
    assert {key for key in keys if key.startswith("server.kcp.")} <= described
    assert missing == {"secret"}
    assert {key for key in described - keys
            if not any(other.startswith(f"{key}.") for other in described)} == set()
    # The entries of lists.
    for name in ("node_keys", "type_keys", "listener_keys"):
        for key in tables[name]:
            assert re.search(rf"\b{key.rpartition('.')[2]}\b", text), (name, key)


def test_the_configuration_we_ship_has_every_key():
    shipped = "".join(open(path).read() for path in CONFIGURATION)
    for key in keys_of("common/config_keys.c")["keys"]:
        assert re.search(rf"\b{key.rpartition('.')[2]}\b", shipped), key
