#!/usr/bin/env python3
"""Checks that a full backup holds exactly the objects of its revision, by asking the API server again.

    exact_names.py BACKUP --kubeconfig FILE [--context NAME] [--kubectl PATH]
    exact_names.py BACKUP --server URL [--token TOKEN] [--ca FILE]

BACKUP is a directory (…/backups/NAME). Every type that has get, list, create and delete, in its preferred version, is
listed at resourceVersion=<status.resourceVersion of the marker>&resourceVersionMatch=Exact; the names must be those in
the archive, one for one. Objects being deleted or labelled to be left out must be missing from the archive: each is
looked up in the list, none is guessed. Nothing here is shared with the product: discovery is the old form, lists bring
metadata only, the archive is read by tarfile. It must run before the revision is compacted (minutes, by default).
"""
import argparse
import base64
import gzip
import json
import os
import ssl
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.parse
import urllib.request

VERBS = {"get", "list", "create", "delete"}
TWINS = {("events.k8s.io", "events")}  # the same objects as the core group's events
EXCLUDE = ("ark.heptio.com/exclude-from-backup", "velero.io/exclude-from-backup")
METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
PAGE = 5000


class Server:
    """An API server that can be asked for JSON."""

    def __init__(self, url, token=None, context=None):
        self.url, self.token, self.context = url.rstrip("/"), token, context

    def get(self, path, accept="application/json", **query):
        url = f"{self.url}{path}?{urllib.parse.urlencode(query)}"
        request = urllib.request.Request(url, headers={"Accept": accept})
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        with urllib.request.urlopen(request, context=self.context, timeout=120) as answer:
            return json.load(answer)


def tls(ca_file=None, ca_data=None, insecure=False, certificate=None, key=None):
    """How to trust the server, and who we are to it."""
    context = ssl.create_default_context(cafile=ca_file, cadata=ca_data)
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate:
        context.load_cert_chain(certificate, key)
    return context


def from_kubeconfig(arguments):
    """The server of a kubeconfig, which kubectl itself resolves; any field may be a file or data."""
    command = [arguments.kubectl, "config", "view", "--raw", "--minify", "--flatten", "-o", "json"]
    if arguments.kubeconfig:
        command += ["--kubeconfig", arguments.kubeconfig]
    if arguments.context:
        command += ["--context", arguments.context]
    config = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    cluster, user = config["clusters"][0]["cluster"], config["users"][0].get("user", {})
    decode = lambda data: base64.b64decode(data) if data else b""
    with tempfile.TemporaryDirectory() as directory:
        files = {}
        for field in ("client-certificate-data", "client-key-data"):
            if field in user:
                files[field] = os.path.join(directory, field)
                with open(files[field], "wb") as file:
                    file.write(decode(user[field]))
        authority = decode(cluster.get("certificate-authority-data")).decode() or None
        context = tls(ca_data=authority, insecure=cluster.get("insecure-skip-tls-verify", False),
                      certificate=files.get("client-certificate-data"), key=files.get("client-key-data"))
    return Server(cluster["server"], user.get("token"), context)


def discover(server):
    """(group, resource) -> (path, namespaced), in the first version of each group that serves it."""
    versions = [("", version, f"/api/{version}") for version in server.get("/api")["versions"]]
    for group in server.get("/apis")["groups"]:
        # The server puts the version that it prefers first.
        names = [version["version"] for version in group["versions"]]
        names.sort(key=lambda name: name != group["preferredVersion"]["version"])
        versions += [(group["name"], name, f"/apis/{group['name']}/{name}") for name in names]
    types, broken = {}, []
    for group, version, path in versions:
        try:
            resources = server.get(path)["resources"]
        except urllib.error.HTTPError as error:
            broken.append(f"{group}/{version}: HTTP {error.code}")
            continue
        for resource in resources:
            if "/" not in resource["name"]:
                found = (f"{path}/{resource['name']}", resource["namespaced"], set(resource.get("verbs") or ()))
                types.setdefault((group, resource["name"]), found)
    chosen = {what: (path, namespaced) for what, (path, namespaced, verbs) in types.items() if VERBS <= verbs}
    return {what: chosen[what] for what in chosen if what not in TWINS}, broken


