# What goes before the commands of a block.
set -e -o pipefail
background=()

begin() {
    export STAGE_BACKGROUND=yes
}

# Waits until what was put into the background publishes.
settle() {
    local pid=$! tries
    unset STAGE_BACKGROUND
    background+=("$pid")
    for ((tries = 0; tries < 2000; tries++)); do
        [[ -e @STAGE@/ready.$pid ]] && return
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.01
    done
    echo "what was put into the background has not published" >&2
    return 97
}

# Stops what is in the background, each of which must say that all is well, and notes what the
# block has exported.
finish() {
    local pid
    for pid in "${background[@]}"; do
        kill -TERM "$pid" 2>/dev/null || :
        wait "$pid" || return
    done
    background=()
    env -0 >@STAGE@/environment
}

trap 'for pid in "${background[@]}"; do kill -TERM "$pid" 2>/dev/null || :; done; wait' EXIT

