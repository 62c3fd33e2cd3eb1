#!/usr/bin/env bash
# Pretraining on several nodes under Slurm: sbatch --nodes 4 deploy/slurm.sh TEXT|STORE... [options of bertsmith pretrain]
#
# RUN names the run folder. It, the text and the environment must lie where all nodes see them. Three minutes before the
# time limit the ranks get SIGTERM, save at the end of their step and end; the job is then queued again and goes on with
# --resume. A job that ends badly by itself is not queued again. A model that does not fit one GPU with its optimiser is
# cut over all of them by the option --parallel fsdp. Not run by the authors: they had no Slurm.
#
#SBATCH --job-name=bertsmith
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=12:00:00
#SBATCH --signal=B:USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=bertsmith-%j.log
set -euo pipefail

RUN=${RUN:-runs/encoder}
PROCESSES=${PROCESSES:-${SLURM_GPUS_ON_NODE:-1}} # of each node
# Seconds that torchrun lets its ranks save before it kills them; an older torch does not know it and gives 30.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-120}

arguments=("$@" --out "$RUN")
if [[ -e $RUN/run.json ]]; then # begun before: text, settings and length are known
    arguments=(--out "$RUN" --resume)
fi

stopped=0
stop() {
    stopped=1
    # One SIGTERM, to torchrun alone, which passes it on: a second one would end a rank before it has saved.
    scancel --signal=TERM "$SLURM_JOB_ID.0"
}
trap stop USR1

head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
srun torchrun \
    --nnodes "$SLURM_NNODES" \
    --nproc-per-node "$PROCESSES" \
    --rdzv-id "$SLURM_JOB_ID" \
    --rdzv-backend c10d \
    --rdzv-endpoint "$head_node:29400" \
    -m bertsmith.cli.main pretrain "${arguments[@]}" &
work=$!

code=0
wait "$work" || code=$?
if ((stopped)); then # the signal ended the wait, not the work
    wait "$work" || code=$?
    if [[ ! -e $RUN/bundle ]]; then
        scontrol requeue "$SLURM_JOB_ID"
    fi
fi
exit "$code"
