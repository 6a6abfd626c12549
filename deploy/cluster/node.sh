# A node of the Cluster. nodes.conf, in its volume, is the Cluster's own memory of who is who.
#
# A shard without a server costs its own sessions (503), not all of them. Cut off from most primaries a node answers nothing,
# reads included: a session that it does not know yet would be 404 instead of 503. Clients are told names, not addresses.

set -eu
exec valkey-server /etc/valkey.conf \
    --cluster-enabled yes \
    --cluster-config-file /data/nodes.conf \
    --cluster-node-timeout 5000 \
    --cluster-require-full-coverage no \
    --cluster-allow-reads-when-down no \
    --cluster-announce-hostname "$HOSTNAME" \
    --cluster-preferred-endpoint-type hostname
