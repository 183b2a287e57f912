#!/bin/sh
# Valkey with the password of the secret; the arguments are further options.
set -eu
umask 077
configuration=${TMPDIR:-/tmp}/valkey.conf
# In a file, since everybody on the machine may read the arguments of a process.
printf 'requirepass "%s"\n' "$(cat "${SECRETS_FOLDER:-/run/secrets}/engram_redis_password")" > "$configuration"
exec valkey-server "$configuration" "$@"
