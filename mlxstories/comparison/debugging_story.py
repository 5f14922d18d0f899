"""The figures of the debugging story that this project grew out of, shown beside what is measured here."""

from __future__ import annotations

MINIMAL = (10, 0.667)  # updates, and accuracy on 4 stories after them
SWEEP = {1e-5: 0.0, 3e-4: 0.35, 1e-3: 1.0}  # accuracy by learning rate
EPOCHS = {1: 0.331, 3: 0.931, 5: 0.993, 20: 0.999}  # validation accuracy of phase 1 after so many epochs
SHORT = {"phase 1": (0.203, 4.57), "phase 2": (0.184, 4.84)}  # accuracy and validation loss of a short run
