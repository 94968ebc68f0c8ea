#!/bin/bash
# Plays a program of the package: the program itself, which is stopped once it has published, or
# with what else is put into the background.
program=@PROGRAM@ stage=@STAGE@
for it in "$@"; do
    case $it in
    --) break ;;
    --check* | --health* | --help* | --once* | --schema* | --version | -V)
        exec timeout -k 1 20 "$program" "$@"
        ;;
    esac
done

# Both kinds of receivers: what reads standard output, and what pages have addresses of.
published() {
    grep -q '^[^ ]' "$written" || (($(wc -c <"$stage/received") > before))
}

written=$stage/written.$$ pipe=$stage/pipe.$$
before=$(wc -c <"$stage/received")
: >"$written"
mkfifo "$pipe"
tee "$written" <"$pipe" &
reader=$!
"$program" "$@" >"$pipe" &
pid=$!
signal=TERM
[[ $program == *-demo ]] && signal=INT
trap 'kill -s $signal $pid 2>/dev/null' TERM INT
for ((tries = 0; tries < 2000; tries++)); do
    kill -0 $pid 2>/dev/null || break
    if published; then
        touch "$stage/ready.$$"
        [[ -v STAGE_BACKGROUND ]] || kill -s $signal $pid
        break
    fi
    sleep 0.01
done
if ((tries == 2000)); then
    echo "it publishes nothing: $0 $*" >&2
    kill -s KILL $pid
fi
# A signal that is passed on interrupts a wait, whose code is not that of the program then.
while wait $pid; code=$?; kill -0 $pid 2>/dev/null; do :; done
wait $pid 2>/dev/null
again=$?
((again == 127)) || code=$again
wait $reader
exit $code
