#!/bin/sh
# Makes what docker-compose.yml hands over as secrets, each a file, and leaves alone what is there already.
# Usage: deploy/secrets.sh [FOLDER], by default the folder `secrets` beside this script.
#
# The folder is open to its owner only. The files in it can be read by all, because a container sees a file alone, with
# the owner it has outside, and the users inside are others.
set -eu
folder=${1:-$(dirname "$0")/secrets}
mkdir -p "$folder"
chmod 700 "$folder"
cd "$folder"

keep() { # keep NAME TEXT: write the file unless it is there
    [ -e "$1" ] || (umask 022 && printf '%s' "$2" >"$1")
}
random() { head -c "$1" /dev/urandom; }
password() { random 24 | od -An -v -tx1 | tr -d ' \n'; }

keep postgres_password "$(password)"
keep database_password "$(password)"
keep database_url "postgresql://smt:$(cat database_password)@postgres:5432/smt"
if [ ! -e broker_url ] || [ ! -e rabbitmq_user ]; then
    rm -f broker_url rabbitmq_user
    login=$(password)
    keep rabbitmq_user "$(printf 'default_user = smt\ndefault_pass = %s\n' "$login")
"
    keep broker_url "amqp://smt:$login@rabbitmq:5672/%2F"
fi
keep paypal_client_secret ""
keep relay_password ""
