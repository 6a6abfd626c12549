# Makes a Cluster of the nodes at these addresses, half of them replicas, unless one of them is in a Cluster already.

set -eu
for address; do
    knows=$(valkey-cli -e -u "redis://$address" CLUSTER INFO | tr -d '\r' | sed -n 's/^cluster_known_nodes://p')
    [ "$knows" = 1 ] || { echo "$address is in a Cluster already: nothing to do"; exit 0; }
done
exec valkey-cli --cluster create "$@" --cluster-replicas 1 --cluster-yes
