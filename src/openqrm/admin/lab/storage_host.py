"""The lab's storage host: sshd, nfs-ganesha and tgt (if installed) in namespaces and a root of their own, at 10.99.0.2.

It behaves like a small machine of its own: /usr is this machine's, read-only; /etc, /var, /root and the pool
/srv/openqrm are files of the lab; /run, /tmp, processes, host name and network are private. Its process
1 starts a service again when it ends.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import network
from .errors import LabError
from .process import ProcessRecord, children_of, run, spawn, stop, wait_for_port

if TYPE_CHECKING:
    from .state import LabSpec

POOL = "/srv/openqrm"
"""The pool on the storage host; volumes are directories below it."""
EXPORTS = "/etc/ganesha/exports.d"
"""One file per export on the storage host: read when ganesha starts."""
POOL_BYTES = 64 << 30
"""Size of the pool's file system; its file is sparse, so it takes only what is written."""
SCRIPTS = Path(__file__).parent / "storage"
START_SECONDS = 30.0

GANESHA_CONFIGURATION = f"""\
NFS_CORE_PARAM {{
    Protocols = 4; Bind_addr = 0.0.0.0; Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false;
}}
NFSV4 {{
    Minor_Versions = 1, 2; Only_Numeric_Owners = true; Lease_Lifetime = 10; Grace_Period = 5;
    RecoveryBackend = fs; RecoveryRoot = /var/lib/nfs/ganesha;
}}
# A clone or a restore on this host changes files behind the server: with its caches, machines saw the old ones (stale
# file handles) for up to 60 s.
MDCACHE {{ Dir_Chunk = 0; }}
# Exports deny what they do not name.
EXPORT_DEFAULTS {{ Access_Type = NONE; Squash = No_Root_Squash; SecType = sys; Attr_Expiration_Time = 0; }}
LOG {{ Default_Log_Level = EVENT; }}
%dir {EXPORTS}
"""
NO_EXPORT = "# Keeps the directory from being empty. One file per export goes here; the name ends in .conf.\n"
DBUS_CONFIGURATION = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="root"/> <allow own="*"/> <allow send_destination="*"/> <allow receive_sender="*"/>
  </policy>
</busconfig>
"""
SSHD_CONFIGURATION = """\
Port 22
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
StrictModes no
PidFile none
MaxSessions 200
MaxStartups 200
Subsystem sftp internal-sftp
SetEnv PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
"""
ACCOUNTS = """\
root:x:0:0:root:/root:/bin/bash
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
sshd:x:100:65534::/run/sshd:/usr/sbin/nologin
messagebus:x:101:101::/nonexistent:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
"""
GROUP = "root:x:0:\ndaemon:x:1:\nmessagebus:x:101:\nnogroup:x:65534:\n"
HOSTS = "127.0.0.1 localhost\n::1 localhost\n10.99.0.1 controller\n10.99.0.2 storage\n"
COPIED = (
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "alternatives",
    "protocols",
    "services",
    "rpc",
    "netconfig",
    "localtime",
    "mke2fs.conf",
    "lvm",
    "profile",
    "ssl/openssl.cnf",
)
"""Of this machine's /etc: what its programs in /usr need. Nothing secret."""
DIRECTORIES = (
    "etc/ssh",
    "etc/dbus-1",
    "etc/openqrm-lab",
    "etc/ganesha/exports.d",
    "etc/tgt/conf.d",
    "root/.ssh",
    "var/lib/openqrm",
    "var/lib/nfs/ganesha",
    "var/log",
    "var/tmp",
    "var/cache",
)
CONFIGURATION = {
    "ganesha/ganesha.conf": GANESHA_CONFIGURATION,
    "ganesha/exports.d/00-none.conf": NO_EXPORT,
    "tgt/targets.conf": "include /etc/tgt/conf.d/*.conf\n",
    "dbus-1/system.conf": DBUS_CONFIGURATION,
    "ssh/sshd_config": SSHD_CONFIGURATION,
    "passwd": ACCOUNTS,
    "group": GROUP,
    "hosts": HOSTS,
    "hostname": "storage\n",
    "nsswitch.conf": "passwd: files\nhosts: files dns\n",
    "shadow": "root:*:19000:0:99999:7:::\n",
}
"""Files below /etc by name."""


