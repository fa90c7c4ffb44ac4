#!/bin/sh
# SQL over HTTP with curl. Start the server first (`make run`), then:
#   RUSTYDB_PASSWORD=… examples/query.sh
set -eu
url=${RUSTYDB_HTTP_URL:-http://localhost:8080}/api/v1/query
user=rustydb:${RUSTYDB_PASSWORD:?the administrator\'s password, see the last line of the server\'s greeting}

ask() {
    curl --silent --show-error --user "$user" --header 'Content-Type: application/json' "$@" "$url"
    echo
}

echo "# a statement with parameters"
ask --data '{"sql": "select $1::int + $2::int as sum, $3::text[] as words", "params": [1, 2, ["a", "b"]]}'

echo "# an error, with PostgreSQL's code and the place"
ask --data '{"sql": "select * frm pg_class"}'

echo "# rows one by one, whatever their number: newline-delimited JSON"
ask --header 'Accept: application/x-ndjson' \
    --data '{"sql": "select i, i * i as square from generate_series(1, 5) i"}'
