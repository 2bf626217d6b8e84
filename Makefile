# make run: execute the notebook; make lab: open it; make test: lint and test. Each makes .venv first where it is missing.
# PARAMETERS="DATASET=camvid DATA_DIR=..." changes parameters of the notebook.
PYTHON ?= python3
VENV := .venv
PARAMETERS ?=

.PHONY: run lab test clean

run: $(VENV)/installed
	$(VENV)/bin/python run_notebook.py $(PARAMETERS)

lab: $(VENV)/installed
	$(VENV)/bin/jupyter lab segmentation_unet.ipynb

test: $(VENV)/installed-tests
	$(VENV)/bin/ruff check .
	$(VENV)/bin/python -m pytest

# The stamp is made last: an installation that was interrupted is done again.
$(VENV)/installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --requirement requirements.txt
	touch $@

$(VENV)/installed-tests: $(VENV)/installed tests/requirements.txt
	$(VENV)/bin/python -m pip install --quiet --requirement tests/requirements.txt
	touch $@

clean:
	rm -rf build $(VENV)
