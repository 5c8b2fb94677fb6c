"""Interventions from a file, as `actshift locate --budget --out` writes it."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING

from actshift.errors import ActshiftError
from actshift.training.settings import TrainSettings, read_config_file
from actshift.training.settings.train_settings import ADAPTER, SHIFT

if TYPE_CHECKING:
    from actshift.tuner import Intervention


def interventions_of(settings: TrainSettings) -> tuple[Intervention, ...]:
    """Return the interventions in the file that the settings name, begun as their `init` says if it says anything.

    Raises ActshiftError where there is no such file or it holds none, and for settings that say the same as it does.
    """
    from actshift.adapters import LowRank
    from actshift.tuner.intervention import interventions_from

    for item in fields(settings):
        ours = item.metadata["panel"] in (SHIFT, ADAPTER) and item.name not in ("interventions", "init")
        if ours and getattr(settings, item.name) != item.default:
            raise ActshiftError(
                f"interventions names a file that says where and how to steer, and so does {item.name}; give one."
            )
    values = read_config_file(str(settings.interventions))
    if set(values) != {"interventions"}:
        raise ActshiftError(
            f"{settings.interventions} holds {', '.join(values) or 'nothing'}, where one list called interventions "
            "belongs; actshift locate --budget --out writes such a file."
        )
    found = interventions_from(values["interventions"])
    if settings.init == "default":
        return found
    return tuple(
        replace(one, adapter=replace(one.adapter, init=settings.init)) if isinstance(one.adapter, LowRank) else one
        for one in found
    )
