#!/bin/sh
# The walk of the lab: steps 4 to 9 and its task, on a lab that is up (`make lab`). Each command is printed, and what came back.
#   deploy/lab/walk.sh                       everything
#   deploy/lab/walk.sh steps stop kill ...   only these parts: steps, stop, kill, pause, disconnect
# Ends with 1 if something was not as the lab expects it.
set -eu

prefix=${LAB_PREFIX:-}
entry=${prefix}pg-entrypoint
network=${prefix}lab
writing=60   # seconds that the writer goes on at most, in each part

say() { printf '\n=== %s\n' "$*"; }
fail() { printf 'walk.sh: %s\n' "$*" >&2; exit 1; }

# run WORD...: prints the command, then does it; what it prints is only a name.
run() {
    printf '$ %s\n' "$*"
    "$@" >/dev/null
}

# in_entry COMMAND...: on the entrypoint's host, which has psql and the operator's commands.
in_entry() { docker exec -e PGPASSWORD=postgres -e PGCONNECT_TIMEOUT=40 "$entry" "$@"; }

# sql HOST STATEMENT: through the entry with HOST pg-entrypoint, or on a node itself.
sql() {
    printf '$ psql -h %s -U postgres -c "%s"\n' "$1" "$2"
    in_entry psql -h "$1" -U postgres -c "$2"
}

list() {
    printf '$ pgherd -d zoo:2181 list my_cluster\n'
    in_entry pgherd -d zoo:2181 list my_cluster
}

# The container of the member that leads, nothing if nobody does.
leader() {
    in_entry pgherd -d zoo:2181 list my_cluster -f tsv 2>/dev/null | awk -F'\t' '$4 == "Leader" && $5 == "running" { print $2 }' |
        sed "s/^postgresql0$/pg-master/; s/^postgresql1$/pg-slave/"
}

healthy() {
    in_entry pgherd -d zoo:2181 list my_cluster -f tsv 2>/dev/null |
        awk -F'\t' '$4 == "Leader" && $5 == "running" { l++ } $4 == "Replica" && $5 == "streaming" { r++ } END { exit !(l == 1 && r == 1) }'
}

other() { [ "$1" = pg-master ] && echo pg-slave || echo pg-master; }

# until_true SECONDS WHAT COMMAND...: waits for a condition.
until_true() {
    deadline=$(($(date +%s) + $1)) what=$2
    shift 2
    until "$@"; do
        [ "$(date +%s)" -lt "$deadline" ] || { list || true; fail "waited in vain for $what"; }
        sleep 0.2
    done
}

leads_now() { [ "$(leader)" = "$1" ]; }

# One row a transaction through the entry, each on a connection of its own; what is acknowledged is noted.
start_writer() {
    in_entry psql -q -h pg-entrypoint -U postgres -c "SET client_min_messages = warning" -c "DROP TABLE IF EXISTS ticks" \
        -c "CREATE TABLE ticks (id int PRIMARY KEY, at timestamptz DEFAULT clock_timestamp())"
    docker exec -d -e PGPASSWORD=postgres -e PGCONNECT_TIMEOUT=40 "$entry" sh -c '
        rm -f /tmp/enough; : >/tmp/acknowledged; : >/tmp/refused
        end=$(($(date +%s) + '"$writing"')) id=0
        while [ ! -e /tmp/enough ] && [ "$(date +%s)" -lt "$end" ]; do
            id=$((id + 1))
            if psql -q -h pg-entrypoint -U postgres -c "INSERT INTO ticks VALUES ($id)" 2>>/tmp/refused; then
                echo "$id" >>/tmp/acknowledged
            fi
        done
        touch /tmp/written'
    until_true 20 "the first row" in_entry sh -c '[ -s /tmp/acknowledged ]'
}

# What the writer saw: the longest pause between two rows, its errors, and acknowledged rows that are not there.
stop_writer() {
    in_entry sh -c 'rm -f /tmp/written; touch /tmp/enough'
    until_true 60 "the end of the writer" in_entry sh -c '[ -e /tmp/written ]'
    in_entry sh -c '
        psql -qtA -h pg-entrypoint -U postgres -c "SELECT id FROM ticks" | sort >/tmp/present
        pause=$(psql -qtA -h pg-entrypoint -U postgres -c "SELECT round(extract(epoch FROM max(pause))::numeric, 2) FROM (SELECT at - lag(at) OVER (ORDER BY id) AS pause FROM ticks) AS p")
        lost=$(sort /tmp/acknowledged | comm -23 - /tmp/present | wc -l)
        echo "the writer: $(wc -l </tmp/acknowledged) rows acknowledged, $lost of them lost, $(grep -c . /tmp/refused) lines of errors, longest pause between two rows $pause s"
        head -n 3 /tmp/refused'
}

