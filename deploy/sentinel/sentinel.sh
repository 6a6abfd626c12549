# A Sentinel writes what it learns into its configuration, the primary above all: it begins with ours and keeps its own.

set -eu
cd /data
[ -e sentinel.conf ] || { cat /etc/sentinel.conf; echo "sentinel announce-ip $HOSTNAME"; } > sentinel.conf
exec valkey-sentinel sentinel.conf
