#!/bin/bash
# Plays cargo: notes what it is asked for, which the test judges, and runs what is built already.
printf '%s\n' "$*" >>@STAGE@/cargo
[[ $1 == run ]] || exit 0
while (($#)); do
    case $1 in
    --bin) bin=$2 ;;
    --) shift && break ;;
    esac
    shift
done
bin=${bin-nomad-firehose}
# What a fuzzer has left is not here.
[[ $bin == fuzz-* ]] || exec "@STAGE@/bin/$bin" "$@"
