"""What each lab machine is made of: its own /etc, /run and libvirt folders, and services (spec lab-facts 2, 8, 9)."""

from __future__ import annotations

import json
import shutil
import sys
import uuid
from pathlib import Path

from lab.local import cgroup
from lab.local.layout import (
    CGROUP,
    MANAGEMENT,
    MEMBERS,
    NETWORK,
    SECOND_STORPOOL_PORT,
    SECONDARY,
    STORPOOL_PORT,
    Member,
    State,
    guest_addresses,
)
from lab.local.site import ONE, Site
from lab.shell import run
from simulator.commands.install import install
from simulator.settings import KnownCluster

DEVICE_DIRECTORIES = (Path("/dev/storpool"), Path("/dev/storpool-byid"))
MOUNT_POINTS = (*DEVICE_DIRECTORIES, *(Path(name, "libvirt") for name in ("/var/lib", "/var/log", "/var/cache")))
"""Directories that hosts mount their own over; made, and removed afterwards, where this machine has none."""
SIMULATOR = ("env", f"PYTHONPATH={Path(__file__).parents[2]}", sys.executable, "-m", "simulator.main")
"""Also works from a checkout that was not installed."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
Config = dict[str, object]
Service = dict[str, object]

_SSHD = """AddressFamily inet
ListenAddress {ip}:22
HostKey {host_key}
AuthorizedKeysFile {authorized}
PidFile /run/sshd.pid
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
UseDNS no
MaxStartups 64
MaxSessions 64
Subsystem sftp internal-sftp
"""

_LIBVIRTD = """host_uuid = "{uuid}"
listen_tls = 0
listen_tcp = 1
auth_tcp = "none"
listen_addr = "{ip}"
auth_unix_rw = "none"
auth_unix_ro = "none"
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
max_clients = 200
"""

_QEMU = """user = "root"
group = "root"
dynamic_ownership = 0
security_driver = "none"
cgroup_controllers = []
stdio_handler = "file"
migration_address = "{ip}"
migration_host = "{ip}"
"""

_GANESHA = """NFS_CORE_PARAM {{
  NFS_Protocols = 3, 4;
  mount_path_pseudo = true;
  Enable_NLM = false;
  Enable_RQUOTA = false;
  Bind_addr = {ip};
  fsid_device = true;
}}
NFSv4 {{ RecoveryBackend = fs; Grace_Period = 1; Lease_Lifetime = 5; Graceless = true; }}
EXPORT {{
  Export_Id = 1;
  Path = {export};
  Pseudo = /export;
  Access_Type = RW;
  Squash = No_Root_Squash;
  Sectype = sys;
  Protocols = 3, 4;
  FSAL {{ Name = VFS; }}
}}
"""


def configure(state: State, member: Member, cache: Path, site: Site = ONE) -> Path:
    """Write everything that the machine's first process needs; the path of its configuration."""
    directory = state.member(member)
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    (directory / "log").mkdir()
    if member == MANAGEMENT:
        config: Config = {"services": _management(state, directory, site)}
    else:
        config = _machine(state, member, cache, site)
    config["pid_file"] = str(directory / "pid")
    path = directory / "machine.json"
    path.write_text(json.dumps(config, indent=1))
    return path


def start(state: State, member: Member, config: Path, folder: Path) -> None:
    """Start the machine's first process, inside its cgroup and namespaces, as nobody's child."""
    own_mounts = [] if member == MANAGEMENT else ["unshare", "--mount", "--uts", "--propagation", "slave", "--"]
    init = str(Path(__file__).with_name("hostinit.py"))
    start_in(state, member, folder, [*own_mounts, sys.executable, "-I", init, str(config)], "init.log")


def start_in(state: State, member: Member, folder: Path, argv: list[str], log: str) -> None:
    """Start a program in a machine's network namespace and in a cgroup, as nobody's child; it writes into `log`."""
    enter = 'echo $$ > "$0"/cgroup.procs && exec "$@" >>"$LOG" 2>&1 </dev/null'
    network = ["nsenter", f"--net=/run/netns/{member.netns}", "--"]
    run(
        ["setsid", "--fork", "/bin/sh", "-c", enter, str(folder), *network, *argv],
        env={
            "PATH": PATH,
            "LC_ALL": "C.UTF-8",
            "HOME": "/root",
            "LOG": str(state.member(member) / "log" / log),
        },
    )


def folder_of(name: str) -> Path:
    """The cgroup of a machine, or of all machines when the name is empty."""
    return cgroup.mount_point() / CGROUP / name


