#!/usr/bin/env bash
# All that docs/speed.md should say of a GPU, in one go: benchmarks/gpu.sh [--dry-run] [key=value ...]
#
# The study's eight configurations, frozen and fully trained, in mixed precision and the largest
# batches that fit; images/s, share of time busy, and each against its step from memory; then every
# backbone over DDP where there are two devices. It needs no data and no weights: a phantom cohort
# is trained from random ones, unless further words say otherwise (data=nih data.root=FOLDER).
# Writes outputs/gpu/gpu.md.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
dry_run=false
if [[ ${1:-} == --dry-run ]]; then
  dry_run=true
  shift
fi

run() {
  echo "$*"
  if ! $dry_run; then "$@"; fi
}

devices=2 # in a dry run
if ! $dry_run; then
  devices=$("$python" -c 'import torch; print(torch.cuda.device_count())')
  if [[ $devices == 0 ]]; then
    echo "error: torch finds no CUDA device; --dry-run lists what would be run" >&2
    exit 2
  fi
fi

backbones=resnet152v2,inceptionv3,mobilenetv1,efficientnetb4
common=(data=phantom data.phantom.images=4000 backbone.weights=none features=live
  trainer.max_epochs=3 trainer.progress_bar=false "$@")
for trainable in none all; do
  run "$python" -m cardiomegaly.train -m backbone=$backbones balance=true,false \
    backbone.trainable=$trainable trainer=gpu trainer.batch_size=auto sweep.name=gpu-$trainable \
    "${common[@]}"
done
if ((devices > 1)); then
  for backbone in ${backbones//,/ }; do
    for trainable in none all; do
      run "$python" -m cardiomegaly.train backbone=$backbone backbone.trainable=$trainable \
        trainer=ddp trainer.batch_size=64 hydra.run.dir=outputs/gpu/ddp-$backbone-$trainable \
        "${common[@]}"
    done
  done
fi
run "$python" -m benchmarks only=j output=outputs/gpu/bench
if $dry_run; then exit; fi

{
  cat outputs/gpu/bench/*/bench.md
  cat outputs/sweeps/gpu-none/summary.md outputs/sweeps/gpu-all/summary.md
  for history in outputs/gpu/ddp-*/history.csv; do
    if [[ -f $history ]]; then echo "## ${history%/history.csv}" && cat "$history"; fi
  done
} >outputs/gpu/gpu.md
echo "written: outputs/gpu/gpu.md"
