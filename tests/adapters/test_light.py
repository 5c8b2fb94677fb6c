"""Light modules: nn.Modules in all, but for the dictionaries of hooks that nobody has asked for."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from actshift import LowRank
from actshift.adapters.light import LightLinear, LightModule, lighten

X = torch.ones(2, 6)


def hook_dictionaries(module: nn.Module) -> list[str]:
    return [name for name in vars(module) if "hooks" in name]


def test_a_fresh_adapter_has_none_and_the_state_of_plain_modules():
    shift = LowRank(rank=2).build(6)
    lighten(shift)
    assert not any(hook_dictionaries(part) for part in shift.modules())
    assert all(isinstance(part, LightModule) for part in shift.modules())
    assert isinstance(shift.down, nn.Linear) and list(shift.state_dict()) == ["down.weight", "up.weight"]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_are_light_and_keep_their_hooks(copied):
    module = LightLinear(6, 2)
    assert not hook_dictionaries(copied(module))
    module.register_forward_hook(zeros)
    assert not copied(module)(X).any() and len(copied(module)._forward_hooks) == 1


def zeros(module, args, output):
    return torch.zeros_like(output)


def test_every_kind_of_hook_runs_and_is_removed():
    module, ran = LightLinear(6, 2), []
    handles = [
        module.register_forward_pre_hook(lambda *args: ran.append("before")),
        module.register_forward_hook(lambda *args, **kwargs: ran.append("after"), with_kwargs=True, always_call=True),
        module.register_full_backward_pre_hook(lambda *args: ran.append("back")),
        module.register_full_backward_hook(lambda *args: ran.append("through")),
        module.register_state_dict_pre_hook(lambda *args: ran.append("saving")),
        module.register_state_dict_post_hook(lambda *args: ran.append("saved")),
        module.register_load_state_dict_pre_hook(lambda *args: ran.append("loading")),
        module.register_load_state_dict_post_hook(lambda *args: ran.append("loaded")),
    ]

    def use():
        module(X.clone().requires_grad_()).sum().backward()
        module.load_state_dict(module.state_dict())

    module.lighten()  # keeps what is in use
    use()
    assert ran == ["before", "after", "back", "through", "saving", "saved", "loading", "loaded"]
    for handle in handles:
        handle.remove()
    use()
    assert len(ran) == 8
    module.lighten()
    assert not hook_dictionaries(module)


@pytest.mark.parametrize("register", ["forward", "forward_pre", "full_backward", "full_backward_pre"])
def test_a_hook_of_any_kind_is_seen_before_its_call_is_left_out(register):
    shift = LowRank(rank=2).build(6)
    assert shift.factors() is not None
    for part in (shift, shift.down, shift.up):
        handle = getattr(part, f"register_{register}_hook")(lambda *args: None)
        lighten(shift)
        assert shift.factors() is None
        handle.remove()
        assert shift.factors() is not None


def test_buffers_of_either_kind_are_kept():
    module = LightModule()
    module.register_buffer("lasting", X.clone())
    module.register_buffer("passing", X.clone(), persistent=False)
    module.lighten()
    assert list(module.state_dict()) == ["lasting"] and len(list(module.buffers())) == 2
