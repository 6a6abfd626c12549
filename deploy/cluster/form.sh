# Creates a Cluster from the nodes at these addresses, one replica per primary, unless a node already belongs to one.

set -eu
for address; do
    known_nodes=$(valkey-cli -e -u "redis://$address" CLUSTER INFO | tr -d '\r' | sed -n 's/^cluster_known_nodes://p')
    [ "$known_nodes" = 1 ] || { echo "$address already belongs to a Cluster: nothing to do"; exit 0; }
done
exec valkey-cli --cluster create "$@" --cluster-replicas 1 --cluster-yes