steps() {
    primary=$(leader)
    replica=$(other "$primary")
    say "Step 4: a table and rows on the primary ($primary)"
    sql "$primary" "CREATE TABLE IF NOT EXISTS cities (id int PRIMARY KEY, name text)"
    sql "$primary" "INSERT INTO cities VALUES (1, 'Moscow'), (2, 'Kazan') ON CONFLICT (id) DO UPDATE SET name = excluded.name"
    say "Step 5: the rows on the primary and on the replica ($replica)"
    sql "$primary" "SELECT * FROM cities ORDER BY id"
    until_true 10 "the rows on the replica" replicated "$replica"
    sql "$replica" "SELECT * FROM cities ORDER BY id"
    say "Step 6: a change on the replica is refused"
    if sql "$replica" "UPDATE cities SET name = 'Tver' WHERE id = 1" 2>&1; then fail "the replica was changed"; fi
    say "Step 7: the entry asks each agent; who answers 200 gets the clients"
    for node in "$primary" "$replica"; do
        printf '$ pgherd health http://%s:8008/\n' "$node"
        in_entry pgherd health "http://$node:8008/" || true
    done
    say "Step 8 and 9: connect to the entry, and change rows through it"
    sql pg-entrypoint "SELECT inet_server_addr() AS server, pg_is_in_recovery() AS replica"
    sql pg-entrypoint "UPDATE cities SET name = 'Tver' WHERE id = 2"
    sql pg-entrypoint "SELECT * FROM cities ORDER BY id"
}

replicated() { [ "$(in_entry psql -qtA -h "$1" -U postgres -c 'SELECT count(*) FROM cities' 2>/dev/null)" = 2 ]; }

# fault TITLE BACK COMMAND...: takes the primary away with COMMAND, looks, and brings it back with the command line BACK.
# In both, @ stands for the primary's container.
fault() {
    title=$1 back=$2
    shift 2
    primary=$(leader)
    replica=$(other "$primary")
    say "The task: $title of the primary ($primary)"
    start_writer
    since=$(date -u +%Y-%m-%dT%H:%M:%SZ)
    # shellcheck disable=SC2046 # a command line
    run $(echo "$*" | sed "s/@/$prefix$primary/g")
    echo "... waiting until $replica leads"
    until_true 60 "$replica to lead" leads_now "$replica"
    sql pg-entrypoint "SELECT * FROM cities ORDER BY id"
    sql pg-entrypoint "INSERT INTO cities VALUES ((SELECT max(id) + 1 FROM cities), '$title') RETURNING *"
    printf '$ docker logs --since %s %s\n' "$since" "$prefix$replica"
    docker logs --since "$since" "$prefix$replica" 2>&1 | grep -v 'LOG:\|STATEMENT:\|FATAL:\|DETAIL:\|HINT:' | head -n 25 || true
    stop_writer
    say "Back again"
    # shellcheck disable=SC2046 # a command line
    run $(echo "$back" | sed "s/@/$prefix$primary/g; s/%/$primary/g")
    until_true 90 "both nodes to be healthy" healthy
    list
    until_true 10 "the row on $primary" has_row "$primary" "$title"
    sql "$primary" "SELECT * FROM cities ORDER BY id"
}

has_row() { [ "$(in_entry psql -qtA -h "$1" -U postgres -c "SELECT count(*) > 0 FROM cities WHERE name = '$2'" 2>/dev/null)" = t ]; }

part() {
    case $1 in
    steps) steps ;;
    stop) fault "docker stop" "docker start @" docker stop @ ;;
    kill) fault "docker kill" "docker start @" docker kill @ ;;
    pause) fault "docker pause" "docker unpause @" docker pause @ ;;
    disconnect)
        fault "docker network disconnect" "docker network connect --alias % $network @" docker network disconnect "$network" @
        ;;
    *) fail "unknown part $1; the parts are steps, stop, kill, pause, disconnect" ;;
    esac
}

docker inspect "$entry" >/dev/null 2>&1 || fail "the lab is not up: start it with make lab"
until_true 90 "both nodes to be healthy" healthy
say "The cluster"
list
[ $# -gt 0 ] || set -- steps stop kill pause disconnect
for one in "$@"; do part "$one"; done
say "Done"
