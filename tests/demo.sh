#!/usr/bin/env bash
# The main job, on a throw-away cluster: an application's namespace is backed up by a Job, deleted, and comes back.
#
# Called by `make demo` with the directory of the built programs. Every command is shown as it is run.
set -euo pipefail

programs=$1
throwaway=$programs/throwaway
name=demo-$$
work=$(mktemp -d)
trap '"$throwaway" down --name "$name" || true; rm -rf "$work"' EXIT

say() { printf '\n\033[1m# %s\033[0m\n' "$*"; }
run() { printf '$ %s\n' "$*"; "$@"; }

say "A real Kubernetes with a node, and an S3 server, for this demo only"
"$throwaway" up --name "$name" > "$work/up"
eval "$("$throwaway" env --name "$name")"
"$throwaway" image localhost/ark-job:demo "$work/ark-job.tar"
"$throwaway" load --name "$name" "$work/ark-job.tar"
run kubectl get nodes

say "Install: resource types, rights, pod settings, and where backups go"
printf '[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n' "$AWS_ACCESS_KEY_ID" "$AWS_SECRET_ACCESS_KEY" > "$work/credentials"
run kubectl ark install --image localhost/ark-job:demo --credentials-file "$work/credentials" \
  --storage "s3://$ARK_S3_BUCKET/demo?endpoint=$ARK_S3_URL&path-style=true&region=us-east-1"

say "An application"
run kubectl create namespace shop
kubectl apply --namespace shop -f - <<'YAML'
apiVersion: v1
kind: ConfigMap
metadata: {name: page}
data: {index.html: "<h1>Open all night</h1>"}
---
apiVersion: v1
kind: Secret
metadata: {name: till}
stringData: {password: correct-horse}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: localhost/busybox:test
        command: [/bin/httpd, -f, -p, "8080", -h, /www]
        volumeMounts: [{name: page, mountPath: /www}]
      volumes: [{name: page, configMap: {name: page}}]
YAML
run kubectl rollout status deployment/web --namespace shop --timeout=120s

say "Back it up: a Job does it, and is gone afterwards"
run kubectl ark backup create before --include-namespaces shop --wait
run kubectl ark backup get
run kubectl ark backup describe before

say "Lose it"
run kubectl delete namespace shop --timeout=120s

say "Get it back"
run kubectl ark restore create after --from-backup before --wait
run kubectl ark restore get
run kubectl rollout status deployment/web --namespace shop --timeout=120s
run kubectl get deployments,pods,services,configmaps,secrets --namespace shop --show-labels

say "Is it the same?"
page=$(kubectl get configmap page --namespace shop -o 'jsonpath={.data.index\.html}')
password=$(kubectl get secret till --namespace shop -o 'jsonpath={.data.password}' | base64 -d)
pod=$(kubectl get pods --namespace shop --selector app=web --field-selector status.phase=Running -o 'jsonpath={.items[0].metadata.name}')
served=$(kubectl exec --namespace shop "$pod" -- /bin/wget -qO- http://127.0.0.1:8080/index.html)
[ "$page" = '<h1>Open all night</h1>' ]
[ "$password" = correct-horse ]
[ "$served" = "$page" ]
printf 'The restored pod serves: %s\n' "$served"
say "Done: nothing of Ark's runs now"
run kubectl get pods --namespace heptio-ark
