"""The orthogonality rule with tensors sharded by FSDP2, on two processes."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from actshift import Orthogonality, orthogonality_violations
from tests.tuner.test_joint_rule import OPTIMIZERS, joint, train


def _compare(rank: int, world: int, meeting: str, rule: Orthogonality) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    sharded = joint(rule=rule)
    unsharded = copy.deepcopy(sharded)
    mesh = init_device_mesh("cpu", (world,))
    for block in sharded.base_model.model.model.layers:
        fully_shard(block, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    for model in (sharded, unsharded):
        train(model, OPTIMIZERS["sgd"])
    for shard, parameter in zip(sharded.parameters(), unsharded.parameters(), strict=True):
        torch.testing.assert_close(shard.full_tensor(), parameter.data, atol=1e-6, rtol=1e-5)
    assert (max(orthogonality_violations(sharded).values()) <= 1e-5) == (rule.penalty is None)
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("rule", [Orthogonality("both"), Orthogonality("both", penalty=1.0)])
def test_two_ranks_train_as_one_process(tmp_path, rule):
    torch.multiprocessing.spawn(_compare, (2, str(tmp_path / "meeting"), rule), nprocs=2)
