#!/usr/bin/env python3
"""Packs the plugin for krew: an archive for each platform, their checksums, and the manifest.

    package.py VERSION PROGRAMS OUTPUT

VERSION is the tag, such as v1.2.3. PROGRAMS holds a directory for each platform with the program in it, such as
linux-amd64/kubectl-ark and windows-amd64/kubectl-ark.exe; all platforms must be there. OUTPUT is made, and gets the
archives, checksums.txt and ark.yaml. The same input gives the same bytes. Needs Python 3.8 and nothing else.
"""

import gzip
import hashlib
import io
import re
import string
import sys
import tarfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
RELEASES = "https://github.com/heptio/kubectl-ark/releases/download"
PLATFORMS = ["linux-amd64", "linux-arm64", "darwin-amd64", "darwin-arm64", "windows-amd64"]
# https://semver.org, and the v that krew wants before it.
VERSION = re.compile(
    r"v(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(-(0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)(\.(0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*))*)?"
)
# Of no meaning: the first day that a zip archive can hold.
TIME = (1980, 1, 1, 0, 0, 0)
SECONDS = 315532800


def files(platform, programs):
    """What is in the archive: name, contents, mode. krew wants the licence extracted beside the program."""
    program = "kubectl-ark.exe" if platform.startswith("windows-") else "kubectl-ark"
    path = programs / platform / program
    if not path.is_file():
        sys.exit(f"error: {path} is missing: every platform of the manifest needs its program")
    return [
        (program, path.read_bytes(), 0o755),
        ("LICENSE", (HERE.parent / "LICENSE").read_bytes(), 0o644),
    ]


def tar_gz(members):
    tarred = io.BytesIO()
    with tarfile.open(fileobj=tarred, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, contents, mode in members:
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.mtime = len(contents), mode, SECONDS
            archive.addfile(member, io.BytesIO(contents))
    return gzip.compress(tarred.getvalue(), compresslevel=9, mtime=0)


def zipped(members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, contents, mode in members:
            member = zipfile.ZipInfo(name, TIME)
            member.compress_type = zipfile.ZIP_DEFLATED
            # As Unix makes it, also when this runs elsewhere: a regular file of that mode.
            member.create_system, member.external_attr = 3, (0o100000 | mode) << 16
            archive.writestr(member, contents)
    return out.getvalue()


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__.strip())
    version, programs, output = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    if not VERSION.fullmatch(version):
        sys.exit(f"error: {version} is not a version such as v1.2.3")
    archives, values = {}, {"version": version, "release": f"{RELEASES}/{version}"}
    for platform in PLATFORMS:
        members = files(platform, programs)
        windows = platform.startswith("windows-")
        archive = zipped(members) if windows else tar_gz(members)
        place = platform.replace("-", "_")
        archives[f"kubectl-ark_{version}_{place}.{'zip' if windows else 'tar.gz'}"] = archive
        values[f"sha256_{place}"] = hashlib.sha256(archive).hexdigest()
    template = (HERE / "ark.yaml").read_text(encoding="utf-8")
    # What speaks of the template is not for the index.
    template = re.sub(r"\A(#.*\n)+", "", template)
    manifest = string.Template(template).substitute(values)
    output.mkdir(parents=True, exist_ok=True)
    checksums = ""
    for name, archive in archives.items():
        (output / name).write_bytes(archive)
        checksums += f"{hashlib.sha256(archive).hexdigest()}  {name}\n"
    (output / "checksums.txt").write_bytes(checksums.encode())
    (output / "ark.yaml").write_bytes(manifest.encode())


if __name__ == "__main__":
    main()
