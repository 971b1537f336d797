import sys

import torch

torch.set_num_threads(1)  # the workers of a parallel run share the cores


def pytest_addoption(parser):
    for part, what in {
        "phi": "Φ",
        "baseline": "baseline",
        "importance": "importance weight",
    }.items():
        told = f"module:name of a {what} of your own, for test_exactness.py"
        parser.addoption(f"--{part}", help=told)


def pytest_configure(config):
    sys.path.append(
        str(config.invocation_params.dir)
    )  # --phi and others name a module of that folder
