"""The completion of janusctl, as bash and zsh carry it out."""

import json
import os
import pty
import select
import shutil
import subprocess
import threading
import time

import pytest
from janus.patience import patient
from janus.programs import BIN, Gateway, nodes_of, run

HERE = os.path.dirname(os.path.abspath(__file__))
COMPLETION = os.path.join(HERE, "..", "..", "packaging", "completion")
COMMANDS = json.loads(run("janusctl", "help", "--json").stdout)["commands"]
FIRST = {command["name"].split()[0] for command in COMMANDS} | {"help"}
COMMON = {"--socket", "--json", "--help", "--version"}


def made(template, path):
    with open(path, "w") as out:
        subprocess.run([os.path.join(COMPLETION, "generate"), os.path.join(BIN, "janusctl"),
                        os.path.join(COMPLETION, template)], stdout=out, check=True)
    return str(path)


class Bash:
    SCRIPT = """
source "$1"
shift
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_janusctl
printf '%s\\n' "${COMPREPLY[@]}"
"""

    def __init__(self, folder):
        self.path = made("janusctl.bash.in", folder / "janusctl.bash")

    def __call__(self, *words):
        done = subprocess.run(
            ["bash", "-u", "-c", self.SCRIPT, "bash", self.path, "janusctl", *words], text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=patient(30),
            env={**os.environ, "PATH": BIN + ":" + os.environ["PATH"]})
        assert done.stderr == ""
        return set(done.stdout.split())

    def close(self):
        pass


class Zsh:
    """An interactive zsh on a terminal of its own, where the tab key completes and what there
    was to choose from goes to a file."""

    SETUP = r"""
PROMPT= RPROMPT= TERM=dumb
fpath=(%(folder)s $fpath)
autoload -Uz compinit && compinit -u -d %(folder)s/zcompdump
zstyle ':completion:*' menu no
LISTMAX=10000
unsetopt beep
compadd() {
  if [[ ${@[1,(i)(-|--)]} == *-(O|A|D)\ * ]]; then
    builtin compadd "$@"
    return
  fi
  local -a hits
  builtin compadd -A hits "$@"
  (( $#hits )) && print -rl -- $hits >> %(found)s
  builtin compadd "$@"
}
tell-end() { print -- END >> %(found)s; }
complete-and-tell() { zle complete-word; tell-end; BUFFER= }
zle -C complete-word complete-word _main_complete
zle -N complete-and-tell
bindkey '^I' complete-and-tell
print -- READY >> %(found)s
"""

    def __init__(self, folder):
        made("_janusctl.in", folder / "_janusctl")
        self.found = folder / "found"
        setup = folder / "setup.zsh"
        setup.write_text(self.SETUP % {"folder": folder, "found": self.found})
        self.terminal, theirs = pty.openpty()
        self.process = subprocess.Popen(
            ["zsh", "-f", "-i"], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            env={**os.environ, "PATH": BIN + ":" + os.environ["PATH"]})
        os.close(theirs)
        self.screen = b""
        threading.Thread(target=self._read, daemon=True).start()
        self._type(f"source {setup}\n", "READY")

    def _read(self):
        while True:
            try:
                self.screen += os.read(self.terminal, 65536)
            except OSError:
                return

    def _type(self, text, end):
        self.found.write_text("")
        os.write(self.terminal, text.encode())
        deadline = time.monotonic() + patient(30)
        while not self.found.read_text().endswith(end + "\n"):
            assert time.monotonic() < deadline, self.screen[-4000:]
            select.select([], [], [], 0.01)
        return self.found.read_text().split()[:-1]

    def __call__(self, *words):
        return set(self._type(" ".join(["janusctl", *words]) + "\t", "END"))

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.terminal)


@pytest.fixture(scope="module", params=[Bash, Zsh])
def complete(request, tmp_path_factory):
    if request.param is Zsh and not shutil.which("zsh"):
        pytest.fail("zsh is missing: tools/setup test installs it")
    shell = request.param(tmp_path_factory.mktemp("completion"))
    yield shell
    shell.close()


@pytest.fixture(scope="module")
def gateway(start_module, backend):
    return start_module(Gateway, nodes=nodes_of(backend.address), settings={"worker": {"count": 3}})


def test_every_command_is_offered(complete):
    assert complete("") == FIRST
    assert complete("--json", "") == FIRST
    assert complete("help", "") >= FIRST - {"help"}
    assert complete("un") == {"unban", "undrain"}
    seconds = {}
    for command in COMMANDS:
        first, _, second = command["name"].partition(" ")
        if second:
            seconds.setdefault(first, set()).add(second)
    assert set(seconds) == {"routes", "drain", "worker", "log"}
    for first, names in seconds.items():
        assert complete(first, "") >= names, first
        assert complete("help", first, "") >= names, first


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command["name"])
def test_every_option_of_a_command_is_offered(complete, command):
    words = [*command["name"].split()]
    own = {f"--{option['name']}" for option in command["options"]}
    offered = complete(*words, "--")
    assert {word.rstrip("=") for word in offered if word.startswith("--")} == own | COMMON


def test_values_are_offered(complete, gateway):
    asked = ("--socket", gateway.socket_path)
    assert complete(*asked, "worker", "restart", "") == {"0", "1", "2"}
    assert complete(*asked, "sessions", "--worker", "") == {"0", "1", "2"}
    modules = {one["module"] for one in gateway.ctl("log")["modules"]}
    assert complete(*asked, "log", "debug", "--module", "") == modules
    assert complete("log", "") == {"debug", "info", "warn", "error", "reset", "reopen"}
    assert complete("routes", "get", "") == complete("routes", "--tier", "") \
        == {"gateway", "player", "object"}
    assert complete("sessions", "--sort", "") == {"age", "traffic", "queue", "hot"}
    assert complete("kick", "--code", "w") == {"waiting"}


def test_files_are_offered(complete, tmp_path):
    (tmp_path / "janusd-new").write_text("")
    offered = complete("upgrade", "--program", str(tmp_path / "janusd"))
    assert {os.path.basename(one) for one in offered} == {"janusd-new"}


def test_without_a_gateway_nothing_is_said(complete, tmp_path):
    assert complete("--socket", str(tmp_path / "none"), "worker", "restart", "") == set()
