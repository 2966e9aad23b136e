"""Started by torch.distributed.run: trains every case, and writes what the first process ends with."""

import sys

import torch

import kdutils as kd
from tests.training.contract.cases import CASES, OPTIONS, SUMMED, state

torch.set_num_threads(1)
ended = {}
for name, case in CASES.items():
    objective = case.built()
    kd.fit(objective, case.source(), **{**OPTIONS, **case.options, **SUMMED})
    ended[name] = state(objective)
if torch.distributed.get_rank() == 0:
    torch.save(ended, sys.argv[1])
