#!/bin/sh
# The milter in the foreground with everything it writes in one private folder; the configuration there is yours to edit.
set -eu
cd "$(dirname "$0")/.."
run=${RUN:-.run}
mkdir -p -m 700 "$run"
run=$(cd "$run" && pwd -P)
if [ ! -e "$run/dmarc-milter.toml" ]; then
    while IFS= read -r line; do
        case "$line" in
            'url = '*) printf 'url = "sqlite:///%s/reports.db"\n' "$run" ;;
            *) printf '%s\n' "$line" ;;
        esac
    done < conf/dmarc-milter.toml > "$run/dmarc-milter.toml"
fi
PYTHONPATH=milter${PYTHONPATH:+:$PYTHONPATH}
export PYTHONPATH
if [ -e "$run/pid" ] && grep -qs dmarc-milter "/proc/$(cat "$run/pid")/cmdline"; then
    echo "dmarc-milter runs already, with process id $(cat "$run/pid") and the files in $run" >&2
    exit 1
fi
echo $$ > "$run/pid"      # exec keeps the number
program=${VENV:-.venv}/bin/dmarc-milter
printf '%s\n' "configuration: $run/dmarc-milter.toml" \
    "why a message was refused: $program why --config $run/dmarc-milter.toml QUEUE-ID" \
    "dashboard: $program web --config $run/dmarc-milter.toml"
LINES='import sys
from pathlib import Path
from dmarc_milter.config import load
from dmarc_milter.config.checks import socket_address
from dmarc_milter.mta.setup_lines import attach
print(*attach(socket_address(load(Path(sys.argv[1])).milter.socket)), sep="\n")'
# Ctrl-C waits until our own code can take it (cli/interrupts.py): Python alone would show where it was.
hold='env --block-signal=INT'
$hold true 2>/dev/null || hold=
# What is wrong with the file says serve.
# shellcheck disable=SC2086  # word splitting is meant
$hold "${VENV:-.venv}/bin/python" -c "$LINES" "$run/dmarc-milter.toml" 2>/dev/null || true
# shellcheck disable=SC2086
exec $hold "$program" serve --config "$run/dmarc-milter.toml" --pid-file "$run/pid"
