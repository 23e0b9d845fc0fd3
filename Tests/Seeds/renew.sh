#!/usr/bin/env bash
# Writes breakages.txt anew: for each deliberate mistake the first seed that notices it. To be run
# when the core or the simulator has changed so that the old seeds tell other stories.
set -euo pipefail
cd "$(dirname "$0")/../.."
swift build -c release --product pollsim
{
    echo "# A deliberate mistake (Replication/Breakage.swift), a seed and shape whose run notices it, the"
    echo "# rule. Tests/Seeds/renew.sh writes this file."
    for name in $(grep -o 'case [a-zA-Z]*$' Sources/Replication/Breakage.swift | cut -d' ' -f2); do
        out=$(timeout 600 .build/release/pollsim --breakage "$name" --seeds 10000 --from 1 -q || true)
        found=$(sed -n 's/^broken by seed \([0-9]*\), number [0-9]*: \(.*\)$/\1 \2/p' <<<"$out")
        [ -n "$found" ] || { echo "$name is not noticed within 10,000 seeds" >&2; exit 1; }
        echo "$name ${found%% *} any $(tr ' ' '-' <<<"${found#* }")"
    done
} >Tests/Seeds/breakages.new
mv Tests/Seeds/breakages.new Tests/Seeds/breakages.txt
