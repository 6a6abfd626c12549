# Starts a Cluster node. It stores the topology in nodes.conf, in its volume.
#
# cluster-require-full-coverage no: a missing shard makes only its own sessions unavailable.
# cluster-allow-reads-when-down no: an isolated node rejects reads, which would return 404 for sessions it has not seen.
# Nodes announce host names, so that their addresses may change.

set -eu
exec valkey-server /etc/valkey.conf \
    --cluster-enabled yes \
    --cluster-config-file /data/nodes.conf \
    --cluster-node-timeout 5000 \
    --cluster-require-full-coverage no \
    --cluster-allow-reads-when-down no \
    --cluster-announce-hostname "$HOSTNAME" \
    --cluster-preferred-endpoint-type hostname
