#!/usr/bin/env bash
# Two hosts on one machine: a rank in each of two network namespaces, with a link of 1 Gbit/s and 1 ms
# between them (tests/mpi/link.c) and nothing else, not even shared memory. The answer is that of one
# process, and a prefill takes so much longer than of two ranks on one host as plan says, within a
# quarter. Needs root, two processors, ip, Open MPI.
#
#     tests/mpi/hosts.sh                              # CCA=./cca, the model that ships
#     MODEL=model.gguf TOKENS=32768 ATTN=full RATE=125e6 LATENCY=1e-3 tests/mpi/hosts.sh
set -u
cd "$(dirname "$0")/../.." || exit 1
CCA=$(realpath "${CCA:-./cca}")
model=$(realpath "${MODEL:-$(ls models/cca-*.gguf)}")
tokens=${TOKENS:-32768} attn=${ATTN:-cca} rate=${RATE:-125e6} latency=${LATENCY:-1e-3}
export OMP_NUM_THREADS=1 LC_ALL=C.UTF-8
if [ "$(id -u)" -ne 0 ] || ! command -v ip mpirun jq >/dev/null || [ ! -c /dev/net/tun ]; then
    echo 'skip: root, ip, mpirun, jq and /dev/net/tun are needed'
    exit 0
fi

work=$(mktemp -d)
a=cca-a-$$ b=cca-b-$$ left=ccal$$ right=ccar$$ relay=
tidy() {
    [ -z "$relay" ] || kill "$relay"
    ip netns del $a
    ip netns del $b
    rm -rf "$work"
} 2>/dev/null
trap tidy EXIT

cc -O2 -D_GNU_SOURCE -o "$work/link" tests/mpi/link.c || exit 1
"$work/link" $left $right "$rate" "$latency" &
relay=$!
until ip link show $right >/dev/null 2>&1; do sleep 0.05; done
for host in "$a $left 10.77.0.1" "$b $right 10.77.0.2"; do
    # shellcheck disable=SC2086
    set -- $host
    ip netns add "$1" && ip link set "$2" netns "$1" && ip -n "$1" addr add "$3/24" dev "$2" &&
        ip -n "$1" link set "$2" mtu 9000 up && ip -n "$1" link set lo up || exit 1
done

# mpirun logs into the other host by this, with a host name of its own.
cat >"$work/login" <<END
#!/bin/sh
shift # its address
exec ip netns exec $b unshare --uts sh -c "hostname beta; \$*"
END
chmod +x "$work/login"
# A rank on each; or (local) both on one of them, over shared memory.
ranks() { # local or remote, arguments of cca
    local how=$1 hosts=10.77.0.1:1,10.77.0.2:1 network=(--mca btl "tcp,self")
    shift
    [ "$how" = remote ] || hosts=10.77.0.1:2 network=()
    ip netns exec $a unshare --uts sh -c 'hostname alpha; exec "$@"' sh mpirun --allow-run-as-root --bind-to none \
        --mca plm_rsh_agent "$work/login" --mca oob_tcp_if_include 10.77.0.0/24 --mca btl_tcp_if_include 10.77.0.0/24 \
        "${network[@]}" --host $hosts -n 2 -x OMP_NUM_THREADS -x LC_ALL "$CCA" "$@" -t 1
}

failed=0
text=(generate -m "$model" -f examples/paradise-lost.txt -n 16 --temp 0 --json --attn "$attn")
"$CCA" "${text[@]}" -t 1 2>/dev/null | jq .text >"$work/alone"
ranks remote "${text[@]}" 2>"$work/err" | jq .text >"$work/remote"
if [ -s "$work/alone" ] && cmp "$work/alone" "$work/remote"; then
    echo 'ok the same text'
else
    tail -n 5 "$work/err"
    failed=1
fi

# Prefill in turn on one host and on two, each as often: their medians.
bench=(bench -m "$model" --attn "$attn" -p "$tokens" -n 0 -r 1 --no-peaks --format json)
for _ in $(seq "${REPEAT:-3}"); do
    for how in local remote; do
        ranks $how "${bench[@]}" 2>/dev/null | jq '.rows[0].n / .rows[0].tok_s' >>"$work/$how-s"
    done
done
median() { sort -g "$1" | awk '{ v[NR] = $1 } END { print (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2 }'; }

# What plan adds to two ranks' own time for the link: what is sent counts as far as it is longer than
# half of what is computed. How fast this machine computes is measured here, which other processes may
# slow down.
link=$(awk -v r="$rate" -v l="$latency" 'BEGIN { printf "%.0fKB/s,%.0fus", r / 1e3, l * 1e6 }')
plan=$("$CCA" plan -m "$model" --attn "$attn" -c "$tokens" -t 1 --ranks 2 --link "$link" --json 2>/dev/null |
    jq '.plans[0].ranks.prefill_s, .plans[0].ranks.transfer_s, .plans[0].timing.prefill_s' | tr '\n' ' ')
echo "$(median "$work/local-s") $(median "$work/remote-s") $plan" | awk -v attn="$attn" -v n="$tokens" -v link="$link" '
    function beside(computed, sent) { return computed / 2 + (computed / 2 > sent ? computed / 2 : sent) }
    {
        near = $1; far = $2; sent = $4; waits = $3 - beside($5 / 2, sent); planned = beside(near, sent) + waits
        printf "%s, %d tokens, %s: on one host %.2f s, on two %.2f s; planned %.2f s (sending %.2f s, waits %.2f s): %.2f\n",
            attn, n, link, near, far, planned, sent, waits, far / planned
        exit !(far / planned < 1.25 && far / planned > 0.75)
    }' || failed=1
exit $failed
