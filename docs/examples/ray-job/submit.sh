#!/usr/bin/env bash
# Submit labelling to a running Ray cluster and follow it:
#     RAY_API_SERVER_ADDRESS=http://HEAD:8265 MR3_SHARED=/shared MR3_JUDGE=/shared/judge ./submit.sh label.yaml
# Every node must have mr3 installed (the image of docs/examples/docker) and see MR3_SHARED at the same path. The same
# command again goes on where a stopped job was.
set -euo pipefail

: "${RAY_API_SERVER_ADDRESS:?set it to the dashboard of the cluster, http://HEAD:8265}"
: "${MR3_SHARED:?set it to a folder that every node sees at the same path}"
: "${MR3_JUDGE:?set it to the folder of the judge under MR3_SHARED}"
[ $# -ge 1 ] || { echo "usage: $0 CONFIG [--key value ...]" >&2; exit 2; }
config="$1"
shift
[ -f "$config" ] || { echo "no config file at $config" >&2; exit 2; }

# Clusters of Ray 2.59 and later ask for a token: that of the head node, in RAY_AUTH_TOKEN or a file.
export RAY_AUTH_MODE="${RAY_AUTH_MODE:-token}"
if [ "$RAY_AUTH_MODE" = token ] && [ -z "${RAY_AUTH_TOKEN:-}" ] && [ ! -s "${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}" ]; then
    echo "no token: on the head node run 'ray get-auth-token', and set RAY_AUTH_TOKEN here (or RAY_AUTH_MODE=disabled" \
        "for a cluster that was started so)" >&2
    exit 2
fi

# The config travels with the job as its working directory: it need not lie on the cluster.
bundle="$(mktemp -d)"
trap 'rm -rf "$bundle"' EXIT
cp "$config" "$bundle/config.yaml"

variables="$(python3 - <<'PYTHON'
import json, os

names = [n for n in os.environ if n.startswith(("MR3_", "HELPSTEER3_")) or n in ("HF_TOKEN", "HF_HOME")]
print(json.dumps({"env_vars": {name: os.environ[name] for name in names}}))
PYTHON
)"

ray job submit --runtime-env-json "$variables" --working-dir "$bundle" -- mr3 label --config config.yaml "$@"
