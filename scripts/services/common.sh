# shellcheck shell=bash
# What the scripts around the private services share. Sourced, never run.

# The servers' account reads what root writes for it.
umask 022

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

die() {
    say "$*"
    exit 1
}

is_root() { [ "$(id -u)" -eq 0 ]; }

# Does anything listen on this port of the loopback address?
port_is_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# A port that nobody listens on. It is taken from below the kernel's ephemeral range, so that no outgoing connection
# takes it before the server does. Another program still may: who starts a server tries again with another port.
free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 12000))
        port_is_open "$port" || break
    done
    echo "$port"
}

# The account that runs the servers for root: PostgreSQL refuses to run as root.
service_account() {
    local account
    for account in postgres rabbitmq nobody; do
        if id -u "$account" >/dev/null 2>&1; then
            echo "$account"
            return
        fi
    done
    die "root needs an account to run the servers as: postgres, rabbitmq or nobody"
}

# Replaces this shell by a program that runs as the servers' account, in the system whose programs it is of. setpriv,
# because su and runuser stay in between and kill what they run after two seconds.
exec_as_service() {
    local account system=${PAYBUS_SERVICES_SYSTEM:-}
    [ -z "$system" ] || exec_in_system "$system" "$@"
    if is_root; then
        account=$(service_account)
        exec setpriv --reuid="$account" --regid="$(id -g "$account")" --init-groups -- "$@"
    fi
    exec "$@"
}

# The same with another Debian's programs, which lies in the directory SYSTEM: they see only that one, and the directory
# that this shell is in at its own path. The mounts are this process's alone, and go with it.
exec_in_system() {
    local account
    account=$(service_account)
    # shellcheck disable=SC2016 # for the inner shell
    exec unshare --mount -- bash -c '
        set -e
        system=$1 uid=$2 gid=$3
        shift 3
        mkdir -p "$system$PWD"
        mount --rbind /proc "$system/proc"
        mount --rbind /dev "$system/dev"
        mount --bind "$PWD" "$system$PWD"
        # initdb asks for the name of its account.
        grep -q "^[^:]*:[^:]*:$uid:" "$system/etc/passwd" || echo "service:x:$uid:$gid::/:/bin/sh" >>"$system/etc/passwd"
        exec chroot "$system" sh -c "cd \"\$0\" && exec setpriv --reuid=$uid --regid=$gid --clear-groups -- \"\$@\"" "$PWD" "$@"
    ' enter "$1" "$(id -u "$account")" "$(id -g "$account")" "${@:2}"
}

# The processes that were started with NAME=VALUE in their environment. This finds what left its process group, changed
# its parent or became a daemon, and never a stranger that got a dead process's number.
marked() { grep -lszxF -- "$1" /proc/[0-9]*/environ | tr -dc '0-9\n' || true; }

# Those of these processes that are still exiting. The kernel frees a process's memory first, and its mark with that, and
# closes its sockets a little later: until then its ports are taken.
exiting() {
    local pid state
    for pid; do
        state=$(sed 's/.*) //; s/ .*//' "/proc/$pid/stat" 2>/dev/null) || continue
        case $state in Z | X | '') continue ;; esac
        [ -n "$(tr -d '\0' 2>/dev/null <"/proc/$pid/environ")" ] || echo "$pid"
    done 2>/dev/null
}

# Ends the marked processes, and returns when they are gone: asks, waits up to SECONDS, then kills. Zero seconds: does not
# ask.
end_marked() {
    local mark=$1 seconds=$2 signal=TERM deadline pids seen=
    [ "$seconds" -gt 0 ] || signal=KILL
    deadline=$((SECONDS + seconds))
    pids=$(marked "$mark")
    while [ -n "$pids" ]; do
        # shellcheck disable=SC2086 # a list of numbers
        [ -z "$signal" ] || kill -s "$signal" $pids 2>/dev/null || true
        signal=
        [ "$SECONDS" -lt "$deadline" ] || signal=KILL
        seen="$seen $pids"
        sleep 0.05
        # shellcheck disable=SC2086 # a list of numbers
        pids=$(marked "$mark"; exiting $seen)
    done
}

# Says what went wrong, with the end of the server's log.
fail_with_log() {
    say "$1"
    [ ! -s "$2" ] || tail -n 25 "$2" | sed 's/^/    /' >&2
    exit 1
}
