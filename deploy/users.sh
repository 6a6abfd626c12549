# Starts what it is given with users: the service by REDIS_PASSWORD, and an admin, who may do everything, where there is a
# REDIS_ADMIN_PASSWORD. Everyone else may see whether it is there.

set -eu
umask 077  # hashes of passwords are nobody else's to read
hash_of() { printf %s "$1" | sha256sum | cut -d ' ' -f 1; }
{
    sed "s/^user session-service on /&#$(hash_of "$REDIS_PASSWORD") /" /etc/redis-users.acl
    echo "user default on nopass resetkeys resetchannels -@all +ping"
    [ -z "${REDIS_ADMIN_PASSWORD:-}" ] || echo "user admin on #$(hash_of "$REDIS_ADMIN_PASSWORD") ~* &* +@all"
} > /data/users.acl
exec "$@" --aclfile /data/users.acl
