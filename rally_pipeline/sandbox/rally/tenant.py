"""What a tenant has besides records: users who own them, pipelines with stages."""

from __future__ import annotations

import random
from dataclasses import dataclass

from .guids import draw_guid

DEFAULT_STAGES = (
    ("Lead", 10),
    ("Qualified", 25),
    ("Proposal", 50),
    ("Negotiation", 75),
    ("Closed Won", 100),
    ("Closed Lost", 0),
)
_RENEWAL_STAGES = (("Upcoming", 40), ("Contacted", 60), ("Renewed", 100), ("Churned", 0))
_STATUS_OF_STAGE = {"Closed Won": "won", "Closed Lost": "lost", "Renewed": "won", "Churned": "lost"}
_OWNERS = (
    "Pat Lindqvist",
    "Ines Okafor",
    "Tomás Núñez",
    "Aiko Tanaka",
    "Dana Weiss",
    "Yusuf Demir",
    "Marie Lefèvre",
    "Oleksandra Koval",
)


@dataclass(frozen=True, slots=True)
class Owner:
    """A user of the tenant."""

    id: str
    name: str
    email: str


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a pipeline; `probability` in percent."""

    id: str
    name: str
    probability: int
    order: int

    @property
    def status(self) -> str:
        """The status of a deal in this stage."""
        return _STATUS_OF_STAGE.get(self.name, "open")


@dataclass(frozen=True, slots=True)
class Pipeline:
    """An ordered list of stages."""

    id: str
    name: str
    is_default: bool
    stages: tuple[Stage, ...]

    def as_json(self) -> dict[str, object]:
        """The pipeline as `GET /pipelines` shows it."""
        stages = [
            {"id": stage.id, "name": stage.name, "probability": stage.probability, "order": stage.order}
            for stage in self.stages
        ]
        return {"id": self.id, "name": self.name, "isDefault": self.is_default, "stages": stages}


class Tenant:
    """The tenant's id, users and pipelines, made from seeded dice."""

    def __init__(self, dice: random.Random) -> None:
        self.id = draw_guid(dice)
        self.owners = tuple(
            Owner(
                draw_guid(dice),
                name,
                f"{name.split()[0].lower().encode('ascii', 'ignore').decode()}@example.org",
            )
            for name in _OWNERS
        )
        self.pipelines = (
            _make_pipeline(dice, "Sales", True, DEFAULT_STAGES),
            _make_pipeline(dice, "Renewals", False, _RENEWAL_STAGES),
        )

    def owner(self, owner_id: str | None) -> Owner | None:
        return next((owner for owner in self.owners if owner.id == owner_id), None)

    def pipeline(self, pipeline_id: str | None) -> Pipeline | None:
        return next((pipeline for pipeline in self.pipelines if pipeline.id == pipeline_id), None)

    def stage(self, stage_id: str | None) -> tuple[Pipeline, Stage] | None:
        """The stage with its pipeline."""
        for pipeline in self.pipelines:
            for stage in pipeline.stages:
                if stage.id == stage_id:
                    return pipeline, stage
        return None


def _make_pipeline(
    dice: random.Random, name: str, is_default: bool, stages: tuple[tuple[str, int], ...]
) -> Pipeline:
    made = tuple(
        Stage(draw_guid(dice), stage, probability, order)
        for order, (stage, probability) in enumerate(stages, 1)
    )
    return Pipeline(draw_guid(dice), name, is_default, made)
