# shellcheck shell=bash
# Sourced by the scripts that run in stages.

# Runs a command as the stage $1, and prints how long it took, also when it fails. Errexit does not
# hold inside a function that is run this way, so such a function joins its commands with `&&`.
stage() {
    local name=$1 start=$SECONDS status=0 verdict=passed
    shift
    printf '\n== %s\n' "$name"
    "$@" || status=$?
    ((status == 0)) || verdict="FAILED with exit code $status"
    printf '== %s: %s, %d s\n' "$name" "$verdict" "$((SECONDS - start))"
    return "$status"
}
