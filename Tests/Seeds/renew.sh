#!/usr/bin/env bash
# Writes breakages.txt anew: for each deliberate mistake the first seed that notices it, among those
# that draw their shape or else those of one shape. To be run when the core or the simulator has
# changed so that the old seeds tell other stories.
set -euo pipefail
cd "$(dirname "$0")/../.."
swift build -c release --product pollsim
new=$(mktemp)
find_seed() {
    local name=$1 shape from out found crashed
    for shape in any group3 group5 pair; do
        local flags=()
        [ "$shape" = any ] || flags=(--shape "$shape")
        from=1
        # A replica that trips over its own precondition notices as well, but ends the whole program,
        # which no test can do.
        while :; do
            out=$(.build/release/pollsim --breakage "$name" --seeds $((10001 - from)) \
                --from "$from" -q "${flags[@]}" 2>&1 || true)
            crashed=$(sed -n 's/^pollsim: crashed .* in seed \([0-9]*\)$/\1/p' <<<"$out")
            [ -n "$crashed" ] || break
            from=$((crashed + 1))
        done
        found=$(sed -n 's/^broken by seed \([0-9]*\), number [0-9]*: \(.*\)$/\1 \2/p' <<<"$out")
        [ -n "$found" ] || continue
        echo "$name ${found%% *} $shape $(tr ' ' '-' <<<"${found#* }")"
        return
    done
    echo "$name is not noticed within 10,000 seeds" >&2
    return 1
}
{
    echo "# A deliberate mistake (Replication/Breakage.swift), a seed and shape whose run notices it, the"
    echo "# rule. Tests/Seeds/renew.sh writes this file."
    for name in $(grep -o 'case [a-zA-Z]*$' Sources/Replication/Breakage.swift | cut -d' ' -f2); do
        find_seed "$name"
    done
    # Two rules that others mostly forestall.
    for pair in "staysAfterRemoval:told to step down, it answers nobody" \
        "forgottenSessions:one history"; do
        rule=${pair#*:}
        from=1
        while :; do
            out=$(.build/release/pollsim --breakage "${pair%%:*}" --seeds 200 --from "$from" -q \
                --survey 2>&1 || true)
            seed=$(sed -n "s/^broken: $rule: first by seed \([0-9]*\),.*/\1/p" <<<"$out")
            [ -z "$seed" ] && [ "$from" -lt 10000 ] || break
            crashed=$(sed -n 's/^pollsim: crashed .* in seed \([0-9]*\)$/\1/p' <<<"$out")
            from=$((${crashed:-$((from + 199))} + 1))
        done
        [ -n "$seed" ] || { echo "'$rule' does not notice ${pair%%:*}" >&2; exit 1; }
        echo "${pair%%:*} $seed any $(tr ' ' '-' <<<"$rule")"
    done
} >"$new"
mv "$new" Tests/Seeds/breakages.txt
