#!/bin/sh
# Starts Debian's ZooKeeper in the foreground. One server by default; of an ensemble:
#   ZOO_MY_ID    this server's number
#   ZOO_SERVERS  all of them, separated by spaces: "server.1=zoo1:2888:3888 server.2=..."
set -eu

config=/tmp/zoo.cfg
cat >"$config" <<END
tickTime=2000
initLimit=10
syncLimit=5
dataDir=/var/lib/zookeeper
clientPort=2181
4lw.commands.whitelist=srvr,ruok
admin.enableServer=false
autopurge.snapRetainCount=3
autopurge.purgeInterval=24
END
if [ -n "${ZOO_SERVERS:-}" ]; then
    printf '%s\n' $ZOO_SERVERS >>"$config"
    echo "${ZOO_MY_ID:?the number of this server}" >/var/lib/zookeeper/myid
fi
# The log goes to standard error.
exec java -Xmx256m -cp /usr/share/java/zookeeper.jar:/usr/share/java/slf4j-simple.jar \
    -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -Dorg.slf4j.simpleLogger.showDateTime=true \
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS" \
    org.apache.zookeeper.server.quorum.QuorumPeerMain "$config"
