"""The orthogonality rule of a joint adapter on one model: set it up, enforce it and measure it."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any, cast

from torch import nn

from actshift.adapters import Shift
from actshift.errors import ActshiftError
from actshift.orthogonality import Orthogonality, violation
from actshift.sites import SITES, OutputMap, mlp_outputs
from actshift.tuner.config import JointConfig
from actshift.tuner.intervention import Target
from actshift.tuner.joint.constraint import Constraint, OrthogonalPair, project
from actshift.tuner.layer import build_shift, layer_at, steering_layers

CONSTRAINED_SITES = tuple(name for name, site in SITES.items() if site.written_by_mlp)
Writers = dict[int, list[OutputMap]]  # the MLP output maps that LoRA adapts, by block index


def enforce(model: nn.Module, adapter_name: str | None = None) -> None:
    """Project the joint adapters of a model: W_down ← W_down (I - QQᵀ).

    Training does this automatically. Call it after you edit weights by hand, and at the end of training under a rule
    that projects every k steps or epochs. It ignores rules with a `penalty`. `adapter_name` None is all adapters,
    including frozen ones.

    Raises:
        ActshiftError: if the model or the adapter has no orthogonality rule.

    Source: arXiv 2603.00425, joint adaptation; docs/method.md#joint-rule.

    >>> enforce(model)  # doctest: +SKIP
    """
    constrained = [(rule, pair) for _, rule, pair in _constrained_pairs(model, adapter_name) if rule.orthogonality]
    if not constrained:
        owner = type(model).__name__ if adapter_name is None else f"The adapter {adapter_name!r}"
        raise ActshiftError(f"{owner} has no orthogonality rule; attach a JointConfig with one.")
    project(pair for constraint, pair in constrained if constraint.period)


def orthogonality_violations(model: nn.Module) -> dict[str, float]:
    """Return for each steering layer, by name, how much its adapters violate the rule: 0 (orthogonal) to 1.

    The figure is `actshift.orthogonality.violation`: the largest share of a row of W_down that lies in col(B), for the
    worst adapter of the layer. For `orthogonality=None` it is measured for the paper's rule, which is not enforced.

    Raises:
        ActshiftError: if the model has no joint adapter.

    Source: this project, docs/method.md#joint-rule.

    >>> max(orthogonality_violations(model).values())  # doctest: +SKIP
    1.4e-08
    """
    figures: dict[str, float] = {}
    for name, _, pair in _constrained_pairs(model, None):
        figure = violation(*pair.stacked()) if pair.rows and pair.columns else 0.0
        figures[name] = figure if figure != figure else max(figures.get(name, 0.0), figure)  # keep NaN
    if not figures:
        raise ActshiftError(f"{type(model).__name__} has no joint adapter; attach one with JointConfig.")
    return figures


def _constrained_pairs(model: nn.Module, adapter_name: str | None) -> Iterator[tuple[str, Constraint, OrthogonalPair]]:
    for layer_name, layer in steering_layers(model).items():
        for name, constraint in layer.constraints.items():
            if adapter_name in (None, name):
                shift = cast(Shift, layer.lora_steer[name])
                yield layer_name, constraint, OrthogonalPair(constraint.rows(shift), constraint.columns(name))


def find_writers(
    model: nn.Module, config: JointConfig, targets: list[Target], adapts: Callable[[str], bool]
) -> Writers:
    """Return the MLP output maps of the steered blocks that LoRA adapts.

    `model` is not adapted yet, and `adapts` returns True for the name of a module that LoRA will adapt. Warns if LoRA
    adapts the maps of some steered blocks only. Without a rule nothing is checked.

    Raises:
        ActshiftError: if the rule cannot apply: a site that it does not constrain, an adapter without a matrix to
            constrain, no steered block with LoRA on its MLP output map, or LoRA columns that span the whole width.
    """
    rule = config.rule
    if rule is not None:
        for target in targets:
            _check_constrainable(target, rule)
    layers = sorted({target.host.layer for target in targets if target.host.site in CONSTRAINED_SITES})
    try:
        maps = mlp_outputs(model, layers, config.blocks) if layers else []
    except ActshiftError:
        if rule is None:
            return {}
        raise
    experts = tuple(config.target_parameters or ())
    writers: Writers = {}
    for output in maps:
        if output.name.endswith(experts) if output.parameter else adapts(output.name):
            writers.setdefault(output.layer, []).append(output)
    if rule is not None:
        _check_writers(config, layers, writers, maps[0])
    return writers


def constrain(
    model: nn.Module, adapter_name: str, config: JointConfig, targets: list[Target], writers: Writers
) -> None:
    """Give every steering layer its constraint to the LoRA layers of its block, and enforce it on the fresh weights."""
    for target in targets:
        host = target.host
        if host.layer in writers and host.site in CONSTRAINED_SITES:
            modules = [_lora_layer(model, output) for output in writers[host.layer]]
            layer_at(host).constraints[adapter_name] = Constraint(config.rule, modules, host.width)
    if config.rule is not None and not any(parameter.is_meta for parameter in model.parameters()):
        enforce(model, adapter_name)


def _check_constrainable(target: Target, rule: Orthogonality) -> None:
    if target.host.site not in CONSTRAINED_SITES:
        sites = " and ".join(CONSTRAINED_SITES)
        raise _no_rule(f"it applies to {sites}, and this adapter steers {target.host.site}", "Steer one of these sites")
    shift = build_shift(target)
    for constrained, tensors, verb in ((rule.reads, shift.reads(), "reads"), (rule.writes, shift.writes(), "writes")):
        if constrained and not tensors:
            side = "Orthogonality(side=...)" if shift.reads() or shift.writes() else "another adapter"
            raise _no_rule(f"{target.intervention.adapter} {verb} through no matrix", f"Use LowRank or {side}")


def _check_writers(config: JointConfig, layers: list[int], writers: Writers, example: OutputMap) -> None:
    """Check that there are columns of LoRA, and that they do not span the whole width, as with many experts."""
    if not writers:
        problem = f"there is nothing to be orthogonal to, as no steered block has LoRA on {example.name}"
        raise _no_rule(problem, f"Add it to {'target_parameters' if example.parameter else 'target_modules'}")
    if free := [str(layer) for layer in layers if layer not in writers]:
        blocks = f"blocks {', '.join(free)}: they have no LoRA on their MLP output map"
        warnings.warn(f"The orthogonality rule does not apply to {blocks}.", stacklevel=2)
    for layer, maps in writers.items():
        experts = [len(output.module.get_parameter(output.parameter)) if output.parameter else 1 for output in maps]
        columns, width = config.r * sum(experts), maps[0].width
        if columns >= width:
            problem = f"LoRA on the MLP output maps of block {layer} can write {columns} directions of {width}"
            raise _no_rule(problem, "Lower r, remove the experts from target_parameters")


def _no_rule(problem: str, fix: str) -> ActshiftError:
    return ActshiftError(f"The orthogonality rule cannot apply: {problem}. {fix}, or pass orthogonality=None.")


def _lora_layer(model: nn.Module, output: OutputMap) -> nn.Module:
    """Return the LoRA layer around a map. PEFT nests one wrapper for each adapted parameter of a module of experts."""
    if output.parameter is None:
        return model.get_submodule(output.name)
    module: Any = model.get_submodule(output.name.rpartition(".")[0])
    while getattr(module, "parameter_name", output.parameter) != output.parameter:
        module = module.base_layer
    return module
