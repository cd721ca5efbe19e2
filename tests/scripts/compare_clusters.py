#!/usr/bin/env python3
"""Says whether two clusters hold the same objects, as a stranger would: raw lists of both, Python's standard library alone.

    compare_clusters.py KUBECONFIG KUBECONFIG [--namespaces ONE:OTHER] [--types]

A kubeconfig is JSON with a token, as the throw-away cluster writes it. Every type that a cluster serves with list and
create is listed in both. What may differ stands below, each with its reason; all else must be the same. With
--namespaces only the objects in namespace ONE of the first and OTHER of the second are compared. With --types, the types
of the first cluster that have an object which a restore must bring back are printed, one a line, and those that have
none are an error. Differences are printed, one a line, and end in exit 1.
"""
import argparse, difflib, json, re, ssl, sys, urllib.error, urllib.request
from concurrent.futures import ThreadPoolExecutor

# Types that are not restored, and why.
NOT_RESTORED = {
    "events": "what happened in the old cluster",
    "events.events.k8s.io": "the same events again",
    "nodes": "machines of the old cluster",
    "leases.coordination.k8s.io": "who holds what in the old cluster",
    "leasecandidates.coordination.k8s.io": "the same",
    "csinodes.storage.k8s.io": "drivers on machines of the old cluster",
    "csistoragecapacities.storage.k8s.io": "room on machines of the old cluster",
    "volumeattachments.storage.k8s.io": "disks attached to machines of the old cluster",
    "resourceslices.resource.k8s.io": "devices of machines of the old cluster",
    "ipaddresses.networking.k8s.io": "addresses of services, which get new ones",
}
# Groups of Ark's and Velero's own records: what was done in the old cluster.
RECORDS = ("ark.heptio.com", "velero.io")

# What the API server writes into metadata, and what a restore adds.
METADATA = {
    "uid": "each object of a cluster has another",
    "resourceVersion": "counts the writes of a cluster",
    "generation": "counts the writes of an object",
    "creationTimestamp": "when it was restored",
    "managedFields": "who wrote which field; dropped by the API server on create",
    "selfLink": "not served for years",
}
# Labels and annotations that say something about one life of an object.
KEYS = {
    "labels": {
        "ark-restore": "says which restore made the object",
        "controller-uid": "of a Job, which is another one",
        "batch.kubernetes.io/controller-uid": "the same",
        "kubernetes.io/legacy-token-last-used": "use of a token that is a new one",
    },
    "annotations": {
        "pv.kubernetes.io/bind-completed": "written by the binder when it binds",
        "pv.kubernetes.io/bound-by-controller": "written by the binder when it chooses",
        "volume.kubernetes.io/storage-provisioner": "written by the volume controller",
        "volume.beta.kubernetes.io/storage-provisioner": "the same",
        "kubernetes.io/service-account.uid": "of an account that is another one",
        "endpoints.kubernetes.io/last-change-trigger-time": "written by a controller when it works",
    },
}
# Further paths: resource, path, reason. `*` is every element of a list or every key.
PATHS = [
    ("persistentvolumes", "spec.claimRef.uid", "of a claim that is another one"),
    ("persistentvolumes", "spec.claimRef.resourceVersion", "the same"),
    ("jobs.batch", "spec.selector.matchLabels.controller-uid", "of a Job that is another one"),
    ("jobs.batch", "spec.selector.matchLabels.batch.kubernetes.io/controller-uid", "the same"),
    ("jobs.batch", "spec.template.metadata.labels.controller-uid", "the same"),
    ("jobs.batch", "spec.template.metadata.labels.batch.kubernetes.io/controller-uid", "the same"),
    ("pods", "spec.nodeName", "the scheduler chooses"),
    ("endpoints", "subsets.*.addresses.*.targetRef.uid", "of a pod that is another one"),
    ("endpoints", "subsets.*.addresses.*.targetRef.resourceVersion", "the same"),
    ("endpointslices.discovery.k8s.io", "endpoints.*.targetRef.uid", "of a pod that is another one"),
    ("endpointslices.discovery.k8s.io", "endpoints.*.targetRef.resourceVersion", "the same"),
    ("customresourcedefinitions.apiextensions.k8s.io", "spec.conversion.webhook.clientConfig.caBundle", "of the cluster"),
]
# The phase that controllers bring an object back to is compared; the rest of status is theirs.
PHASES = ("namespaces", "persistentvolumes", "persistentvolumeclaims")
# Objects whose content is of one cluster: resource, name, what of it.
OF_ONE_CLUSTER = [
    ("configmaps", "kube-root-ca.crt", "data"),
    ("configmaps", "extension-apiserver-authentication", "data"),
    ("configmaps", "kube-apiserver-legacy-service-account-token-tracking", "data"),
    ("services", "kubernetes", "spec"),
    ("endpoints", "kubernetes", "subsets"),
    ("endpointslices.discovery.k8s.io", "kubernetes", "endpoints"),
]


