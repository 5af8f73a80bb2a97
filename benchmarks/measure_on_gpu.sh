#!/usr/bin/env bash
# All measurements that want a GPU, in one command:
#
#     PACK=ilsvrc-val.parquet TRAIN=folder TINY=folder benchmarks/measure_on_gpu.sh
#
# PACK: ILSVRC validation pictures with boxes (`list data`: ilsvrc-pack); TRAIN: the folder of the
# Imagenette packs; TINY: that of Tiny-ImageNet. Records go to OUT (results). What has a record is
# not measured again, and what was cut off goes on, so the command may be repeated at will. The most
# telling runs come first, should time run out. GPUS=N trains and evaluates on N of them.
set -euo pipefail
cd "$(dirname "$0")/.."

: "${PACK:?the parquet file with ILSVRC validation pictures}"
: "${TRAIN:?the folder with the Imagenette packs}"
: "${TINY:?the folder with Tiny-ImageNet}"
PYTHON=${PYTHON:-python}
OUT=${OUT:-results}
SEEDS=${SEEDS:-0 1 2}
GPUS=${GPUS:-1}

bench() {  # one command line of casm_bench, on all GPUs
    "$PYTHON" -m torch.distributed.run --nproc-per-node "$GPUS" -m casm_bench "$@"
}
photographs() {  # METHODS [--set ...]: trained on Imagenette, scored on ILSVRC pictures
    # shellcheck disable=SC2086  # seeds are words
    bench run --recipe imagenette-full --data ilsvrc-pack --root "$PACK" --device cuda \
        --train-root "$TRAIN" --out "$OUT" --seeds $SEEDS --methods "$@"
}

# 1. The training step beside its floors, and methods' images per second.
grep -qs "commit $(git rev-parse HEAD)" benchmarks/gpu.md ||
    "$PYTHON" benchmarks/gpu.py --out benchmarks/gpu.md

# 2. CASM and Baseline on photographs: strategies, objectives, λ_r, update order.
photographs casm baseline
photographs casm --set casm.strategy=L
photographs casm --set casm.strategy=FL
for strategy in L100 L FL; do
    photographs casm --set casm.strategy=$strategy casm.objective=adversarial
done
photographs baseline --set baseline.objective=adversarial
photographs casm --set casm.update_order=torch04
for weight in 2.5 5 7 10 14 20; do
    photographs casm --set casm.lambda_r=$weight
    photographs baseline --set baseline.lambda_r=$weight
done

# 3. Tiny-ImageNet at 64 pixels, from a classifier trained from scratch.
# shellcheck disable=SC2086
bench run --recipe tiny-imagenet --data tiny-imagenet --root "$TINY" --device cuda \
    --methods casm baseline grad --seeds $SEEDS --out "$OUT"

# 4. Methods without training on all pictures, the slow ones last; one that fails stops no other.
for method in grad grad-cam layer-cam cam guided-backprop excitation-backprop input-x-gradient \
    smoothgrad integrated-gradients occlusion mask score-cam rise extremal-perturbation; do
    bench run --recipe imagenette-full --data ilsvrc-pack --root "$PACK" --device cuda \
        --methods "$method" --protocols fong wsol --out "$OUT" || echo "$method: failed" >&2
done
