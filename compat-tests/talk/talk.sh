# Sourced by the clients written in shell. A scenario is a function with the scenario's name; it runs in a
# subshell under `set -e`, fails by any failing command, and its last line of output is the detail.

exec 3<&0 4>&1 </dev/null >&2

answer_scenarios() {
  local scenario output status
  while read -r scenario <&3; do
    if ! declare -F "$scenario" >/dev/null; then
      echo "NONE ${none[$scenario]:-not a thing this client does}" >&4
      continue
    fi
    output=$(set -eo pipefail; topic=$scenario; "$scenario" 2>&1)
    status=$?
    printf '%s: %s\n' "$scenario" "$output"
    output=$(tail -n 1 <<<"$output")
    if [ $status -eq 0 ]; then echo "PASS $output" >&4; else echo "FAIL ${output:-ended with $status}" >&4; fi
  done
}

declare -A none # scenario -> why this client cannot do it

broker() { # broker restart|kill: by the runner; returns when the broker answers again
  echo "BROKER $1" >&4
  read -r <&3
}

same() { # same GOT WANTED
  if [ "$1" != "$2" ]; then
    echo "got <$1>, wanted <$2>" | tr '\n' ' '
    exit 1
  fi
}

holds() { # holds TEXT PATTERN: an extended regular expression
  if ! grep -Eq -- "$2" <<<"$1"; then
    echo "no <$2> in <$1>" | tr '\n' ' '
    exit 1
  fi
}

fails() { # fails COMMAND...: its output, if it fails as it should
  if "$@" 2>&1; then
    echo "did not fail: $*" >&2
    exit 1
  fi
}