class Cluster:
    def __init__(self, kubeconfig):
        config = json.load(open(kubeconfig))
        cluster = config["clusters"][0]["cluster"]
        self.url, self.token = cluster["server"], config["users"][0]["user"]["token"].strip()
        self.context = ssl.create_default_context(cafile=cluster.get("certificate-authority"))

    def get(self, path):
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request, context=self.context, timeout=30) as answer:
            return json.load(answer)

    def types(self):
        """resource.group -> path of its list and whether namespaced, in the version that the server prefers."""
        groups = [("", "v1", "/api/v1")]
        for group in self.get("/apis")["groups"]:
            preferred = group["preferredVersion"]["version"]
            versions = [preferred, *(v["version"] for v in group["versions"] if v["version"] != preferred)]
            groups += [(group["name"], version, f"/apis/{group['name']}/{version}") for version in versions]
        found = {}
        for group, _, path in groups:
            try:
                resources = self.get(path)["resources"]
            except urllib.error.HTTPError as error:
                if error.code in (404, 503):  # the server behind it is down: it serves nothing here
                    continue
                raise
            for resource in resources:
                if "/" not in resource["name"] and {"list", "create"} <= set(resource["verbs"]):
                    name = resource["name"] + ("." + group if group else "")
                    found.setdefault(name, (path, resource["name"], resource["namespaced"], resource["kind"]))
        return found

    def objects(self, namespace=None):
        """(resource, namespace, name) -> object of everything."""
        wanted = [
            (name, path + (f"/namespaces/{namespace}" if namespace else "") + "/" + plural)
            for name, (path, plural, namespaced, _) in self.types().items()
            if is_restored_type(name) and (namespaced or not namespace)
        ]
        found = {}
        with ThreadPoolExecutor(4) as pool:
            for (name, _), answer in zip(wanted, pool.map(lambda pair: self.get(pair[1]), wanted)):
                for item in answer["items"]:
                    found[name, item["metadata"].get("namespace", ""), item["metadata"]["name"]] = item
        return found


def is_restored_type(name):
    return name not in NOT_RESTORED and not name.endswith(tuple("." + group for group in RECORDS))


def owner(item):
    return next((o for o in item["metadata"].get("ownerReferences", []) if o.get("controller")), {})


def left_out(resource, item):
    """Why an object of the old cluster need not be in the new one."""
    metadata = item["metadata"]
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    conditions = {c["type"] for c in item.get("status", {}).get("conditions") or [] if c.get("status") == "True"} \
        if isinstance(item.get("status"), dict) else set()
    if "ark.heptio.com/operation" in labels or labels.get("app.kubernetes.io/part-of") == "kubectl-ark":
        return "it belongs to Ark"
    if resource in ("jobs.batch", "pods") and "ark.heptio.com/schedule" in labels:
        return "it belongs to Ark"
    if resource.startswith("customresourcedefinitions.") and item["spec"]["group"] in RECORDS:
        return "it defines Ark's own records"
    if resource.startswith("apiservices.") and item["spec"].get("group") in RECORDS:
        return "it serves Ark's own records"
    if resource == "jobs.batch" and conditions & {"Complete", "Failed"}:
        return "it has finished"
    if resource == "pods" and item.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return "it has finished"
    if resource == "pods" and "kubernetes.io/config.mirror" in annotations:
        return "it mirrors a file of a machine"
    return None


def key_of(resource, namespace, item):
    """What an object is known by: its name, or its owner where a controller chose the name by chance."""
    name, labels = item["metadata"]["name"], item["metadata"].get("labels") or {}
    if resource == "pods" and owner(item).get("kind") == "Job":
        return resource, namespace, f"of Job {owner(item)['name']}"
    if resource == "endpointslices.discovery.k8s.io":
        by = labels.get("endpointslice.kubernetes.io/managed-by", "")
        if by.endswith(".k8s.io"):
            return resource, namespace, f"of Service {labels.get('kubernetes.io/service-name')}"
    return resource, namespace, name


def remove(value, path):
    if isinstance(value, list):
        for element in value if path[0] == "*" else []:
            remove_at(element, path[1:])
    elif isinstance(value, dict):
        for key in list(value) if path[0] == "*" else [path[0]]:
            if len(path) == 1:
                value.pop(key, None)
            elif key in value:
                remove(value[key], path[1:])


def remove_at(element, rest):
    if rest:
        remove(element, rest)


def split(path, value_keys=("batch.kubernetes.io/controller-uid",)):
    for key in value_keys:  # a key with dots in it is one step
        if path.endswith("." + key):
            return path[: -len(key) - 1].split(".") + [key]
    return path.split(".")


