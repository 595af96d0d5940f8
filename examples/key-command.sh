#!/bin/sh
# A key command: keeps tenantry's key under one in a file of its own, with openssl alone.
#
#     (umask 077; openssl rand -hex 32 > /mnt/other-disk/wrapping.key)
#     key command: examples/key-command.sh /mnt/other-disk/wrapping.key
#
# The protocol (docs/format.md) is two lines on stdin and one on stdout. Print nothing else there,
# and nothing secret to stderr, which goes to tenantry's own. Where a program takes secrets, hand
# them over by pipe or file: arguments are seen by every user of the machine.
set -eu

wrapping_key=${1:?usage: key-command.sh FILE}

fail() {
    echo "key-command.sh: $*" >&2
    exit 1
}

[ -r "$wrapping_key" ] || fail "cannot read $wrapping_key"
read -r protocol version verb
read -r secret
[ "$protocol $version" = "tenantry-key-command 1" ] || fail "not called by tenantry, or by a newer one"

# AES-256-CTR under a key that PBKDF2 makes of the file and a random salt. It notices no change of
# the wrapped key; tenantry does, because another key does not open its slot.
cipher() {
    openssl base64 -d -A | openssl enc "$@" -aes-256-ctr -pbkdf2 -pass "file:$wrapping_key" | openssl base64 -A
}

case $verb in
wrap) answer=$(printf '%s\n' "$secret" | cipher -e) ;;
unwrap) answer=$(printf '%s\n' "$secret" | cipher -d) ;;
*) fail "no verb $verb" ;;
esac
[ -n "$answer" ] || fail "openssl failed"
printf '%s\n' "$answer"

# The same with a key management service, which checks who asks and keeps a record of it. AWS's
# client takes the bytes and gives base64:
#
#     wrap)
#         answer=$(printf '%s\n' "$secret" | openssl base64 -d -A |
#             aws kms encrypt --key-id alias/tenantry --plaintext fileb:///dev/stdin \
#                 --encryption-context app=tenantry --query CiphertextBlob --output text) ;;
#     unwrap)
#         answer=$(printf '%s\n' "$secret" | openssl base64 -d -A |
#             aws kms decrypt --key-id alias/tenantry --ciphertext-blob fileb:///dev/stdin \
#                 --encryption-context app=tenantry --query Plaintext --output text) ;;
