"""What the scripts of the NFS export do to the files that servers read, run on this machine where no server runs."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from openqrm.plugin_api.scripts import script
from openqrm.plugins.storage.nfs.driver import NfsExport
from openqrm.testing import needs

if TYPE_CHECKING:
    from pathlib import Path

GANESHA = """\
# ours and theirs
NFSV4 { Only_Numeric_Owners = true; }
EXPORT {
    Export_Id = 5; Path = /srv/pool/web; Pseudo = /web; # not ours
    FSAL { Name = VFS; }
    CLIENT { Clients = 192.0.2.9, 192.0.2.66; Access_Type = RW; }
}
Export { Export_Id = 6; Path = /srv/pool/other; Pseudo = /o; FSAL { Name = VFS; } Access_Type = RO; }
LOG { Default_Log_Level = EVENT; }
"""
KERNEL = """\
# by hand
/srv/pool/web 192.0.2.66(rw,sync) 192.0.2.7(ro)
/srv/pool/web2 192.0.2.66(rw,sync)
/srv/pool *(ro)
"""


@dataclass
class Host:
    """Directories as a storage host has them in /etc."""

    etc: Path

    def run(self, verb: str, *words: str) -> subprocess.CompletedProcess[str]:
        """A verb of the export's script, with processes, locks and mounts of its own: no NFS server is seen there."""
        shell = 'mount -t tmpfs tmpfs /run && exec sh -s -- "$@"'
        argv = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", shell, "sh"]
        tables = (str(self.etc / "ganesha/exports.d"), str(self.etc / "exports.d"))
        text = script(NfsExport.package, *NfsExport.scripts)
        return subprocess.run([*argv, verb, *tables, *words], input=text, capture_output=True, text=True, check=False)

    def given(self) -> set[tuple[str, str, bool, str]]:
        """What the facts tell of these files."""
        said = self.run("facts")
        assert said.returncode == 0, said.stderr
        ours = [one for one in NfsExport().parse(said.stdout).grants if one.location.startswith("/srv/pool")]
        return {(one.location, one.client, one.writes, one.volume) for one in ours}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    needs.root_and("unshare")
    (tmp_path / "ganesha/exports.d").mkdir(parents=True)
    (tmp_path / "exports.d").mkdir()
    (tmp_path / "ganesha/ganesha.conf").write_text(GANESHA)
    (tmp_path / "exports.d/hand.exports").write_text(KERNEL)
    return Host(tmp_path)


def test_one_client_is_taken_out_of_both_servers_files_and_nothing_else(host: Host) -> None:
    before = host.given()
    assert ("/srv/pool/web", "192.0.2.66", True, "") in before
    for _ in range(2):
        done = host.run("withdraw", "-", "/srv/pool/web", "192.0.2.66")
        assert done.returncode == 0, done.stderr
    # ganesha's block goes as a whole: who else is in it was let in by hand too.
    gone = {("/srv/pool/web", "192.0.2.66", True, ""), ("/srv/pool/web", "192.0.2.9", True, "")}
    assert host.given() == before - gone
    assert (host.etc / "ganesha/ganesha.conf").read_text().startswith("# ours and theirs\nNFSV4 {")
    assert "LOG { Default_Log_Level = EVENT; }" in (host.etc / "ganesha/ganesha.conf").read_text()
    assert (host.etc / "exports.d/hand.exports").read_text() == KERNEL.replace(" 192.0.2.66(rw,sync) 192", " 192", 1)


def test_everybody_is_a_client_too(host: Host) -> None:
    for path in ("/srv/pool", "/srv/pool/other"):
        assert host.run("withdraw", "-", path, "*").returncode == 0
    assert {(path, client) for path, client, _, _ in host.given()} == {
        ("/srv/pool/web", "192.0.2.9"),
        ("/srv/pool/web", "192.0.2.66"),
        ("/srv/pool/web", "192.0.2.7"),
        ("/srv/pool/web2", "192.0.2.66"),
    }


def test_a_file_of_ours_that_somebody_added_to_is_as_it_was(host: Host) -> None:
    ours = host.etc / "ganesha/exports.d/openqrm-12-lent-192.0.2.8.conf"
    text = (
        "# openqrm lent volume-12 192.0.2.8 0 /srv/pool/lent\nEXPORT {\n"
        "    Export_Id = 61012; Path = /srv/pool/lent; Pseudo = /openqrm-lent/12/192.0.2.8; Protocols = 4;"
        " Transports = TCP; SecType = sys;\n"
        "    Squash = No_Root_Squash; Access_Type = NONE; Attr_Expiration_Time = 0;\n"
        "    FSAL { Name = VFS; }\n"
        "    CLIENT { Clients = 192.0.2.8; Access_Type = RO; Squash = No_Root_Squash; }\n}\n"
    )
    ours.write_text(text.replace("Clients = 192.0.2.8;", "Clients = 192.0.2.8, 192.0.2.66;"))
    assert ("/srv/pool/lent", "192.0.2.66", False, "") in host.given()
    assert host.run("withdraw", "-", "/srv/pool/lent", "192.0.2.66").returncode == 0
    assert ours.read_text() == text
    assert ("/srv/pool/lent", "192.0.2.8", False, "volume-12") in host.given()
    assert host.run("withdraw", "-", "/srv/pool/lent", "192.0.2.8").returncode == 0
    assert not ours.exists()


def test_revoking_takes_the_files_of_a_volume_that_had_the_place_before(host: Host) -> None:
    notes = {
        "openqrm-7.exports": "# openqrm grant volume-7 192.0.2.5 3 /srv/pool/x",
        "openqrm-7-lent-192.0.2.4.exports": "# openqrm lent volume-7 192.0.2.4 0 /srv/pool/x",
        "openqrm-12.exports": "# openqrm grant volume-12 192.0.2.6 1 /srv/pool/x",
        "openqrm-12-lent-192.0.2.8.exports": "# openqrm lent volume-12 192.0.2.8 0 /srv/pool/x",
        "openqrm-13.exports": "# openqrm grant volume-13 192.0.2.6 1 /srv/pool/xy",
    }
    for name, note in notes.items():
        (host.etc / "exports.d" / name).write_text(f"{note}\n{note.split()[-1]} {note.split()[4]}(rw)\n")
    for _ in range(2):
        done = host.run("revoke", "volume-12", "/srv/pool/x")
        assert done.returncode == 0, done.stderr
    left = {path.name for path in (host.etc / "exports.d").glob("openqrm-*")}
    assert left == {"openqrm-12-lent-192.0.2.8.exports", "openqrm-13.exports"}
    assert host.run("reclaim", "volume-12", "/srv/pool/x", "192.0.2.8").returncode == 0
    assert {path.name for path in (host.etc / "exports.d").glob("openqrm-*")} == {"openqrm-13.exports"}
