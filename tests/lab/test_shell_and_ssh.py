"""Programs and SSH: bounded, quoted, never asking."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import MissingPrerequisite
from lab.file import Ssh
from lab.shell import CommandFailed, run
from lab.ssh import SshHost

HOST = SshHost(Ssh(address="192.0.2.1", key_file=Path("/k"), known_hosts_file=Path("/kh"), port=2222))


def test_a_program_that_does_not_end_is_killed_in_time() -> None:
    begun = time.monotonic()
    with pytest.raises(CommandFailed, match=r"did not end within 0 s: sleep 60"):
        run(["sleep", "60"], timeout=0.3)
    assert time.monotonic() - begun < 10


def test_a_failure_says_what_was_tried_and_what_the_program_said() -> None:
    with pytest.raises(CommandFailed, match=r"ls /nowhere/at/all.*return code 2.*No such file"):
        run(["ls", "/nowhere/at/all"])


def test_a_missing_program_is_named_with_what_supplies_it() -> None:
    with pytest.raises(MissingPrerequisite, match="splab-no-such-program is not installed; run `make setup`"):
        run(["splab-no-such-program"])


def test_without_check_the_return_code_is_an_answer() -> None:
    assert run(["sh", "-c", "cat; exit 3"], stdin=b"in", check=False).returncode == 3


@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1), min_size=1))
def test_the_other_side_s_shell_gets_exactly_the_words_that_were_given(words: list[str]) -> None:
    assert shlex.split(HOST.argv(words)[-1]) == words


def test_ssh_never_asks_and_never_learns_a_host_key() -> None:
    argv = HOST.argv(["true"])
    assert {"BatchMode=yes", "StrictHostKeyChecking=yes", "UserKnownHostsFile=/kh", "IdentitiesOnly=yes"} <= set(argv)
    assert argv[argv.index("-p") + 1] == "2222"


def test_two_logins_with_different_keys_do_not_share_a_connection() -> None:
    other = SshHost(Ssh(address="192.0.2.1", key_file=Path("/other"), known_hosts_file=Path("/kh"), port=2222))
    paths = [word for host in (HOST, other) for word in host.options() if word.startswith("ControlPath=")]
    assert len(set(paths)) == 2
    assert all(len(path.removeprefix("ControlPath=")) < 80 for path in paths), "a socket's path has 104 bytes at most"


@pytest.mark.local
def test_in_another_network_namespace_the_same_login_is_to_another_machine() -> None:
    script = "from pathlib import Path; from lab.file import Ssh; from lab.ssh import SshHost"
    login = 'SshHost(Ssh(address="192.0.2.1", key_file=Path("/k"), known_hosts_file=Path("/kh"), port=2222))'
    there = run(["unshare", "--net", sys.executable, "-c", f"{script}; print(*{login}.options())"])
    ours = next(word for word in HOST.options() if word.startswith("ControlPath="))
    assert "ControlPath=" in there.text and ours not in there.text.split()
