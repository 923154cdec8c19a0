#!/bin/sh
# Brings the lab up or down: `lab.sh up`, `lab.sh down`. `make lab` makes what it needs before.
set -eu
cd "$(dirname "$0")"

project=${LAB_PREFIX:-}lab
compose() { docker-compose --project-name "$project" "$@"; }

case ${1:-} in
up)
    echo "Building the images; the first time this takes some minutes"
    compose build --quiet
    compose up -d
    entry=${LAB_PREFIX:-}pg-entrypoint
    list() { docker exec "$entry" pgherd -d zoo:2181 list my_cluster "$@" 2>/dev/null; }
    echo "Waiting for a primary and a replica that streams"
    deadline=$(($(date +%s) + 120))
    until list -f tsv | grep -q streaming; do
        if [ "$(date +%s)" -ge "$deadline" ]; then
            echo "lab.sh: the cluster is not healthy after 120 s; look at the logs: docker logs ${LAB_PREFIX:-}pg-master" >&2
            exit 1
        fi
        sleep 0.5
    done
    list
    cat <<END

Connect:       PGPASSWORD=postgres psql -h localhost -p ${LAB_PORT:-5432} -U postgres
The page:      http://localhost:${LAB_STATS_PORT:-7000}/
The members:   docker exec $entry pgherd -d zoo:2181 list my_cluster
Take it away:  docker stop ${LAB_PREFIX:-}pg-master      then look again, and: docker start ${LAB_PREFIX:-}pg-master
All of it:     make lab-walk                    the end: make lab-down
END
    ;;
down)
    compose down --volumes --timeout 5
    ;;
*)
    echo "usage: lab.sh up|down" >&2
    exit 2
    ;;
esac
