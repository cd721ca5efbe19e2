#!/usr/bin/env python3
"""Reads a backup as a stranger would: from docs/format.md alone, with Python's standard library alone.

    read_backup.py PATH                                  check every byte, print one line
    read_backup.py PATH --names                          also print "resource namespace name" (or -) of every object
    read_backup.py PATH --get RESOURCE [NAMESPACE/]NAME  print one object, reading one member

PATH is a backup's directory (…/backups/NAME) or a lone NAME.tar.gz. What does not fit is said on stderr, with exit 1.
"""
import gzip, io, json, os, struct, sys, tarfile, zlib
from hashlib import sha256

END_LENGTH, END_BLOCKS = 1101, bytes(1024)  # of the end member, packed and unpacked


def check(condition, text):
    if not condition:
        sys.exit(f"error: {text}")


def gunzip(data, what, limit):
    """Unpacks exactly one gzip member of at most `limit` bytes; zlib checks its CRC."""
    unpacker = zlib.decompressobj(31)
    raw = unpacker.decompress(data, limit + 1)
    check(unpacker.eof and not unpacker.unused_data and len(raw) <= limit, f"{what} is not one gzip member of its size")
    return raw


def entries(raw, what):
    """Path and content of every entry in a piece of tar without end blocks."""
    for entry in tarfile.open(fileobj=io.BytesIO(raw)):
        header = (entry.isreg(), entry.mode, entry.uid, entry.gid, len(raw) % 512)
        check(header == (True, 0o755, 0, 0, 0), f"{what}: the header of {entry.name} is {header}")
        yield entry.name, raw[entry.offset_data : entry.offset_data + entry.size]


def open_footer(file, length):
    """End member -> footer, checked; what the marker must say of the archive; the length of the footer's JSON."""
    end = os.pread(file, END_LENGTH, max(length - END_LENGTH, 0))
    start = bytes([31, 139, 8, 4, 0, 0, 0, 0, 0, 255, 52, 0]) + b"AK" + bytes([48, 0])
    stored = bytes([1, 0, 4, 255, 251]) + END_BLOCKS + struct.pack("<II", zlib.crc32(END_BLOCKS), 1024)
    check(end[:16] == start and end[64:] == stored, "the archive does not end with an end member")
    offset, size, digest = struct.unpack("<QQ32s", end[16:64])
    check(offset + size + END_LENGTH == length, f"the footer is said to be at {offset}+{size}, of {length} bytes")
    packed = os.pread(file, size, offset)
    check(sha256(packed).hexdigest() == digest.hex(), "the footer does not have the SHA-256 that the end member says")
    (path, text), *more = entries(gunzip(packed, "the footer", 256 << 20), "the footer")
    footer = json.loads(text)
    check((footer["formatVersion"], footer["encryption"]) == ("1", "none"), "unknown formatVersion or encryption")
    check(path == "metadata/ark.json" and not more, f"the footer is called {path}, or not alone")
    members = [json.loads(line.rstrip(",")) for line in text.decode().split("\n")[1:-2]]
    check(members == footer["members"], "the footer does not have one member a line")
    ends = [0, *(member["offset"] + member["length"] for member in members)]
    check(ends == [*(member["offset"] for member in members), offset], "the members do not tile the archive")
    return footer, dict(length=length, footerOffset=offset, footerLength=size, footerSHA256=digest.hex()), len(text)


def open_member(file, member, footer):
    """Path, key and JSON of every object in a member, all checked."""
    what = f"the member at {member['offset']}+{member['length']} ({member['resource']})"
    packed = os.pread(file, member["length"], member["offset"])
    check(sha256(packed).hexdigest() == member["sha256"], f"{what} does not have the SHA-256 that the footer says")
    raw = gunzip(packed, what, member["size"])
    check(len(raw) == member["size"], f"{what} does not unpack to {member['size']} bytes")
    if member["resource"] == "metadata":
        found = [(path, path, body) for path, body in entries(raw, what)]
        check([entry[1:] for entry in found] == [("metadata/version", b"1.1.0\n")], f"{what} holds {found}")
    else:
        found, of_type = [], next(entry for entry in footer["types"] if entry["resource"] == member["resource"])
        for path, body in entries(raw, what):
            value = json.loads(body)
            namespace, name = value["metadata"].get("namespace"), value["metadata"]["name"]
            scope = f"namespaces/{namespace}" if of_type["namespaced"] else "cluster"
            check(path == f"resources/{member['resource']}/{scope}/{name}.json", f"{path} holds {namespace}/{name}")
            check(all(value[key] == of_type[key] for key in ("apiVersion", "kind")), f"{path} is of another kind")
            check(member.get("part") in (None, namespace), f"{path} is not in namespace {member.get('part')}")
            found.append((path, f"{namespace}/{name}" if of_type["namespaced"] else name, body))
    line = (len(found), found[0][1], found[-1][1])
    check(line == (member["items"], member["first"], member["last"]), f"{what} does not hold what its line says")
    return found


