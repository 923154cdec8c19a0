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
# As Debian's own script sets it, with the log on standard output.
classpath=/etc/zookeeper/conf:/usr/share/java/zookeeper.jar
exec java -Xmx256m -cp "$classpath" -Dzookeeper.log.dir=/tmp -Dzookeeper.root.logger=INFO,CONSOLE \
    org.apache.zookeeper.server.quorum.QuorumPeerMain "$config"
