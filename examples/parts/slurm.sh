#!/bin/sh
# Decode in an array of jobs, a part each, then join: sbatch --array=1-8 examples/parts/slurm.sh MEDIA FOLDER
# The array may begin with any number; --part auto counts from its smallest. A job that was killed goes on when it is
# submitted again. When all have ended: soundssl featurize FOLDER/part-*.h5 -o FOLDER/features.h5
#SBATCH --cpus-per-task=4
set -e
exec ${SOUNDSSL:-soundssl} featurize "$1" --part auto -o "$2/part-$SLURM_ARRAY_TASK_ID.h5" --allow-skipped