def _service(directory: Path, name: str, argv: list[str], *, restart: bool = False) -> Service:
    return {"name": name, "argv": argv, "log": str(directory / "log" / f"{name}.log"), "restart": restart}


def _management(state: State, directory: Path, site: Site) -> list[Service]:
    hosts = "".join(f"dhcp-host={mac},{ip},guest{ip.rsplit('.', 1)[1]}\n" for mac, ip in guest_addresses())
    config = directory / "dnsmasq.conf"
    config.write_text(
        f"port=0\ninterface=lab0\nbind-interfaces\nno-ping\nno-hosts\nno-resolv\nuser=root\n"
        f"dhcp-range={NETWORK.split('/')[0]},static,255.255.255.0,12h\ndhcp-authoritative\ndhcp-option=3\n{hosts}"
        f"pid-file={directory}/dnsmasq.pid\ndhcp-leasefile={directory}/leases\nlog-facility={directory}/log/dhcp.log\n"
    )
    images = [sys.executable, "-m", "http.server", "80", "--bind", MANAGEMENT.ip, "--directory", str(state.images)]
    return [
        _service(directory, "simulator", simulator_argv(state, site)),
        _service(directory, "dnsmasq", ["dnsmasq", "--keep-in-foreground", f"--conf-file={config}"], restart=True),
        _service(directory, "images", images, restart=True),
    ]


def simulator_argv(state: State, site: Site = ONE) -> list[str]:
    """The command line of the lab's StorPool simulator; whoever killed it starts it again with this."""
    if site.second is not None:
        _clusters_file(state, site.first, site.second)
        clusters = ["--clusters", str(state.clusters_file), "--blocks", "loop"]
        return [*SIMULATOR, *clusters, "--control", "--control-anywhere"]
    return [
        *SIMULATOR,
        *["--listen", f"{MANAGEMENT.ip}:{STORPOOL_PORT}", "--state", str(state.storpool), "--blocks", "loop"],
        *["--token-file", str(state.token), "--control", "--control-anywhere"],
        # Cases wait for it to look, and a minute each would be most of their time.
        *["--qos-seconds", "5"],
    ]


def _clusters_file(state: State, *clusters: KnownCluster) -> None:
    places = (
        (STORPOOL_PORT, state.storpool, state.token),
        (SECOND_STORPOOL_PORT, state.second_storpool, state.second_token),
    )
    entries = [
        {
            "id": known.cluster_id,
            "name": known.name,
            "location": known.location,
            "listen": f"{MANAGEMENT.ip}:{port}",
            "state": str(directory),
            "token_file": str(token),
        }
        for known, (port, directory, token) in zip(clusters, places, strict=True)
    ]
    state.clusters_file.write_text(json.dumps({"clusters": entries}, indent=1))


def _machine(state: State, member: Member, cache: Path, site: Site) -> Config:
    directory = state.member(member)
    etc = directory / "etc"
    shutil.copytree("/etc", etc, symlinks=True)
    run(["chmod", "--reference=/etc", etc])
    _name(etc, member)
    authorized = directory / "authorized_keys"
    shutil.copyfile(state.login_key.with_suffix(".pub"), authorized)
    sshd = directory / "sshd_config"
    sshd.write_text(_SSHD.format(ip=member.ip, host_key=directory / "ssh_host_ed25519_key", authorized=authorized))
    mounts = [
        ["-t", "sysfs", "sysfs", "/sys"],
        ["-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"],
        ["--bind", str(etc), "/etc"],
    ]
    services = [_service(directory, "sshd", ["/usr/sbin/sshd", "-D", "-e", "-f", str(sshd)], restart=True)]
    if member == SECONDARY:
        services += _nfs(state, directory, mounts)
    else:
        services += _kvm(state, member, cache, mounts, site)
    return {
        "hostname": member.name,
        "sysctl": {
            "net/ipv4/tcp_syn_retries": "1",
            "net/ipv4/tcp_retries2": "8",
            "net/ipv6/conf/all/disable_ipv6": "1",
        },
        "mounts": mounts,
        "directories": ["/run/sshd", "/run/lock"],
        "services": services,
    }


