#!/bin/bash
# Plays a script that would build, fetch or test: it has to be one that a shell can read, and to
# know its arguments. What it prints stands for a path.
bash -n @SCRIPT@ || exit
for it in "$@"; do
    grep -qF -- "$it" @SCRIPT@ || { echo "@SCRIPT@ knows no $it" >&2 && exit 64; }
done
echo "@SCRIPT@"