def listed(server, path, revision):
    """Names of what must be in the archive, and of what must not: (namespace, name), namespace "" for the cluster."""
    wanted, unwanted, token = set(), set(), None
    while token != "":
        query = {"continue": token} if token else {"resourceVersion": revision, "resourceVersionMatch": "Exact"}
        answer = server.get(path, METADATA, limit=PAGE, **query)
        for item in answer.get("items") or ():
            metadata = item["metadata"]
            labels = metadata.get("labels") or {}
            left_out = "deletionTimestamp" in metadata or any(labels.get(label) == "true" for label in EXCLUDE)
            (unwanted if left_out else wanted).add((metadata.get("namespace", ""), metadata["name"]))
        token = answer["metadata"].get("continue") or ""
    return wanted, unwanted


def in_archive(path):
    """resource.group -> names in the archive, with its footer."""
    names, footer = {}, None
    with gzip.open(path) as plain, tarfile.open(fileobj=plain, mode="r|") as archive:
        for entry in archive:
            parts = entry.name.split("/")
            if entry.name == "metadata/ark.json":
                footer = json.load(archive.extractfile(entry))
            elif parts[0] == "resources":
                namespace = parts[3] if parts[2] == "namespaces" else ""
                name = (namespace, parts[-1].removesuffix(".json"))
                if name in names.setdefault(parts[1], set()):
                    sys.exit(f"error: {entry.name} is in the archive twice")
                names[parts[1]].add(name)
    return names, footer


def say(what, names):
    shown = ", ".join("/".join(part for part in name if part) for name in sorted(names)[:20])
    return f"{len(names)} {what}: {shown}{' …' if len(names) > 20 else ''}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backup")
    parser.add_argument("--kubeconfig")
    parser.add_argument("--context")
    parser.add_argument("--kubectl", default="kubectl", help="only used to read the kubeconfig")
    parser.add_argument("--server")
    parser.add_argument("--token")
    parser.add_argument("--ca", help="without it, the certificate of --server is not checked")
    arguments = parser.parse_args()
    if arguments.server:
        server = Server(arguments.server, arguments.token, tls(ca_file=arguments.ca, insecure=not arguments.ca))
    else:
        server = from_kubeconfig(arguments)
    directory = os.path.abspath(arguments.backup)
    with open(os.path.join(directory, "ark-backup.json"), encoding="utf-8") as file:
        marker = json.load(file)
    filters = set(marker["spec"]) - {"ttl", "storageLocation", "snapshotVolumes"}
    if filters:
        sys.exit(f"error: the backup was filtered by {', '.join(sorted(filters))}: only a full one can be compared")
    revision = marker["status"]["resourceVersion"]
    archive, footer = in_archive(os.path.join(directory, f"{os.path.basename(directory)}.tar.gz"))
    # A type of another etcd has a revision of its own, which its entry in the footer tells.
    revisions = {entry["resource"]: entry.get("resourceVersion", revision) for entry in footer["types"]}
    types, broken = discover(server)
    differences = [f"{group} could not be discovered" for group in broken]
    objects = left_out = 0
    for (group, plural), (path, namespaced) in sorted(types.items()):
        resource = f"{plural}.{group}" if group else plural
        try:
            wanted, unwanted = listed(server, path, revisions.get(resource, revision))
        except urllib.error.HTTPError as error:
            differences.append(f"{resource} cannot be listed at {revision}: HTTP {error.code} {error.read()[:300]!r}")
            continue
        found = archive.pop(resource, set())
        objects, left_out = objects + len(found), left_out + len(unwanted)
        wrong = [(what, names) for what, names in [
            ("missing from the archive", wanted - found),
            ("in the archive, though being deleted or labelled to be left out", unwanted & found),
            ("in the archive, but not in the list", found - wanted - unwanted),
            ("in the wrong scope", {name for name in found if bool(name[0]) != namespaced}),
        ] if names]
        differences += [f"{resource}: {say(what, names)}" for what, names in wrong]
    differences += [f"{resource}: {say('of a type that is not served', names)}" for resource, names in archive.items()]
    print(f"{len(types)} types at revision {revision}: {objects} objects in the archive, {left_out} rightly left out, "
          f"{len(differences)} differences")
    for difference in differences:
        print(f"error: {difference}", file=sys.stderr)
    sys.exit(1 if differences else 0)


if __name__ == "__main__":
    main()
