#!/usr/bin/env bash
# Writes breakages.txt anew: for each deliberate mistake the first seed that notices it, among those
# that draw their shape or else those of one shape. To be run when the core or the simulator has
# changed so that the old seeds tell other stories.
set -euo pipefail
cd "$(dirname "$0")/../.."
swift build -c release --product pollsim
export work
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT

# The first seed from $2 on that does `sed -n $3` of what pollsim says; further arguments are flags. A replica
# that trips over its own precondition notices as well, but ends the whole program, which no test
# can do: such seeds are passed over.
search() {
    local name=$1 from=$2 pattern=$3 step=$4 out found crashed
    shift 4
    while [ "$from" -le 10000 ]; do
        local count=$((10001 - from))
        [ "$count" -le "$step" ] || count=$step
        # One thread: two that trip at once would not say where.
        out=$(.build/release/pollsim --breakage "$name" --seeds "$count" --from "$from" -q \
            --threads 1 "$@" 2>&1 || true)
        found=$(sed -n "$pattern" <<<"$out")
        if [ -n "$found" ]; then
            echo "$found"
            return
        fi
        crashed=$(sed -n 's/^pollsim: crashed .* in seed \([0-9]*\)$/\1/p' <<<"$out")
        from=$((${crashed:-$((from + count - 1))} + 1))
    done
}

find_seed() {
    local name=$1 shape found
    for shape in any group3 group5 pair; do
        local flags=()
        [ "$shape" = any ] || flags=(--shape "$shape")
        found=$(search "$name" 1 's/^broken by seed \([0-9]*\), number [0-9]*: \(.*\)$/\1 \2/p' \
            10000 "${flags[@]}")
        [ -n "$found" ] || continue
        echo "$name ${found%% *} $shape $(tr ' ' '-' <<<"${found#* }")" >"$work/$name"
        return
    done
    echo "$name is not noticed within 10,000 seeds" >&2
    return 1
}

# Two rules that others mostly forestall.
find_rule() {
    local name=${1%%:*} rule=${1#*:} seed
    seed=$(search "$name" 1 "s/^broken: $rule: first by seed \([0-9]*\),.*/\1/p" 200 --survey)
    [ -n "$seed" ] || { echo "'$rule' does not notice $name" >&2; return 1; }
    echo "$name $seed any $(tr ' ' '-' <<<"$rule")" >"$work/$name:rule"
}

export -f search find_seed find_rule
mapfile -t names < <(grep -o 'case [a-zA-Z]*$' Sources/Replication/Breakage.swift | cut -d' ' -f2)
rules=("staysAfterRemoval:told to step down, it answers nobody" "forgottenSessions:one history")
cores=$(nproc)
printf '%s\0' "${names[@]}" | xargs -0 -P "$cores" -I{} bash -c 'find_seed "$1"' - {}
printf '%s\0' "${rules[@]}" | xargs -0 -P "$cores" -I{} bash -c 'find_rule "$1"' - {}
{
    echo "# A deliberate mistake (Replication/Breakage.swift), a seed and shape whose run notices it, the"
    echo "# rule. Tests/Seeds/renew.sh writes this file."
    for name in "${names[@]}"; do cat "$work/$name"; done
    for rule in "${rules[@]}"; do cat "$work/${rule%%:*}:rule"; done
} >"$work/all"
mv "$work/all" Tests/Seeds/breakages.txt
