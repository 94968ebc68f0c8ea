# shellcheck shell=bash
# Sourced by the scripts that print the path of a server and fetch it where there is none. They
# define `give_up`, which says $1 and how to do without fetching, and ends.

# Says $1 to the operator; what such a script prints is only the path.
say() { printf 'tools/%s: %s\n' "${0##*/}" "$1" >&2; }

# Prints the codename of the machine's own release.
own_release() { sed -n 's/^VERSION_CODENAME=//p' /etc/os-release; }

# Prepares $1/apt.conf, with which apt-get knows the packages of the release $3 and nothing else;
# $2 is what they are packages of. All of apt's state is kept in the directory $1, which is removed
# at the end, so that the machine's is not changed; the machine's proxies and keys still apply, and
# signatures are checked as always.
open_debian() {
    local private=$1 what=$2 suite=$3 release mirror options=()
    local keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    command -v apt-get dpkg-deb >/dev/null || give_up "There is no ${what,,} here, and no apt-get."
    # shellcheck disable=SC2064 # The directory is known now and out of scope later.
    trap "rm -rf '$private'" EXIT
    mkdir -p "$private"/{lists,archives,parts,tree}

    release=$(own_release)
    # apt itself tells the mirror, whatever form its sources are written in.
    mirror=$(apt-get update --print-uris |
        sed -n "s|^'\([^']*\)/dists/$release/InRelease'.*|\1|p" | sort -u | sed -n 1p) || mirror=
    [[ -n $mirror ]] || give_up "There is no ${what,,} here, and apt names no mirror of Debian."

    [[ -r $keyring ]] && options+=("signed-by=$keyring")
    options+=(target=Packages)
    printf 'deb [%s] %s %s main\n' "${options[*]}" "$mirror" "$suite" >"$private/sources.list"
    cat >"$private/apt.conf" <<CONF
Dir::Etc::SourceList "$private/sources.list";
Dir::Etc::SourceParts "$private/parts";
Dir::State::Lists "$private/lists";
Dir::State::Status "/dev/null";
Dir::Cache::Archives "$private/archives";
Dir::Cache::PkgCache "";
Dir::Cache::SrcPkgCache "";
Acquire::Retries "3";
// A release that has been succeeded is not signed anew, so its signature may have expired.
Acquire::Check-Valid-Until "false";
// Without this, apt would run as a user that may not reach this directory.
APT::Sandbox::User "root";
// The machine's own hooks are about its own lists.
#clear APT::Update;
CONF
    say "fetching Debian's package of $what ($suite) from $mirror"
    apt-get -q -c "$private/apt.conf" -o APT::Update::Error-Mode=any update >&2 ||
        give_up "The packages of $suite cannot be had from $mirror; apt says why above."
}

# Unpacks packages to $1/tree, where $1 was given to `open_debian`.
unpack() {
    local private=$1 package
    shift
    (cd "$private" && apt-get -q -c apt.conf download "$@") >&2 ||
        give_up "The packages of Debian that it needs cannot be had; apt says why above."
    for package in "$private"/*.deb; do
        dpkg-deb -x "$package" "$private/tree" ||
            give_up "$package does not unpack; is there space on its disk?"
    done
}
