#!/usr/bin/env python3
"""Reads a backup as a stranger would: from docs/format.md alone, with Python's standard library alone.

    read_backup.py PATH                                  check every byte, print one line
    read_backup.py PATH --names                          also print "resource namespace name" (or -) of every object
    read_backup.py PATH --get RESOURCE [NAMESPACE/]NAME  print one object: three ranged reads, one of them of a member

PATH is a backup's directory (…/backups/NAME) or a lone NAME.tar.gz. What does not fit is said on stderr, with exit 1.
"""
import gzip, hashlib, io, json, os, struct, sys, tarfile, zlib

BLOCKS = bytes(1024)  # tar's two end blocks, all that the end member unpacks to
END_LENGTH = 1101


def check(condition, text):
    if not condition:
        sys.exit(f"error: {text}")


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def piece(file, offset, length):
    file.seek(offset)
    return file.read(length)


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
    """End member -> footer, checked; with what the marker must say of the archive, and the footer's raw length."""
    end = piece(file, max(length - END_LENGTH, 0), END_LENGTH)
    check(len(end) == END_LENGTH, "the archive is too short to have an end member")
    start = bytes([31, 139, 8, 4, 0, 0, 0, 0, 0, 255, 52, 0]) + b"AK" + bytes([48, 0])
    stored = bytes([1, 0x00, 0x04, 0xFF, 0xFB]) + BLOCKS + struct.pack("<II", zlib.crc32(BLOCKS), len(BLOCKS))
    check(end[:16] == start and end[64:] == stored, "the archive does not end with an end member")
    offset, size, digest = struct.unpack("<QQ32s", end[16:64])
    check(offset + size + END_LENGTH == length, f"the footer is said to be at {offset}+{size}, of {length} bytes")
    packed = piece(file, offset, size)
    check(sha256(packed) == digest.hex(), "the footer does not have the SHA-256 that the end member says")
    raw = gunzip(packed, "the footer", 256 << 20)
    (path, text), *more = entries(raw, "the footer")
    footer = json.loads(text)
    check((footer["formatVersion"], footer["encryption"]) == ("1", "none"), "unknown formatVersion or encryption")
    check(path == "metadata/ark.json" and not more, f"the footer is called {path}, or not alone")
    lines = [json.loads(line.rstrip(",")) for line in text.decode().split("\n")[1:-2]]
    check(lines == footer["members"], "the footer does not have one member a line")
    ends = [0, *(member["offset"] + member["length"] for member in lines)]
    check(ends == [*(member["offset"] for member in lines), offset], "the members do not tile the archive")
    place = {"length": length, "footerOffset": offset, "footerLength": size, "footerSHA256": digest.hex()}
    return footer, place, len(raw)


def open_member(file, member, footer):
    """Path, key and JSON of every object in a member, all checked."""
    what = f"the member at {member['offset']}+{member['length']} ({member['resource']})"
    packed = piece(file, member["offset"], member["length"])
    check(sha256(packed) == member["sha256"], f"{what} does not have the SHA-256 that the footer says")
    raw = gunzip(packed, what, member["size"])
    check(len(raw) == member["size"], f"{what} does not unpack to {member['size']} bytes")
    if member["resource"] == "metadata":
        found = [(path, path, body) for path, body in entries(raw, what)]
        check([(path, body) for path, _, body in found] == [("metadata/version", b"1.1.0\n")], f"{what} is another")
    else:
        found = []
        of_type = {entry["resource"]: entry for entry in footer["types"]}[member["resource"]]
        for path, body in entries(raw, what):
            value = json.loads(body)
            namespace, name = value["metadata"].get("namespace"), value["metadata"]["name"]
            scope = f"namespaces/{namespace}" if of_type["namespaced"] else "cluster"
            check(path == f"resources/{member['resource']}/{scope}/{name}.json", f"{path} holds {namespace}/{name}")
            kind = (value["apiVersion"], value["kind"])
            check(kind == (of_type["apiVersion"], of_type["kind"]), f"{path} is {kind}")
            check(member.get("part") in (None, namespace), f"{path} is not in namespace {member.get('part')}")
            found.append((path, f"{namespace}/{name}" if of_type["namespaced"] else name, body))
    ends = (len(found), found[0][1], found[-1][1])
    check(ends == (member["items"], member["first"], member["last"]), f"{what} does not hold what its line says")
    return found


def check_directory(directory, footer, place, lists):
    """The marker and the other files, against each other and against what was found in the archive."""
    files = {key: open(os.path.join(directory, key), "rb").read() for key in os.listdir(directory) if ".tar" not in key}
    check("ark-deleting.json" not in files, "the backup is being deleted")
    marker = json.loads(files.get("ark-backup.json", b"{}"))
    commit, name = marker.get("commit"), os.path.basename(directory)
    check(commit, "there is no marker of ours: the backup is not committed, or not ours")
    check((commit["formatVersion"], commit["encryption"]) == ("1", "none"), "unknown formatVersion or encryption")
    check((marker["apiVersion"], marker["kind"]) == ("ark.heptio.com/v1", "Backup"), "the marker is no Backup")
    check(name == footer["backup"] == marker["metadata"]["name"], "marker, footer and directory are of different names")
    check(commit["archive"] == place, f"the marker says {commit['archive']} of the archive, which is {place}")
    check(marker["status"] == footer["status"] | {"size": place["length"]}, "marker and footer have different status")
    same = [(commit, key) for key in ("runID", "attempt", "clusterUID", "namespace", "schedule")]
    for where, key in [*same, (marker, "spec"), (marker["metadata"], "labels")]:
        check(where.get(key) == footer.get(key), f"marker and footer have different {key}")
    for key, digest in commit["files"].items():
        found = {"length": len(files.get(key, b"")), "sha256": sha256(files.get(key, b""))}
        check(found == digest, f"{key} is {found}, not {digest} as the marker says")
    check({*commit["files"], f"{name}-logs.gz", "ark-backup.json"} == {*files}, f"files missing or strange: {[*files]}")
    velero = json.loads(files["velero-backup.json"])
    runs = {about["metadata"]["annotations"]["ark.heptio.com/run"] for about in (velero, marker)}
    check(runs == {commit["runID"]} and "expiration" not in velero["status"], "velero-backup.json is not of this run")
    unzip = lambda key: json.loads(gzip.decompress(files[f"{name}-{key}"]))
    check(unzip("results.gz") == footer["results"], "the results are not those in the footer")
    check(unzip("resource-list.json.gz") == lists, "the resource list is not what is in the archive")


def main(path, command="", resource="", wanted=""):
    directory = os.path.abspath(path) if os.path.isdir(path) else None
    archive = os.path.join(directory, f"{os.path.basename(directory)}.tar.gz") if directory else path
    file = open(archive, "rb")
    footer, place, size = open_footer(file, os.path.getsize(archive))
    types = {entry["resource"]: entry for entry in footer["types"]}
    if command == "--get":
        for member in (member for member in footer["members"] if member["resource"] == resource):
            if types[resource].get("unsorted") or member["first"] <= wanted <= member["last"]:
                for body in (body for _, key, body in open_member(file, member, footer) if key == wanted):
                    return sys.stdout.buffer.write(body + b"\n")
        sys.exit(f"error: there is no {resource} {wanted}")
    lists, seen, length = {f"{entry['apiVersion']}/{entry['kind']}": [] for entry in footer["types"]}, [], {}
    for member in footer["members"]:
        for path, key, body in open_member(file, member, footer):
            seen.append((path, len(body)))
