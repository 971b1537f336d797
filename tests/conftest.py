import torch

torch.set_num_threads(1)  # the workers of a parallel run share the cores
