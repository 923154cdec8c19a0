# Writes the keys of clusters, as JSON on the standard input ({scope: {key: value}}), into a ZooKeeper.
import json
import sys

from kazoo.client import KazooClient

client = KazooClient(sys.argv[1])
client.start()
for scope, keys in json.load(sys.stdin).items():
    for key, value in keys.items():
        text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
        client.create(f"/service/{scope}/{key}", text.encode(), makepath=True)
client.stop()