def check_directory(directory, footer, place, lists):
    """The marker and the other files, against each other and against what was found in the archive."""
    name = os.path.basename(directory)
    keys = (key for key in os.listdir(directory) if key != f"{name}.tar.gz" and not key.startswith(".ark-tmp-"))
    files = {key: open(f"{directory}/{key}", "rb").read() for key in keys}
    check("ark-deleting.json" not in files, "the backup is being deleted")
    marker = json.loads(files.get("ark-backup.json", b"{}"))
    commit = marker.get("commit") or sys.exit("error: there is no marker of ours: not committed, or not our backup")
    called = (marker["apiVersion"], marker["kind"], marker["metadata"]["name"], footer["backup"])
    check(called == ("ark.heptio.com/v1", "Backup", name, name), f"in directory {name}, marker and footer are {called}")
    check(commit["archive"] == place, f"the marker says {commit['archive']} of the archive, which is {place}")
    check(marker["status"] == footer["status"] | {"size": place["length"]}, "marker and footer have different status")
    said = commit | {"spec": marker["spec"], "labels": marker["metadata"].get("labels")}
    for key in "formatVersion encryption runID attempt clusterUID namespace schedule spec labels".split():
        check(said.get(key) == footer.get(key), f"marker and footer have different {key}")
    check({*commit["files"], f"{name}-logs.gz", "ark-backup.json"} == {*files}, f"files missing or strange: {[*files]}")
    for key, digest in commit["files"].items():
        found = {"length": len(files[key]), "sha256": sha256(files[key]).hexdigest()}
        check(found == digest, f"{key} is {found}, not {digest} as the marker says")
    velero = json.loads(files["velero-backup.json"])
    runs = {about["metadata"]["annotations"]["ark.heptio.com/run"] for about in (velero, marker)}
    check(runs == {commit["runID"]} and "expiration" not in velero["status"], "velero-backup.json is not of this run")
    found = [json.loads(gzip.decompress(files[f"{name}-{key}.gz"])) for key in ("results", "resource-list.json")]
    check(found == [footer["results"], lists], "results or resource list are not what is in the archive")


def main(path, command="", resource="", wanted=""):
    directory = os.path.abspath(path) if os.path.isdir(path) else ""
    archive = f"{directory}/{os.path.basename(directory)}.tar.gz" if directory else path
    file = os.open(archive, os.O_RDONLY)
    footer, place, length = open_footer(file, os.path.getsize(archive))
    types = {entry["resource"]: entry | {"keys": {}, "length": 0} for entry in footer["types"]}
    if command == "--get":
        for member in (member for member in footer["members"] if member["resource"] == resource):
            if types[resource].get("unsorted") or member["first"] <= wanted <= member["last"]:
                for body in (body for _, key, body in open_member(file, member, footer) if key == wanted):
                    return sys.stdout.buffer.write(body + b"\n")
        sys.exit(f"error: there is no {resource} {wanted}")
    paths, last = [], {}
    for member in footer["members"]:
        of_type, part = types.get(member["resource"]), (member["resource"], member.get("part"))
        for path, key, body in open_member(file, member, footer):
            paths.append((path, len(body)))
            if of_type:
                check(of_type.get("unsorted") or last.get(part, "") < key, f"{path} comes after {last.get(part)}")
                last[part], of_type["length"] = key, of_type["length"] + len(body)
                of_type["keys"].setdefault(f"{member['part']}/" if "part" in member else "", []).append(key)
                if command == "--names":
                    print(member["resource"], *(key.split("/") if of_type["namespaced"] else ("-", key)))
    for t in types.values():
        t["keys"] = [key for part in sorted(t["keys"]) for key in t["keys"][part]]  # one part after the other
        check((len(t["keys"]), t["length"]) == (t["items"], t["bytes"]), f"{len(t['keys'])} {t['resource']} are there")
    with gzip.open(archive) as plain, tarfile.open(fileobj=plain, mode="r|") as tar:
        found = [(entry.name, entry.size, tar.members.clear())[:2] for entry in iter(tar.next, None)]
        check(not any(plain.read()), "something follows the end of the tar")
    check(found == [*paths, ("metadata/ark.json", length)], "plain gzip and tar find other entries")
    if directory:
        check_directory(directory, footer, place, {f"{t['apiVersion']}/{t['kind']}": t["keys"] for t in types.values()})
    about = f"{footer['backup']}: {footer['status']['phase']}, at revision {footer['status']['resourceVersion']}, whole"
    print(f"{about}: {len(paths) - 1} objects, {len(types)} types", file=sys.stderr if command else sys.stdout)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception as error:  # damage can show anywhere, and always means the same
        sys.exit(f"error: {type(error).__name__}: {error}")
