# A Sentinel rewrites its configuration, so copy the initial file only once.

set -eu
cd /data
[ -e sentinel.conf ] || { cat /etc/sentinel.conf; echo "sentinel announce-ip $HOSTNAME"; } > sentinel.conf
exec valkey-sentinel sentinel.conf