def without_noise(resource, item):
    item = json.loads(json.dumps(item))
    metadata = item["metadata"]
    named = metadata["name"]
    for key in METADATA:
        metadata.pop(key, None)
    for kind, keys in KEYS.items():
        for key in keys:
            (metadata.get(kind) or {}).pop(key, None)
        if not metadata.get(kind):
            metadata.pop(kind, None)
    for reference in metadata.get("ownerReferences", []):
        reference.pop("uid", None)  # the owner is another one, of the same name
    status = item.pop("status", None)
    if resource in PHASES:
        item["phase"] = status.get("phase")
    for of, path, _ in PATHS:
        if of == resource:
            remove(item, split(path))
    for of, name, part in OF_ONE_CLUSTER:
        if (of, name) == (resource, named):
            item.pop(part, None)
    if resource == "services":
        service(item)
    if resource == "secrets" and item.get("type") == "kubernetes.io/service-account-token":
        # A new token; that there is one is compared.
        item["data"] = {key: bool(value) for key, value in (item.get("data") or {}).items()}
    if resource == "jobs.batch":
        for labels in (item["spec"].get("selector", {}), item["spec"]["template"].get("metadata", {})):
            for key in ("matchLabels", "labels"):
                if labels.get(key) == {}:
                    labels.pop(key)
    if resource == "pods":
        pod(item)
    if key_of(resource, "", item)[2] != named:
        metadata.pop("name")
    if resource == "cronjobs.batch" and "ark.heptio.com/schedule" in (metadata.get("labels") or {}):
        item["spec"].pop("suspend", None)  # schedules come back suspended; a test of its own looks at it
    if resource == "endpointslices.discovery.k8s.io" and "name" not in metadata:
        # The controller's own order and times.
        item.pop("endpoints", None)
        metadata.pop("generateName", None)
        metadata.pop("annotations", None)
    return item


def service(item):
    spec = item.get("spec", {})
    if spec.get("clusterIP") not in (None, "None"):
        spec.pop("clusterIP"), spec.pop("clusterIPs", None)  # of the cluster's range; another is given
    given = (item["metadata"].get("annotations") or {}).get("test.example.com/node-ports") == "given"
    for port in spec.get("ports", []):
        if not given:
            port.pop("nodePort", None)  # nobody asked for this one
    if not given:
        spec.pop("healthCheckNodePort", None)


def pod(item):
    metadata, spec = item["metadata"], item["spec"]
    metadata.pop("generateName", None)  # means something only on create
    if owner(item).get("kind") == "Job":
        metadata.get("labels", {}).pop("batch.kubernetes.io/job-name", None)
        metadata.get("labels", {}).pop("job-name", None)
    # The API server mounts the token under a name that it makes up.
    renamed = {}
    for volume in spec.get("volumes") or []:
        if volume["name"].startswith("kube-api-access-"):
            renamed[volume["name"]] = volume["name"] = "kube-api-access"
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        for mount in container.get("volumeMounts") or []:
            if mount["name"].startswith("kube-api-access-"):
                mount["name"] = "kube-api-access"


def comparable(cluster, namespace, rename):
    found, omitted, objects = {}, [], cluster.objects(namespace)
    jobs_left_out = {key[1:] for key, item in objects.items() if key[0] == "jobs.batch" and left_out(key[0], item)}
    for (resource, place, _), item in objects.items():
        # What is not restored may still be there, made again by a controller: in neither is it compared.
        job = owner(item).get("kind") == "Job" and (place, owner(item)["name"])
        if left_out(resource, item) or job in jobs_left_out:
            omitted.append((resource, place, item["metadata"]["name"]))
            continue
        text = json.dumps(without_noise(resource, item), sort_keys=True, indent=1)
        if rename:
            text = text.replace(rename[1], rename[0])
        key = key_of(resource, rename[0] if rename else place, item)
        found.setdefault(key, []).append(text)
    return {key: sorted(texts) for key, texts in found.items()}, omitted


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("first"), parser.add_argument("second")
    parser.add_argument("--namespaces", default=":"), parser.add_argument("--types", action="store_true")
    options = parser.parse_args()
    first, second = Cluster(options.first), Cluster(options.second)
    if options.types:
        return types(first)
    one, other = options.namespaces.split(":")
    rename = (one, other) if one else None
    before, omitted = comparable(first, one or None, (one, one) if one else None)
    after, _ = comparable(second, other or None, rename)
    differences = []
    for key in sorted(before.keys() | after.keys()):
        name = " ".join(part for part in key if part)
        if key not in after:
            differences.append(f"{name}: not in the second")
        elif key not in before:
            differences.append(f"{name}: only in the second")
        elif before[key] != after[key]:
            lines = difflib.unified_diff("\n".join(before[key]).split("\n"), "\n".join(after[key]).split("\n"), lineterm="", n=2)
            text = " | ".join(re.sub(r"\s+", " ", line) for line in list(lines)[2:40])
            differences.append(f"{name}: {text}")
    for difference in differences:
        print(difference)
    print(f"{len(before)} objects, {len(omitted)} of them left out, {len(differences)} differences", file=sys.stderr)
    return 1 if differences else 0


def types(cluster):
    """Prints the types that have an object to bring back; what has none is a hole in the test."""
    filled = {
        resource for (resource, _, _), item in cluster.objects().items() if not left_out(resource, item)
    }
    empty = [name for name in cluster.types() if is_restored_type(name) and name not in filled]
    print("\n".join(sorted(filled)))
    for name in empty:
        print(f"error: there is no object of {name}", file=sys.stderr)
    return 1 if empty else 0


sys.exit(main())
