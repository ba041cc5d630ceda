#!/usr/bin/env bash
# Runs a script of this project, or its tests, in an environment that it sets up by itself.
#
#   ./run-local.sh scripts/train_federated.py with demo
#   ./run-local.sh pytest [arguments]
#
# RUNTIME (environment, or a line of .env) chooses the environment:
#   venv     a virtual environment in .venv, made at the first call and reused (the default)
#   docker   a container of the image that the Dockerfile describes
#
# Paths: a script runs in the caller's folder, so that relative paths in its arguments, and runs/ and
# checkpoints/, mean what they mean in the caller's shell; the script itself is found there or in
# the project. Tools that are about the project (pytest, ruff, mypy) run in the project's folder.
set -euo pipefail

PROJECT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
VENV=$PROJECT/.venv
LOCK=$PROJECT/.venv.lock # empty, or a line while a set-up is under way or was interrupted

say() { printf 'run-local: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

usage() {
  printf '%s\n' \
    'usage: ./run-local.sh SCRIPT.py [arguments]    such as: scripts/train_federated.py with demo' \
    '       ./run-local.sh pytest [arguments]       also ruff and mypy' \
    'RUNTIME=venv (default) or RUNTIME=docker, from the environment or from .env.'
}

# Print a variable: from the environment, else from .env. The file is searched and never executed,
# because it holds secrets and values that a shell would take apart.
setting() {
  local name=$1 line=''
  if [[ -n ${!name:-} ]]; then
    printf '%s' "${!name}"
  elif [[ -f $PROJECT/.env ]]; then
    line=$(grep -E "^[[:space:]]*(export[[:space:]]+)?$name=" "$PROJECT/.env" | tail -n 1 || true)
    line=${line#*=}
    line=${line%$'\r'}
    line=${line%%[[:space:]]#*}
    line=${line%"${line##*[![:space:]]}"}
    line=${line#[\"\']}
    printf '%s' "${line%[\"\']}"
  fi
}

# --- virtual environment -------------------------------------------------------------------------

# What the virtual environment was made from, and where: its programs hold their own full path.
stamp() {
  cat -- "$PROJECT/pyproject.toml" "$PROJECT/constraints.txt" | {
    if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi
  } | cut -d ' ' -f 1
  printf '%s' "$PROJECT"
}

is_ready() {
  [[ -x $VENV/bin/python && -f $VENV/.ready && $(<"$VENV/.ready") == "$(stamp)" ]]
}

find_python() {
  local name seen='' incomplete=''
  for name in ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      if "$name" -c 'import venv, ensurepip' >/dev/null 2>&1; then
        printf '%s' "$name"
        return
      fi
      incomplete=${incomplete:-$name}
    elif "$name" --version >/dev/null 2>&1; then
      seen="$seen $name is $("$name" --version 2>&1);"
    fi
  done
  [[ -z $incomplete ]] || fail "$incomplete cannot make virtual environments; install its venv" \
    "module (on Debian and Ubuntu: apt install python3-venv) and run this again."
  fail "Python 3.11 or newer is needed and none was found (${seen:- no Python at all});" \
    "install one, or name one in the variable PYTHON, and run this again."
}

# Show of pip's output what a person wants to see; all of it goes to the log.
pip_install() {
  "$VENV/bin/python" -m pip install --disable-pip-version-check --no-input --progress-bar off \
    -c "$PROJECT/constraints.txt" "$@" 2>&1 | tee -a "$VENV/install.log" |
    awk '/^ *(Downloading|Using cached) .*\([0-9.]+ [MG]B\)$/ {
        n = ($1 == "Using") ? $3 : $2; split(n, part, "-")
        print "run-local:   fetched " part[1] " " part[2] " " $(NF - 1) " " $NF }
      /^Installing collected/ { print "run-local:   installing " NF - 3 " packages" }
      /^ERROR/ { print "run-local:   " $0 }
      { fflush() }' >&2
}

set_up() {
  local python=$1 anew=''
  # pip takes a half-written package for an installed one, so what was interrupted is done anew,
  # and so is an environment that was moved.
  if [[ ! -x $VENV/bin/python || -s $LOCK ]]; then
    anew=yes
  elif [[ -f $VENV/.ready && $(tail -n 1 "$VENV/.ready") != "$PROJECT" ]]; then
    anew=yes
  fi
  echo 'setting up' >"$LOCK"
  rm -f "$VENV/.ready"
  if [[ -n $anew ]]; then
    say "setting up .venv with $("$python" --version 2>&1), once: PyTorch and the other libraries"
    say "take about 2 GB of disk (5 GB where the package index serves a CUDA build) and some minutes."
    "$python" -m venv --clear "$VENV" >&2 || fail "making the virtual environment in .venv failed."
  else
    say "bringing .venv up to date with pyproject.toml and constraints.txt."
  fi
  : >"$VENV/install.log"
  local torch index
  torch=$(grep -E '^torch==' "$PROJECT/constraints.txt")
  index=$(setting TORCH_INDEX_URL)
  # torch first: a failure of the largest download shows at once, and its index is its own.
  # An address may carry a password, so it does not go on a command line.
  if ! { ([[ -z $index ]] || export PIP_INDEX_URL=$index; pip_install "$torch") &&
    (cd -- "$PROJECT" && pip_install -e '.[dev]'); }; then
    # A failure before anything was written, as without a network, costs no fresh start.
    [[ $(grep -c '^Installing collected' "$VENV/install.log") != \
      $(grep -c '^Successfully installed' "$VENV/install.log") ]] || : >"$LOCK"
    say "installing failed; the whole output is in .venv/install.log. Its last lines:"
    tail -n 5 "$VENV/install.log" | cut -c 1-300 >&2
    fail "check that the package index can be reached, then run the same command again."
  fi
  stamp >"$VENV/.ready.new"
  mv -f "$VENV/.ready.new" "$VENV/.ready"
  : >"$LOCK"
  say "set up."
}

# One set-up at a time. The lock belongs to the open file, so it ends with its holder, kill -9
# included; Python takes it because not every system has a flock command.
ensure_venv() {
  ! is_ready || return 0
  local python try_lock='import fcntl; fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)'
  python=$(find_python)
  exec 9>>"$LOCK" || fail "$PROJECT is not writable, so no .venv can be made in it."
  if ! "$python" -c "$try_lock" 2>/dev/null; then
    say "waiting for another set-up of .venv to finish."
    "$python" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'
  fi
  is_ready || set_up "$python"
  exec 9>&-
}

run_in_venv() {
  say "using the virtual environment in .venv (RUNTIME=venv)"
  ensure_venv
  export VIRTUAL_ENV=$VENV PATH=$VENV/bin:$PATH
  unset PYTHONHOME
  if [[ $1 != -m && ! -f $1 ]]; then
    [[ -f $PROJECT/$1 ]] || fail "there is no script $1 here or in $PROJECT."
    set -- "$PROJECT/$1" "${@:2}"
  fi
  exec "$VENV/bin/python" "$@"
}

# --- container -----------------------------------------------------------------------------------

run_in_docker() {
  local compose=(docker compose) terminal=()
  say "using a container (RUNTIME=docker)"
  if ! docker compose version >/dev/null 2>&1; then
    command -v docker-compose >/dev/null ||
      fail "RUNTIME=docker needs Docker with its compose plugin; install it, or set RUNTIME=venv."
    compose=(docker-compose)
  fi
  docker info >/dev/null 2>&1 || fail "no Docker engine answers; start it, or set RUNTIME=venv."
  [[ -t 0 && -t 1 ]] || terminal=(-T)
  # Compose looks for its files, those named in COMPOSE_FILE too, in the current folder.
  cd -- "$PROJECT"
  "${compose[@]}" build main >&2 || fail "building the image failed."
  exec "${compose[@]}" run --rm --service-ports ${terminal[@]+"${terminal[@]}"} main "$@"
}

# -------------------------------------------------------------------------------------------------

main() {
  case ${1:-} in
    '') usage >&2; exit 2 ;;
    -h | --help) usage; exit 0 ;;
    pytest | ruff | mypy) cd -- "$PROJECT"; set -- -m "$@" ;;
    *.py) ;;
    *) usage >&2; fail "$1 is neither a .py file nor one of pytest, ruff, mypy." ;;
  esac
  local runtime
  runtime=$(setting RUNTIME)
  case ${runtime:-venv} in
    venv) run_in_venv "$@" ;;
    docker) run_in_docker "$@" ;;
    *) fail "RUNTIME must be venv or docker, got '$runtime'; set it in the environment or in .env." ;;
  esac
}

main "$@"
