# For shell tests: what a process goes through under Ctrl-Z and fg, without a handler for it.

# state PID: R, S, T, ...; nothing when it is gone
state() {
        sed 's/.*) \(.\).*/\1/' "/proc/$1/stat" 2>/dev/null || :
}

# until_state PID LETTER: it is found in that state ten times in a row, within 10 s
until_state() {
        tries=500 same=0
        while [ $same -lt 10 ]; do
                tries=$((tries - 1))
                [ $tries -gt 0 ] || return 1
                if [ "$(state "$1")" = "$2" ]; then same=$((same + 1)); else same=0; fi
                sleep 0.02
        done
}

# stop_and_continue PID: it sleeps, is stopped, goes on, and has to come to sleep again
stop_and_continue() {
        until_state "$1" S || { echo "process $1 does not wait: '$(state "$1")'" >&2; return 1; }
        kill -STOP "$1"
        until_state "$1" T || { echo "process $1 does not stop: '$(state "$1")'" >&2; return 1; }
        kill -CONT "$1"
        until_state "$1" S || { echo "process $1 did not go on waiting after SIGSTOP and SIGCONT: '$(state "$1")'" >&2; return 1; }
}
