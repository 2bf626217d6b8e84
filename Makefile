# make run: execute the notebook; make lab: open it; make test: lint and test; make test-all: the slow tests, too.
# Each makes .venv first where it is missing.
# PARAMETERS="DATASET=camvid IMAGE_SIZE=(96, 128) EPOCHS=2" changes parameters and OPTIONS of the notebook,
# LAB_OPTIONS="--port 9999" JupyterLab's; root, as in a container, gets the --allow-root without which it won't start.
# PYTHON=python3.12 chooses the Python; .venv is made anew if another one made it. Without PYTHON, a .venv stays as it is.
PYTHON ?= python3
VENV := .venv
PARAMETERS ?=
LAB_OPTIONS ?=
# The code needs the first; TensorFlow has wheels up to the last. To try a newer one: make run PYTHONS="3.11 ... 3.14".
PYTHONS := 3.11 3.12 3.13

# In the environment, no quote, space or bracket of it means anything to make or to the shell.
export NOTEBOOK_PARAMETERS := $(value PARAMETERS)

.PHONY: run lab test test-all clean FORCE

run: $(VENV)/installed
	$(VENV)/bin/python run_notebook.py "$$NOTEBOOK_PARAMETERS"

lab: $(VENV)/installed
	$(VENV)/bin/jupyter lab segmentation_unet.ipynb $(if $(filter 0,$(shell id -u)),--allow-root) $(LAB_OPTIONS)

test: $(VENV)/installed-tests
	$(VENV)/bin/ruff check .
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

test-all: $(VENV)/installed-tests
	$(VENV)/bin/ruff check .
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# Each stamp is made last: what was interrupted is done again.
$(VENV)/installed: requirements.txt $(VENV)/made-by
	$(VENV)/bin/python -m pip install --quiet --requirement requirements.txt
	touch $@

$(VENV)/installed-tests: $(VENV)/installed tests/requirements.txt
	$(VENV)/bin/python -m pip install --quiet --requirement tests/requirements.txt
	touch $@

# Version and folder of a Python, the same for it and for every environment that it made; old Pythons can tell it, too.
WHO := import sys; print("%d.%d in %s" % (sys.version_info[0], sys.version_info[1], getattr(sys, "base_prefix", sys.prefix)))

# Looked at each time, written only when the environment is made. Only an environment (pyvenv.cfg) is ever cleared.
$(VENV)/made-by: FORCE
	@if [ "$(origin PYTHON)" = file ] && [ -s $@ ] && [ -x $(VENV)/bin/python ]; then exit 0; fi; \
	fits="$(firstword $(PYTHONS)) to $(lastword $(PYTHONS))"; again="PYTHON=python3.12 make $(or $(MAKECMDGOALS),run)"; \
	who=$$($(PYTHON) -c '$(WHO)') || { \
	    echo "make: $(PYTHON) does not run; install Python $$fits or name the one you have: $$again" >&2; exit 1; }; \
	case "$$(cat $@ 2>/dev/null)" in "$$who") if [ -x $(VENV)/bin/python ]; then exit 0; fi;; esac; \
	case " $(PYTHONS) " in *" $${who%% *} "*) ;; *) \
	    echo "make: $(PYTHON) is Python $${who%% *}; TensorFlow has wheels for $$fits: $$again" >&2; exit 1;; esac; \
	there=$$($(VENV)/bin/python -c '$(WHO)' 2>/dev/null); clear=; \
	if [ -f $(VENV)/pyvenv.cfg ] && [ "$$there" != "$$who" ]; then clear=--clear; fi; \
	echo $(PYTHON) -m venv $$clear $(VENV); $(PYTHON) -m venv $$clear $(VENV) && echo "$$who" >$@

FORCE:

clean:
	rm -rf build $(VENV)
