#!/bin/sh
# Completes the configuration with what only the operator knows, then becomes Postfix. The root file system is read-only,
# so all of it is put together in a folder in memory, the password of the next hop too.
set -eu
: "${RELAY_HOSTNAME:?set RELAY_HOSTNAME, the name of this relay, in deploy/settings.env}"
: "${RELAY_NEXT_HOP:?set RELAY_NEXT_HOP, such as [smtp.example.com]:587, in deploy/settings.env}"
from=${RELAY_FROM:-/usr/local/share/relay}
to=${RELAY_TO:-/run/relay}
log=${RELAY_LOG:-/var/log/relay}
password=${RELAY_PASSWORD_FILE:-/run/secrets/relay_password}

mkdir -p "$to"
cp "$from/main.cf" "$from/master.cf" "$to"
postconf -c "$to" -e "myhostname = $RELAY_HOSTNAME" "relayhost = $RELAY_NEXT_HOP"
if [ -n "${RELAY_USER:-}" ]; then
    (umask 077 && printf '%s %s:%s\n' "$RELAY_NEXT_HOP" "$RELAY_USER" "$(cat "$password")" >"$to/password")
    postconf -c "$to" -e "smtp_sasl_auth_enable = yes" "smtp_sasl_password_maps = texthash:$to/password"
fi

# What Postfix logs goes to our output, and into a file for each day that the scheduler reads. Kept for a week: it names
# who was written to.
rm -f "$to/log"
mkfifo "$to/log"
mawk -W interactive -v folder="$log" '
    { day = strftime("%Y%m%d") }
    day != today {
        if (today) close(file)
        today = day
        file = folder "/mail.log-" day
        system("find " folder " -name \"mail.log-*\" -mtime +7 -delete")
    }
    { print; print >>file; fflush(); fflush(file) }
' <"$to/log" &
exec postfix -c "$to" start-fg >"$to/log" 2>&1