@dataclass(frozen=True)
class StorageHost:
    """The storage host of the lab whose state is in `directory`."""

    directory: Path
    spec: LabSpec

    @property
    def home(self) -> Path:
        """Where its files are."""
        return self.directory / "storage"

    @property
    def root(self) -> Path:
        """Its root as seen from this machine, without the pool."""
        return self.home / "root"

    @property
    def log(self) -> Path:
        """What its services say."""
        return self.home / "storage.log"

    @property
    def host_key(self) -> Path:
        """Its public SSH host key."""
        return self.root / "etc/ssh/ssh_host_ed25519_key.pub"

    @property
    def pool(self) -> str:
        """The type of its pool's file system (btrfs, xfs or directory), once it is prepared; empty before."""
        file = self.home / "pool.type"
        return file.read_text(encoding="ascii").strip() if file.exists() else ""

    def prepare(self, authorized_keys: str) -> str:
        """Make its files and return the pool's type (btrfs, xfs or directory). Raises LabError."""
        etc = self.root / "etc"
        for directory in DIRECTORIES:
            (self.root / directory).mkdir(parents=True, exist_ok=True)
        (self.root / "root/.ssh").chmod(0o700)
        for name in COPIED:
            self._copy(Path("/etc") / name, etc / name)
        for name, text in CONFIGURATION.items():
            (etc / name).write_text(text, encoding="utf-8")
        (etc / "shadow").chmod(0o600)
        self.authorize(authorized_keys)
        (etc / "mtab").unlink(missing_ok=True)
        (etc / "mtab").symlink_to("/proc/self/mounts")
        shutil.copy(SCRIPTS / "init.sh", etc / "openqrm-lab/init.sh")
        (self.root / "var/run").unlink(missing_ok=True)
        (self.root / "var/run").symlink_to("/run")
        if not self.host_key.exists():
            key = str(self.host_key.with_suffix(""))
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "storage", "-f", key])
        return self._make_pool()

    def authorize(self, keys: str) -> None:
        """Replace the public keys that may log in as root."""
        (self.root / "root/.ssh/authorized_keys").write_text(keys.strip() + "\n", encoding="utf-8")

    @staticmethod
    def _copy(source: Path, target: Path) -> None:
        if target.exists() or not source.exists():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True)
        else:
            shutil.copy(source, target)

    def _make_pool(self) -> str:
        """A file system that can reflink, in a sparse file; the first kind that this machine can make *and* mount."""
        if self.pool:
            return self.pool
        file = self.home / "pool.img"
        for kind, maker in (
            ("btrfs", ["mkfs.btrfs", "-q", "-f"]),
            ("xfs", ["mkfs.xfs", "-q", "-f", "-m", "reflink=1"]),
        ):
            if shutil.which(maker[0]) is None:
                continue
            with file.open("wb") as handle:
                handle.truncate(POOL_BYTES)
            if _succeeds(*maker, str(file)) and self._mounts(kind, file):
                break
            file.unlink()
        else:
            kind = "directory"
        (self.home / "pool.type").write_text(kind, encoding="ascii")
        return kind

    def _mounts(self, kind: str, file: Path) -> bool:
        """Try it in a mount namespace of its own, so that neither mount nor loop device can stay behind."""
        target = self.home / "probe"
        target.mkdir(exist_ok=True)
        try:
            return _succeeds(
                "unshare",
                "--mount",
                "--propagation",
                "private",
                "mount",
                "-o",
                "loop",
                "-t",
                kind,
                str(file),
                str(target),
            )
        finally:
            target.rmdir()

    def start(self, pool: str) -> ProcessRecord:
        """Start it and wait until SSH and NFS listen. Raises LabError with its log's end when they do not."""
        argv = network.enter(
            network.storage_namespace(self.spec.name),
            "unshare",
            "--mount",
            "--pid",
            "--uts",
            "--ipc",
            "--propagation",
            "private",
            "--fork",
            "--kill-child=KILL",
            "sh",
            str(SCRIPTS / "enter.sh"),
            str(self.home),
            pool,
        )
        record = spawn(argv, tag=self.directory, log=self.log)
        try:
            for port, what in ((22, "the storage host's SSH server"), (2049, "the storage host's NFS server")):
                wait_for_port(record, port, START_SECONDS, what, self.log)
        except LabError:
            self.stop(record)
            raise
        return record

    def stop(self, record: ProcessRecord) -> None:
        """Pull its plug: its process 1 dies with its parent, and everything on it with that."""
        stop(record)

    def inside(self, record: ProcessRecord, *argv: str) -> list[str]:
        """The command that runs `argv` on the storage host without SSH. Raises LabError when it is off."""
        inner = children_of(record.pid)
        if not inner:
            raise LabError("the storage host is off")
        return [
            "nsenter",
            "--target",
            str(inner[0]),
            "--mount",
            "--net",
            "--pid",
            "--uts",
            "--ipc",
            "--root",
            "--wd",
            *argv,
        ]


def _succeeds(*argv: str) -> bool:
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0
