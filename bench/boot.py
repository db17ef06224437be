"""Boot files from the controller's boot listener and from nginx: the same files, the same clients, turn by turn."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import statistics
import subprocess
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench.installation import World, free_port, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILES = {"vmlinuz": 8 << 20, "initramfs": 10 << 20, "modules.tar.gz": 60 << 20, "modules.alias": 1 << 20}
"""About what a machine fetches: kernel, initramfs, all modules."""
CLIENTS = 8
REPEATS = 3
"""How often each client fetches everything, over one connection."""
ROUNDS = 5

NGINX = """
daemon off; worker_processes auto; pid {directory}/nginx.pid; error_log {directory}/nginx.log;
events {{ worker_connections 768; }}
http {{
    access_log off; sendfile on; tcp_nopush on; default_type application/octet-stream;
    client_body_temp_path {directory}/t1; proxy_temp_path {directory}/t2; fastcgi_temp_path {directory}/t3;
    uwsgi_temp_path {directory}/t4; scgi_temp_path {directory}/t5;
    server {{ listen 127.0.0.1:{port}; location /boot/ {{ alias {boot}/; }} }}
}}
"""
"""Debian's own nginx.conf as far as it matters here."""


@contextlib.contextmanager
def nginx(world: World, boot: Path) -> Iterator[int]:
    """nginx with the same directory; its port."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        raise RuntimeError("nginx is not installed: apt-get install -y --no-install-recommends nginx-light")
    port, config = free_port(), world.directory / "nginx.conf"
    config.write_text(NGINX.format(directory=world.directory, port=port, boot=boot), encoding="utf-8")
    for directory in (world.directory, boot.parent):  # its workers are another user than root
        directory.chmod(0o755)
    process = subprocess.Popen([program, "-c", str(config), "-p", str(world.directory)], stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("nginx does not serve")
            time.sleep(0.05)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=10)


def fetch(port: int) -> float:
    """All clients at once; bytes a second. RuntimeError when a client did not get everything."""
    urls = [f"http://127.0.0.1:{port}/boot/kernels/bench/{name}" for name in FILES] * REPEATS
    command = ["curl", "-sf", "-w", "%{size_download}\n"]
    for url in urls:
        command += ["-o", "/dev/null", url]
    began = time.perf_counter()
    clients = [
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) for _ in range(CLIENTS)
    ]
    got = [sum(int(line) for line in client.communicate()[0].split()) for client in clients]
    seconds = time.perf_counter() - began
    if set(got) != {sum(FILES.values()) * REPEATS} or any(client.returncode for client in clients):
        raise RuntimeError(f"port {port}: clients got {got} bytes")
    return sum(got) / seconds


def run(world: World) -> dict[str, Any]:
    """`boot_bytes_ratio_to_nginx`: the medians of bytes a second, ours by nginx's."""
    with running(replace(world, url=""), lambda database: None) as site:  # noqa: ARG005  # nothing to fill in
        boot = site.settings.boot_dir
        kernel = boot / "kernels" / "bench"
        kernel.mkdir(parents=True)
        for name, size in FILES.items():
            (kernel / name).write_bytes(os.urandom(1 << 20) * (size >> 20))
        ours: list[float] = []
        theirs: list[float] = []
        with nginx(world, boot) as port:
            for turn in range(ROUNDS + 1):
                for found, where in ((ours, site.settings.boot_port), (theirs, port)):
                    rate = fetch(where)
                    if turn:  # the first one brings the files into memory
                        found.append(rate)
    mean_ours, mean_theirs = statistics.median(ours), statistics.median(theirs)
    return {
        "boot_bytes_ratio_to_nginx": round(mean_ours / mean_theirs, 3),
        "details": {
            "clients": CLIENTS,
            "mb_per_s": round(mean_ours / 1e6),
            "nginx_mb_per_s": round(mean_theirs / 1e6),
            "rounds_mb_per_s": [[round(a / 1e6), round(b / 1e6)] for a, b in zip(ours, theirs, strict=True)],
        },
    }
