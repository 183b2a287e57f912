#!/bin/sh
# SeaweedFS on one machine, whose S3 gateway alone can be reached from others, with the credentials of the secrets.
set -eu
umask 077
secrets=${SECRETS_FOLDER:-/run/secrets}
identities=${TMPDIR:-/tmp}/s3.json
cat > "$identities" <<JSON
{"identities": [{
  "name": "engram",
  "credentials": [{
    "accessKey": "$(cat "$secrets/engram_s3_access_key_id")",
    "secretKey": "$(cat "$secrets/engram_s3_secret_access_key")"
  }],
  "actions": ["Admin", "Read", "List", "Tagging", "Write"]
}]}
JSON
# Master, volume server and filer ask nobody for credentials, so that they listen on loopback only.
exec weed -logtostderr=true server \
    -ip=127.0.0.1 -ip.bind=127.0.0.1 -dir=/data \
    -master.telemetry=false -master.volumeSizeLimitMB=1024 -volume.max=0 -filer \
    -s3 -s3.ip.bind=0.0.0.0 -s3.port=8333 -s3.port.iceberg=0 -s3.port.lance=0 -s3.iam=false \
    -s3.config="$identities" -s3.autoCreateBucket=false -s3.allowDeleteBucketNotEmpty=false "$@"