def _name(etc: Path, member: Member) -> None:
    _replace(etc / "hostname", f"{member.name}\n")
    _replace(etc / "machine-id", f"{uuid.uuid4().hex}\n")
    addresses = "".join(f"{other.ip} {other.name}\n" for other in MEMBERS)
    _replace(etc / "hosts", f"127.0.0.1 localhost\n{addresses}")
    home = etc.parent / "home"
    home.mkdir(mode=0o700)
    # root's own start-up files on this machine are no part of a host, and may wait for locks of this machine.
    accounts = (etc / "passwd").read_text().splitlines()
    root = f"root:x:0:0:root:{home}:/bin/bash"
    accounts = [root if line.startswith("root:") else line for line in accounts]
    (etc / "passwd").write_text("\n".join(accounts) + "\n")
    shadow = (etc / "shadow").read_text().splitlines()
    # sshd without PAM lets nobody into an account that is locked with an exclamation mark, not even with a key.
    shadow = [":".join(["root", "*", *line.split(":")[2:]]) if line.startswith("root:") else line for line in shadow]
    (etc / "shadow").write_text("\n".join(shadow) + "\n")
    # libvirtd looks up its default account even when another is configured; only libvirt-daemon-system makes it.
    _append(etc / "passwd", "libvirt-qemu:x:64055:64055:libvirt QEMU:/var/lib/libvirt:/usr/sbin/nologin\n")
    _append(etc / "group", "libvirt-qemu:x:64055:\n")
    _append(etc / "group", "kvm:x:64056:\n")


def _append(path: Path, line: str) -> None:
    text = path.read_text()
    if not any(present.startswith(line.split(":", 1)[0] + ":") for present in text.splitlines()):
        path.write_text(text + line)


def _replace(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    path.write_text(text)


def _kvm(state: State, member: Member, cache: Path, mounts: list[list[str]], site: Site) -> list[Service]:
    directory = state.member(member)
    libvirt = directory / "etc/libvirt"
    shutil.rmtree(libvirt / "qemu/networks/autostart", ignore_errors=True)
    (libvirt / "libvirtd.conf").write_text(_LIBVIRTD.format(uuid=uuid.uuid4(), ip=member.ip))
    (libvirt / "qemu.conf").write_text(_QEMU.format(ip=member.ip))
    storpool_conf = directory / "etc/storpool.conf"
    storpool_conf.touch(mode=0o600)
    storpool_conf.chmod(0o600)
    known, port, token, storpool = site.first, STORPOOL_PORT, state.token, state.storpool
    if site.second is not None and site.is_second(member):
        known, port, token, storpool = site.second, SECOND_STORPOOL_PORT, state.second_token, state.second_storpool
    client = site.client_id(member)
    storpool_conf.write_text(
        f"SP_CLUSTER_ID={known.cluster_id}\nSP_CLUSTER_NAME={known.name}\nSP_OURID={client}\n"
        f"SP_API_HTTP_HOST={MANAGEMENT.ip}\nSP_API_HTTP_PORT={port}\nSP_AUTH_TOKEN={token.read_text().strip()}\n"
    )
    _commands(directory)
    capabilities = cache / "libvirt" / member.name
    for source, target in (
        (directory / "varlib-libvirt", "/var/lib/libvirt"),
        (directory / "log", "/var/log/libvirt"),
        (capabilities, "/var/cache/libvirt"),
        *((storpool / "clients" / str(client) / path.name, str(path)) for path in DEVICE_DIRECTORIES),
    ):
        source.mkdir(parents=True, exist_ok=True)
        mounts.append(["--bind", str(source), target])
    return [_service(directory, "libvirtd", ["/usr/sbin/libvirtd", "--listen"], restart=True)]


def _commands(directory: Path) -> None:
    """StorPool's command-line tools on the host's PATH, before any of this machine's, for users and other clients."""
    commands = directory / "commands"
    install(commands)
    with (directory / "sshd_config").open("a") as sshd:
        sshd.write(f"SetEnv PATH={commands}:{PATH}\n")
    # A login shell sets a PATH of its own first.
    profile = directory / "etc/profile.d/storpool.sh"
    profile.parent.mkdir(exist_ok=True)
    profile.write_text(f"PATH={commands}:$PATH\n")


def _nfs(state: State, directory: Path, mounts: list[list[str]]) -> list[Service]:
    config = directory / "ganesha.conf"
    config.write_text(_GANESHA.format(ip=SECONDARY.ip, export=state.export))
    (directory / "varlib-nfs/ganesha").mkdir(parents=True)
    mounts += [["--bind", str(directory / "varlib-nfs"), "/var/lib/nfs"], ["-t", "tmpfs", "tmpfs", "/run/ganesha"]]
    ganesha = ["/usr/bin/ganesha.nfsd", "-F", "-f", str(config), "-p", "/run/ganesha/ganesha.pid", "-N", "NIV_EVENT"]
    return [
        _service(directory, "rpcbind", ["/usr/sbin/rpcbind", "-f", "-w"], restart=True),
        _service(directory, "ganesha", [*ganesha, "-L", str(directory / "log/ganesha.log")], restart=True),
    ]
