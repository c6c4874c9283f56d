#!/bin/sh
# Decode in several processes, a part each, without make or a scheduler: examples/parts/xargs.sh MEDIA FOLDER 8
set -e
seq "$3" | xargs -P "$3" -I K ${SOUNDSSL:-soundssl} featurize "$1" --part "K/$3" -j 1 -o "$2/part-K.h5" --allow-skipped
exec ${SOUNDSSL:-soundssl} featurize "$2"/part-*.h5 -o "$2/features.h5"
