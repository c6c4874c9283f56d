# What noisy/, missing/ and balance/ share: sound to features once, then label_errors.py, whose steps are commands.

.DELETE_ON_ERROR:
.PHONY: all clean help

# ---- settings; a command line overrides them, the caller's environment does not
ESC =
DATASET ?= esc50
SMALL =
HELD ?= 5
THREADS = 0
ifeq ($(filter-out 0,$(SMALL)),)
WORK = work
SEEDS = 0 1 2
STEPS = 300
BATCH = 64
FRONT_END =
MIXTURES = 800
else
WORK = work-small
SEEDS = 0
STEPS = 2
BATCH = 8
FRONT_END = --bands 16 --frame-hop 0.06 --window 0.96
MIXTURES = 40
endif
PERCENTILE = 75
SECTION = $(EXPERIMENT)
RESULTS = ../RESULTS.md

ROOT = ../..
SOURCE ?= $(ESC)
include ../programs.mk

FEATURES = $(WORK)/features.h5
LABELS = $(WORK)/labels.h5

ifeq ($(filter clean help,$(MAKECMDGOALS))$(ESC),)
$(error name the folder of a collection: make -C examples/$(EXPERIMENT) ESC=/data/ESC-10)
endif

all: $(WORK)/results.md

FEATURIZE = $(SOUNDSSL) featurize --dataset $(DATASET) $(SOURCE) $(FRONT_END) -o $(FEATURES) --labels $(LABELS)

$(FEATURES): $(if $(filter csv,$(DATASET)),$(SOURCE)) | $(READY)
	@mkdir -p $(WORK)
	$(FEATURIZE)

$(LABELS): $(FEATURES)
	@test -e $@ || $(FEATURIZE)
	@touch $@

$(WORK)/results.md: ../label_errors.py $(FEATURES) $(LABELS)
	$(PYTHON) ../label_errors.py $(EXPERIMENT) --features $(FEATURES) --labels $(LABELS) --held $(HELD) --work $(WORK)/runs \
	  --seeds $(SEEDS) --steps $(STEPS) --batch $(BATCH) --percentile $(PERCENTILE) --threads $(THREADS) -o $@ \
	  --results $(RESULTS) --section $(SECTION) --title '$(TITLE)' \
	  --command 'make -C examples/$(EXPERIMENT) ESC=… STEPS=$(STEPS) BATCH=$(BATCH) SEEDS="$(SEEDS)" FRONT_END="$(FRONT_END)"'

clean:
	rm -rf work work-small

help:
	@echo 'make -C examples/$(EXPERIMENT) ESC=/data/ESC-10 [DATASET=esc50] [HELD=$(HELD)] [STEPS=300] [SEEDS="0 1 2"] [SMALL=1]'
	@echo '  ESC        folder of the collection; absolute'
	@echo '  DATASET    its layout, as featurize --dataset knows it; its splits are folds'
	@echo '  HELD       splits held out, separated by commas'
	@echo '  PERCENTILE of losses: what is above is discarded or pruned'
	@echo '  FRONT_END  options of featurize; fewer bands and frames take less time'
	@echo 'Results go to examples/RESULTS.md. make -C examples/$(EXPERIMENT) clean removes what was made.'
