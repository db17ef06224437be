"""`openqrm initramfs build`: makes the initramfs of one kernel for this installation."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from openqrm.netboot import modules, runtime
from openqrm.netboot.initramfs import Compression, InitramfsSpec, build


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="openqrm initramfs", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    make = verbs.add_parser("build", help="build the initramfs of a kernel, and the module files served beside it")
    make.add_argument("-v", "--version", required=True, help="kernel version, as in lib/modules/VERSION")
    make.add_argument("-l", "--root", type=Path, default=Path("/"), help="where lib/modules is (default: /)")
    make.add_argument("-o", "--output", type=Path, required=True, help="file to write")
    make.add_argument("--ca", type=Path, required=True, help="CA certificate of the installation (PEM)")
    make.add_argument("--key", type=Path, required=True, help="public SSH key of the installation")
    make.add_argument("-m", "--module", action="append", default=[], help="one more module (repeatable)")
    make.add_argument("--compression", type=Compression, choices=list(Compression))
    make.add_argument("--publish", type=Path, metavar="DIR", help="also write modules.tar.gz, .alias, .dep to DIR")
    return parser


def main(argv: list[str]) -> int:
    """Run `openqrm initramfs ARGV`; 0 done, 1 with the reason on standard error."""
    args = _parser().parse_args(argv)
    try:
        spec = InitramfsSpec(
            version=args.version, root=args.root, output=args.output, ca_certificate=args.ca.read_text(),
            authorized_key=args.key.read_text(), extra_modules=tuple(args.module), compression=args.compression,
        )  # fmt: skip
        built = build(spec)
        if args.publish:
            modules.publish(args.root, args.version, args.publish)
    except (modules.ModulesError, runtime.RuntimeBundleError, OSError) as error:
        print(f"openqrm initramfs: {error}", file=sys.stderr)
        return 1
    size, unpacked = built.size / 1e6, built.unpacked / 1e6
    print(f"{built.path}: {size:.1f} MB ({unpacked:.1f} MB unpacked), {len(built.modules)} modules")
    return 0
