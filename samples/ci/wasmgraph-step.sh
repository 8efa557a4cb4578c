#!/usr/bin/env bash
# The step to put into your own build: compile a model, compare the result with onnxruntime, keep both
# reports and the .wasm. Fails, with wasmgraph's exit code (11 where the outputs disagree), after the
# reports are in the artefact folder.
#
#   wasmgraph-step.sh MODEL.onnx [ARTEFACTS] [compile options, such as --shape image=1,3,224,224]
#
# From the environment:
#   WASMGRAPH         the command           (default: wasmgraph)
#   WASMGRAPH_RTOL    relative tolerance    (default: 1e-3)
#   WASMGRAPH_ATOL    absolute tolerance    (default: 1e-4)
#
# Left in ARTEFACTS (default: artefacts):
#   NAME.wasm            only if it agrees with the model
#   NAME.compile.json    sizes and times, or the error
#   NAME.verify.json     agreement per output, or the error; only if it compiled
set -euo pipefail

model=${1:?usage: wasmgraph-step.sh MODEL.onnx [ARTEFACTS] [compile options]}
artefacts=${2:-artefacts}
shift $(($# < 2 ? $# : 2))
wasmgraph=${WASMGRAPH:-wasmgraph}
rtol=${WASMGRAPH_RTOL:-1e-3}
atol=${WASMGRAPH_ATOL:-1e-4}

name=$(basename "$model" .onnx)
graph=$artefacts/$name.wasm
mkdir -p "$artefacts"
# Nothing of an earlier build may pass for this one's.
rm -f "$graph" "$artefacts/$name.compile.json" "$artefacts/$name.verify.json"

# A report is shown where it says why the build fails.
failed() {
    local code=$1 report=$2
    cat "$report" >&2
    rm -f "$graph"
    echo "wasmgraph-step: $model failed with exit code $code, see $report" >&2
    exit "$code"
}

# Verified in a step of its own below, so that a disagreement leaves the figures too.
"$wasmgraph" compile "$model" -o "$graph" --no-verify --json "$@" \
    >"$artefacts/$name.compile.json" || failed $? "$artefacts/$name.compile.json"

"$wasmgraph" verify "$graph" --onnx "$model" --rtol "$rtol" --atol "$atol" --json \
    >"$artefacts/$name.verify.json" || failed $? "$artefacts/$name.verify.json"

echo "wasmgraph-step: $graph ($(wc -c <"$graph") bytes) agrees with $model"
