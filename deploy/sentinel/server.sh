# Starts a server that keeps its role across restarts: Sentinel makes it rewrite role.conf after a failover.
# Before the first failover, redis-1 is the primary.

set -eu
cd /data
[ -e role.conf ] || if [ "$HOSTNAME" = redis-1 ]; then : > role.conf; else echo "replicaof redis-1 6379" > role.conf; fi

# The command line overrides role.conf, which contains all settings after a rewrite.
# The server announces its host name, so that its address may change.
# min-replicas: an isolated primary rejects changes once it has not heard from a replica for 10 s.
exec valkey-server role.conf --include /etc/valkey.conf \
    --replica-announce-ip "$HOSTNAME" \
    --min-replicas-to-write 1 \
    --min-replicas-max-lag 10
