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
FOLDER=$PWD # the caller's
RUNNER=$0
VENV=$PROJECT/.venv
LOCK=$PROJECT/.venv.lock # empty, or a line while a set-up is under way or was interrupted

say() { printf 'run-local: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

usage() {
  printf '%s\n' \
    'usage: ./run-local.sh SCRIPT.py [arguments]    such as: scripts/train_federated.py with demo' \
    '       ./run-local.sh pytest [arguments]       also ruff, mypy and mkdocs' \
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

# Tell the program what the caller types, for the commands that it names to the caller.
export_runner() {
  [[ $RUNNER == */* ]] || RUNNER=./$RUNNER # as of: bash run-local.sh
  export SCALING_FL_RUNNER=${RUNTIME:+RUNTIME=$RUNTIME }$(printf '%q' "$RUNNER")
}

# --- virtual environment -------------------------------------------------------------------------

# What the virtual environment was made from, and where: its programs hold their own full path.
stamp() {
  cat -- "$PROJECT/pyproject.toml" "$PROJECT/constraints.txt" | {
    if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi
  } | cut -d ' ' -f 1
  printf '%s' "$PROJECT"
}

# Without pyvenv.cfg, the environment's Python would install into what it was made from.
has_python() {
  [[ -x $VENV/bin/python && -f $VENV/pyvenv.cfg ]]
}

is_ready() {
  has_python && [[ -f $VENV/.ready && $(<"$VENV/.ready") == "$(stamp)" ]]
}

# Python clears what is behind a link, and then makes no environment there.
refuse_link() {
  [[ ! -L $VENV ]] ||
    fail ".venv must not be a link, because setting up would clear what is behind it, got a link to" \
      "$(readlink -- "$VENV"); remove the link (rm $VENV) and run this again."
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
  if ! has_python || [[ -s $LOCK ]]; then
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
  refuse_link
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
  export_runner
  exec "$VENV/bin/python" "$@"
}

# --- container -----------------------------------------------------------------------------------

find_compose() {
  if docker compose version >/dev/null 2>&1; then
    COMPOSE=(docker compose)
  elif command -v docker-compose >/dev/null; then
    COMPOSE=(docker-compose)
  else
    fail "RUNTIME=docker needs Docker with its compose plugin; install it, or set RUNTIME=venv."
  fi
  docker info >/dev/null 2>&1 || fail "no Docker engine answers; start it, or set RUNTIME=venv."
  NAME=scaling-fl-$$-$RANDOM # two calls must not share a Compose project
  # The container reads .env by itself, as the program does outside. Compose must not: it would
  # take values apart and show them in what it prints. It is given a file that sets nothing.
  COMPOSE+=(--env-file "$PROJECT/.env.template" --project-name "$NAME")
}

# Compose looks for its files, those named in COMPOSE_FILE too, in the current folder.
choose_compose_files() {
  export COMPOSE_PATH_SEPARATOR=: COMPOSE_FILE=${COMPOSE_FILE:-docker-compose.yaml}
  if nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then
    COMPOSE_FILE=$COMPOSE_FILE:deploy/docker-compose.gpu.yaml
  fi
}

# What the Compose file asks for: where the image comes from, who runs it and what it sees.
export_settings() {
  local name value
  for name in TORCH_INDEX_URL BASE_IMAGE TRAIN_IMAGE DEBUG_IMAGE; do
    value=$(setting "$name")
    [[ -z $value ]] || export "$name=$value"
  done
  [[ ${TORCH_INDEX_URL:-} != *@* ]] ||
    fail "TORCH_INDEX_URL holds a user or a password, which the image would keep; take them out."
  SCALING_FL_VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
  SCALING_FL_COMMIT=$(git rev-parse --verify HEAD 2>/dev/null || true)
  SCALING_FL_DIRTY=$([[ -z $(git status --porcelain 2>/dev/null) ]] || echo 1)
  export SCALING_FL_VERSION SCALING_FL_COMMIT SCALING_FL_DIRTY
  CALLER=$(id -u):$(id -g)
  USER_NAME=$(setting USER_NAME)
  export CALLER USER_NAME=${USER_NAME:-${USER:-}}
  [[ -n $USER_NAME ]] || unset USER_NAME

  DATA_MOUNT_DIR=$(setting DATA_MOUNT_DIR)
  [[ -z $DATA_MOUNT_DIR || -d $DATA_MOUNT_DIR ]] ||
    fail "DATA_MOUNT_DIR must name a folder, got '$DATA_MOUNT_DIR'; correct it in .env."
  export DATA_MOUNT_DIR=${DATA_MOUNT_DIR:-$PROJECT/data}
  SCALING_FL_CACHE=$(setting SCALING_FL_CACHE)
  HF_HOME=$(setting HF_HOME)
  export SCALING_FL_CACHE=${SCALING_FL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/scaling_fl}
  export HF_HOME=${HF_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/huggingface}
  export RUNS_DIR=$FOLDER/runs CHECKPOINTS_DIR=$FOLDER/checkpoints
  # Docker would make what is missing as root.
  for name in DATA_MOUNT_DIR SCALING_FL_CACHE HF_HOME RUNS_DIR CHECKPOINTS_DIR; do
    mkdir -p -- "${!name}" || fail "$name=${!name} cannot be made; see the line above."
    printf -v "$name" %s "$(cd -- "${!name}" && pwd -P)" # Compose takes other paths for volumes
  done
}

# Fill MOUNTS with .env and the credentials.
choose_mounts() {
  local credentials
  MOUNTS=()
  [[ ! -f .env ]] || MOUNTS+=(-v "$PROJECT/.env:/workspace/.env:ro")
  credentials=$(setting GOOGLE_APPLICATION_CREDENTIALS)
  if [[ -n $credentials ]]; then
    [[ -f $credentials ]] ||
      fail "GOOGLE_APPLICATION_CREDENTIALS must name a file, got '$credentials'; correct it in .env."
    MOUNTS+=(-v "$credentials:/workspace/credentials.json:ro"
      -e GOOGLE_APPLICATION_CREDENTIALS=/workspace/credentials.json)
  fi
}

# Let paths mean in the container what they mean outside: the caller's folder is its working folder,
# and what the arguments name elsewhere is where it is outside. Paths below /workspace are its own.
mount_arguments() {
  local argument value previous=''
  [[ $FOLDER != / ]] || fail "a container cannot work in the folder /; go to a folder of yours."
  # The program is that of the image, even if the caller's folder holds it, too.
  MOUNTS+=(-v "$FOLDER:$FOLDER" -w "$FOLDER" -e PYTHONSAFEPATH=1)
  for argument in "$@"; do
    value=${argument#*=}
    value=${value#[\"\']}
    value=${value%[\"\']}
    case $argument in
      *://* | *=/workspace/* | *=[\"\']/workspace/*) ;;
      checkpoints_dir=* | tracking.runs_dir=* | data.cache_dir=*)
        [[ $value == /* ]] || value=$FOLDER/$value
        mkdir -p -- "$value" || fail "$value cannot be made; see the line above."
        mount "$value"
        ;;
      *)
        case $previous in --out | --train-path | --test-path) mount_nearest "$value" ;; esac
        mount "$value"
        mount_what_it_names "$value"
        ;;
    esac
    # data/ is DATA_MOUNT_DIR where the caller's folder has no such file of its own.
    if [[ $value == data/* && ! -e $FOLDER/$value && -e $DATA_MOUNT_DIR/${value#data/} ]]; then
      mkdir -p -- "$FOLDER/data"
      add_mount "$DATA_MOUNT_DIR" "$FOLDER/data"
    fi
    previous=$argument
  done
}

# Mount what exists outside the caller's folder: by the name given, and where its links lead.
mount() {
  local here=$1 place
  [[ $here == /* ]] || here=$FOLDER/$here
  for place in "$here" "$(readlink -f -- "$here" 2>/dev/null || true)"; do
    case $place in '' | / | */../* | "$FOLDER" | "$FOLDER"/* | /workspace/*) continue ;; esac
    [[ ! -e $place ]] || add_mount "$place" "$place"
  done
}

# Docker refuses the same mount twice.
add_mount() {
  [[ " ${MOUNTS[*]} " == *" $1:$2 "* ]] || MOUNTS+=(-v "$1:$2")
}

# Mount the folder in which something is to be written.
mount_nearest() {
  local here=$1
  while [[ $here == /* && ! -e $here ]]; do here=$(dirname -- "$here"); done
  mount "$here"
}

NAMING='train_path|test_path|model|init_from|checkpoints_dir'

# Mount the data and the model that a run, a checkpoint or a file of settings names.
mount_what_it_names() {
  local here=$1 file path
  [[ $here == /* ]] || here=$FOLDER/$here
  for file in "$here" "$here"/config.json "$here"/round-*/config.json; do
    case $file in *.json | *.yaml | *.yml) ;; *) continue ;; esac
    [[ -f $file ]] || continue
    while IFS= read -r path; do mount "$path"; done < <(sed -nE \
      "s/^ *\"?($NAMING)\"?: *[\"']?([^\"' ,][^\"',#]*).*/\\2/p" "$file" | sed 's/ *$//')
  done
}

build_image() {
  local service=$1 image=$2
  if docker image inspect "$image" >/dev/null 2>&1; then
    say "building the image $image where something has changed."
    "${COMPOSE[@]}" build -q "$service" >&2 || fail "building the image failed; see the lines above."
  else
    say "building the image $image, once: PyTorch and the other libraries take about 2 GB of disk"
    say "(8 GB where the package index serves a CUDA build) and some minutes."
    "${COMPOSE[@]}" build "$service" >&2 || fail "building the image failed; see the lines above."
  fi
}

run_in_docker() {
  say "using a container (RUNTIME=docker)"
  find_compose
  FOLDER=$(pwd -P)
  cd -- "$PROJECT"
  choose_compose_files
  export_settings
  choose_mounts
  local service=main image=${TRAIN_IMAGE:-scaling-fl:train}
  [[ $1 != -m ]] || service=tools
  [[ $1 != -m && $COMPOSE_FILE != *debug* ]] || image=${DEBUG_IMAGE:-scaling-fl:debug}
  if [[ $1 != -m ]]; then
    local script=${1#"$PROJECT"/}
    [[ -f $script && $script != /* ]] ||
      fail "a container runs scripts of this project, got $1; set RUNTIME=venv for others."
    mount_arguments "${@:2}"
    set -- "/workspace/$script" "${@:2}"
  fi
  build_image "$service" "$image"
  export_runner
  run_and_forward --name "$NAME" --service-ports ${MOUNTS[@]+"${MOUNTS[@]}"} "$service" "$@"
}

# Run the container in the background and hand signals on: Compose would stop it and hide its code.
run_and_forward() {
  local child='' code signalled=''
  trap 'signalled=1; forward INT' INT
  trap 'signalled=1; forward TERM' TERM HUP QUIT
  if [[ -t 0 && -t 1 ]]; then
    "${COMPOSE[@]}" run --rm "$@" <&0 & # the terminal's Ctrl-C goes to the container as a key
  else
    set -m # a process group of its own, which Ctrl-C does not reach
    "${COMPOSE[@]}" run --rm -T "$@" </dev/null &
  fi
  child=$!
  while :; do
    code=0
    wait "$child" || code=$?
    [[ -n $signalled ]] || break
    signalled=''
  done
  # Compose 1 makes these for services that do not run.
  docker network rm "${NAME}_default" >/dev/null 2>&1 || true
  docker volume rm "${NAME}_mongo" >/dev/null 2>&1 || true
  exit "$code"
}

forward() {
  docker kill --signal "$1" "$NAME" >/dev/null 2>&1 ||
    kill -s "$1" -- "-$child" 2>/dev/null || kill -s "$1" "$child" 2>/dev/null || true
}

# -------------------------------------------------------------------------------------------------

main() {
  case ${1:-} in
    '') usage >&2; exit 2 ;;
    -h | --help) usage; exit 0 ;;
    pytest | ruff | mypy | mkdocs) cd -- "$PROJECT"; set -- -m "$@" ;;
    *.py) ;;
    *) usage >&2; fail "$1 is neither a .py file nor one of pytest, ruff, mypy, mkdocs." ;;
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
