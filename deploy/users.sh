# Starts the given server command with an ACL file: the service (REDIS_PASSWORD), optionally an admin with all permissions
# (REDIS_ADMIN_PASSWORD), and a default user that may only PING.

set -eu
umask 077  # the file contains password hashes
hash_of() { printf %s "$1" | sha256sum | cut -d ' ' -f 1; }
{
    sed "s/^user session-service on /&#$(hash_of "$REDIS_PASSWORD") /" /etc/redis-users.acl
    echo "user default on nopass resetkeys resetchannels -@all +ping"
    [ -z "${REDIS_ADMIN_PASSWORD:-}" ] || echo "user admin on #$(hash_of "$REDIS_ADMIN_PASSWORD") ~* &* +@all"
} > /data/users.acl
exec "$@" --aclfile /data/users.acl
