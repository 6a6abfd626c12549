# A server that remembers its role: Sentinel has it write into role.conf whom it follows, and a restart reads that again.
# Before there was a failover, redis-1 is the primary.

set -eu
cd /data
[ -e role.conf ] || if [ "$HOSTNAME" = redis-1 ]; then : > role.conf; else echo "replicaof redis-1 6379" > role.conf; fi

# What stands on the command line goes before role.conf, where all settings are written with the role.
# Others name this server as it announces itself, so that its address may change when it is restarted.
# A primary takes changes only while a replica was heard of within 10 s: cut off, an old primary stops taking them.
exec valkey-server role.conf --include /etc/valkey.conf \
    --replica-announce-ip "$HOSTNAME" \
    --min-replicas-to-write 1 \
    --min-replicas-max-lag 10
