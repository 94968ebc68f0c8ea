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

# Prints the path of a server that Debian has: $1 is what it is called in messages, $2 the oldest
# version that will do, $3 the variable that can give its path, $4 the program below the root, $5 and
# all that follow the packages that it consists of. Found are, in this order, the variable's, the one
# on PATH or where daemons are, and the packages, which are unpacked below target/ and not installed.
# `version` prints the version of the program at $1.
debian_server() {
    local what=$1 oldest=$2 variable=$3 program=$4 package=$5 name path from found
    local options=${OPTIONS:-} unpacked
    shift 4
    name=${program##*/}
    unpacked=${CARGO_TARGET_DIR:-$PWD/target}/tools/$package
    give_up() {
        say "$1"
        say "To provide one, put $name $oldest or newer on PATH, or set $variable to its path."
        exit 1
    }
    if [[ -n ${!variable:-} ]]; then
        path=${!variable} from=$variable
    elif path=$(PATH=$PATH:/usr/sbin:/sbin command -v "$name"); then
        from="The $name on PATH"
    else
        [[ -d $unpacked ]] || fetch_server "$unpacked" "$what" "$program" "$options" "$@"
        path=$unpacked/bin/$name from="The $name unpacked earlier"
    fi
    found=$(version "$path") || give_up "$from, $path, does not run."
    [[ -n $found ]] || give_up "$from, $path, does not say which version it is."
    [[ $(printf '%s\n' "$oldest" "$found" | sort -V | sed -n 1p) == "$oldest" ]] ||
        give_up "$from, $path, is version $found, older than $oldest."
    printf '%s\n' "$path"
}

# Unpacks packages to $1 as `debian_server` wants them, with a script that runs the program $3 from
# wherever they are, given the options $4, in which $root is that place.
fetch_server() {
    local target=$1 what=$2 program=$3 options=$4 private=$1.$$ script
    shift 4
    mkdir -p "$(dirname "$target")"
    open_debian "$private" "$what" "$(own_release)"
    unpack "$private" "$@"
    mkdir "$private/tree/bin" "$private/tree/shared"
    find "$private/tree/usr" -name '*.so.*' -exec cp -P -t "$private/tree/shared" {} +
    script=$private/tree/bin/${program##*/}
    cat >"$script" <<SCRIPT
#!/bin/sh
root=\$(dirname "\$(dirname "\$(readlink -f "\$0")")")
LD_LIBRARY_PATH=\$root/shared\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}
export LD_LIBRARY_PATH
exec "\$root/$program" $options "\$@"
SCRIPT
    chmod +x "$script"
    # A rename, so that whoever runs this at the same time sees all of it or nothing. It fails where
    # somebody else has been quicker, and theirs is as good.
    mv -T "$private/tree" "$target" 2>/dev/null || [[ -d $target ]] ||
        give_up "$target cannot be written."
}

# Prints the folder with packages of Python, all but the first of what is given; pip installs them to
# $1 below target/tools where that is not there yet, so that this name has to tell their versions.
python_packages() {
    local target=${CARGO_TARGET_DIR:-$PWD/target}/tools/$1 private
    shift
    private=$target.$$
    if [[ ! -d $target ]]; then
        command -v python3 >/dev/null || give_up "There is no python3 here."
        # shellcheck disable=SC2064 # The directory is known now and out of scope later.
        trap "rm -rf '$private'" EXIT
        mkdir -p "$private"
        say "fetching $* with pip"
        python3 -m pip install --quiet --disable-pip-version-check --no-warn-script-location \
            --target "$private" "$@" >&2 || give_up "$* cannot be had; pip says why above."
        mv -T "$private" "$target" 2>/dev/null || [[ -d $target ]] ||
            give_up "$target cannot be written."
    fi
    printf '%s\n' "$target"
}
