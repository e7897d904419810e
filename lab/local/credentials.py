"""Keys, token and certificates of one lab, made when it comes up and gone with it; none leaves its directory."""

from __future__ import annotations

import secrets
from pathlib import Path

import trustme

from lab.local.layout import CLIENT_ADDRESS, KVM_HOSTS, MANAGEMENT, SECONDARY, SSH_MEMBERS, State
from lab.shell import run


def make(state: State) -> None:
    state.keys.mkdir(mode=0o700)
    for token in (state.token, state.second_token):
        _private(token, str(10**18 + secrets.randbelow(9 * 10**18)).encode())
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "splab lab", "-f", state.login_key])
    known = []
    for member in SSH_MEMBERS:
        key = state.member(member) / "ssh_host_ed25519_key"
        key.parent.mkdir(parents=True, mode=0o700)
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", member.name, "-f", key])
        public = key.with_suffix(".pub").read_text().split()
        known.append(f"{member.ip} {public[0]} {public[1]}\n")
    state.known_hosts.write_text("".join(known))
    _certificates(state.tls)


def _certificates(directory: Path) -> None:
    directory.mkdir(mode=0o700)
    authority = trustme.CA(organization_name="splab local lab")
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))
    names = {"management": MANAGEMENT.ip, "secondary": SECONDARY.ip, "proxy": CLIENT_ADDRESS}
    names |= {host.name: host.ip for host in KVM_HOSTS}
    for name, address in names.items():
        issued = authority.issue_cert(name, address, common_name=name)
        _private(directory / f"{name}.key", issued.private_key_pem.bytes())
        (directory / f"{name}.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))


def _private(path: Path, contents: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(contents)
