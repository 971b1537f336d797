import sys

import torch

torch.set_num_threads(1)  # the workers of a parallel run share the cores


def pytest_addoption(parser):
    parser.addoption("--phi", help="module:name of a Φ of your own, for test_exactness.py")


def pytest_configure(config):
    sys.path.append(str(config.invocation_params.dir))  # --phi names a module of that folder
