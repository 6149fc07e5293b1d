#!/usr/bin/env bash
# All that a GPU is needed for, on one GPU in at most ten minutes.
#
#     benchmarks/gpu.sh WHEELS OUT
#
# The image has PyTorch (2.11 or later), Transformers (5.17 or later), Accelerate, PEFT and pytest.
# What it lacks comes from the folder WHEELS, without a network; filled where there is one by
#
#     pip download --no-deps --dest WHEELS trl==1.16.0 datasets multiprocess dill xxhash pyarrow \
#         pandas python-dateutil tzdata psutil typer rich hypothesis sortedcontainers pytest-timeout \
#         annotated-doc
#
# In OUT it leaves gpu.json, with every figure, and gpu.md, the table for docs/cost.md. It goes on
# after a part that fails, and ends with a status other than 0 where one did.
#
# OPRD_GPU_DEVICE=cpu tries it out on a CPU, at a tiny size: no figure of that means anything.
set -uo pipefail
wheels=${1:?the folder of wheels: benchmarks/gpu.sh WHEELS OUT}
out=${2:?the folder for results: benchmarks/gpu.sh WHEELS OUT}
cd "$(dirname "$0")/.."
mkdir -p "$out"
out=$(cd "$out" && pwd)
python=${PYTHON:-python3}
device=${OPRD_GPU_DEVICE:-cuda}
export OPRD_GPU_DEVICE=$device PYTHONPATH="$PWD/src:$PWD" HF_HUB_OFFLINE=1
started=$SECONDS
# A CPU is slower at all of it.
if [ "$device" = cpu ]; then slack=10; else slack=1; fi
limit=$((585 * slack))
failed=0

# part NAME SECONDS COMMAND...: at most so long, and no longer than is left of the ten minutes.
part() {
    local name=$1 most=$(($2 * slack)) left=$((limit - (SECONDS - started)))
    shift 2
    if [ "$left" -lt 5 ]; then
        echo "== $name: left out, no time"
        failed=1
        return
    fi
    echo "== $name"
    local begun=$SECONDS
    timeout --kill-after=5 "$((most < left ? most : left))" "$@" > "$out/$name.log" 2>&1
    local status=$?
    echo "$name $status $((SECONDS - begun))" >> "$out/parts.txt"
    [ "$status" -eq 0 ] || { failed=1; tail -n 5 "$out/$name.log"; }
}

: > "$out/parts.txt"
imports() {
    "$python" -c 'import trl, datasets, typer, rich, psutil, hypothesis, pytest_timeout' \
        2> "$out/import.log"
}
if ! imports; then
    # Beside the image's own, which may not be written to.
    export PYTHONPATH="$PYTHONPATH:$out/packages"
    part wheels 60 "$python" -m pip install --quiet --no-index --no-deps --upgrade \
        --target "$out/packages" --find-links "$wheels" \
        trl datasets multiprocess dill xxhash pyarrow pandas python-dateutil tzdata psutil typer rich \
        hypothesis sortedcontainers pytest-timeout annotated-doc
    # Nothing below can run without them, and the machine's time is short.
    imports || { tail -n 3 "$out/import.log"; exit 1; }
fi

part tests 180 "$python" -m pytest -q -m gpu --timeout $((120 * slack)) -p no:cacheprovider \
    --junitxml "$out/tests.xml" tests/gpu tests/models/test_waiting.py
part syncs 60 "$python" benchmarks/syncs.py --json "$out/syncs.json"

# Weights of one dtype without autocast: not the float32 weights under bf16 autocast of a default
# `oprd train` on a GPU, whose seconds and bytes these figures are not.
if [ "$device" = cpu ]; then
    shapes="smollm2-135m" lengths="32" dtype=float32
    small="--layers_count 2 --vocab_size 300"
else
    shapes="qwen2.5-0.5b qwen2.5-1.5b" lengths="2048 16384" dtype=bfloat16 small=""
fi
for length in $lengths; do
    for shape in $shapes; do
        # shellcheck disable=SC2086 # several words
        part "bench-$shape-$length" 120 "$python" -m oprd bench --shape "$shape" $small \
            --dtype "$dtype" --batch_size 1 --prompt_length 16 --response_length $((length - 16)) \
            --gradient_checkpointing --rounds 5 \
            --objectives floor,oprd,oprd_window,topk,reverse_kl,trl \
            --output_dir "$out/bench-$shape-$length"
    done
done

"$python" benchmarks/gpu_table.py "$out" || failed=1
echo "== $((SECONDS - started)) s; results in $out"
exit "$failed"
