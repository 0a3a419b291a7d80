# Sourced by every script that answers to `prepare`: get a tool, into the cache or by the system's packages.
# A failure's last line says what is missing.

: "${COMPAT_CACHE:=$HOME/.cache/sordini/compat}"

need() { # need COMMAND PACKAGE...: install the packages if there is no such command
  local command=$1
  shift
  command -v "$command" >/dev/null || install_packages "$command" "$@"
}

install_packages() {
  local what=$1
  shift
  if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; } >&2; then
    echo "no $what: apt-get install $*"
    exit 1
  fi
}

maven_jars() { # maven_jars POM DIRECTORY: what the pom asks for, once per version of the pom
  cmp -s "$1" "$2/pom.xml" && return
  need java default-jdk-headless
  need mvn maven
  rm -rf "$2"
  mvn -q -B -f "$1" dependency:copy-dependencies -DoutputDirectory="$2" -DincludeScope=runtime
  cp "$1" "$2/pom.xml"
}

python_packages() { # python_packages REQUIREMENTS DIRECTORY: a virtual environment, once per version of the list
  cmp -s "$1" "$2/requirements.txt" && return
  need python3 python3 python3-venv
  rm -rf "$2"
  python3 -m venv "$2" || { install_packages venv python3-venv; python3 -m venv "$2"; }
  "$2/bin/pip" install -q -r "$1"
  cp "$1" "$2/requirements.txt"
}

served() { # served API-KEY: whether the broker advertises it; the runner has asked
  [[ ${API_KEYS:-} == *" $1 "* ]]
}
