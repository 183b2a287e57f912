#!/bin/sh
# Make a bucket of an S3 server, unless it is there: make-bucket.sh http://store:8333/engram
set -eu
umask 077
secrets=${SECRETS_FOLDER:-/run/secrets}
configuration=${TMPDIR:-/tmp}/curl
printf 'user = "%s:%s"\n' \
    "$(cat "$secrets/engram_s3_access_key_id")" "$(cat "$secrets/engram_s3_secret_access_key")" > "$configuration"

s3() {
    curl --config "$configuration" --aws-sigv4 "aws:amz:us-east-1:s3" --silent --show-error --fail --max-time 30 \
        --output /dev/null "$@"
}

if s3 --head "$1" 2> /dev/null; then
    echo "$1 is there already"
else
    s3 --request PUT --data-binary "" "$1"
    echo "made $1"
fi
