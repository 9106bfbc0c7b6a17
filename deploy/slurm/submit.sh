#!/usr/bin/env bash
# The command of a flow run in a process pool on a login node: submit the job, wait for it, leave with its
# exit code. Prefect gives the flow run in PREFECT__FLOW_RUN_ID. Arguments go to sbatch:
#   submit.sh --nodes=4 --time=12:00:00 --partition=long
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
grace=${SURVEY_ML_SLURM_GRACE:-25}
name=survey-ml-${PREFECT__FLOW_RUN_ID:-run}
said=$(mktemp)
waiting=

# The channel to the worker is on loopback of this machine; the job is on another.
unset PREFECT__CONTROL_PORT PREFECT__CONTROL_TOKEN

# The driver hears from Prefect itself that it is cancelled and ends in good order; the job is taken
# away only when that takes too long. Prefect kills this script after 30 s.
stop() {
    trap '' TERM INT
    for ((second = 0; second < grace; second++)); do
        kill -0 "$waiting" 2>/dev/null || break
        sleep 1
    done
    job=$(head -n 1 "$said" | cut -d ';' -f 1)
    if [[ -n $job ]] && kill -0 "$waiting" 2>/dev/null; then
        scancel "$job" || true
    fi
    rm -f "$said"
    exit 143
}
trap stop TERM INT

sbatch --parsable --wait --export=ALL --job-name="$name" ${SURVEY_ML_SBATCH_OPTIONS:-} "$@" \
    "$here/release.sbatch" >"$said" &
waiting=$!
code=0
wait "$waiting" || code=$?
cat "$said"
rm -f "$said"
exit "$code"
