"""What is stored of applications → what people see of it."""

from __future__ import annotations

import msgspec

from alveole.model.app import Deployment, Stage, Version
from alveole.model.site import Backup
from alveole.views.apps import DeploymentView, SavedView, VersionView


def saved_view(backup: Backup | None) -> SavedView | None:
    return SavedView(backup.id, backup.bytes, backup.created_at) if backup is not None else None


def deployment_view(each: Deployment) -> DeploymentView:
    return DeploymentView(
        id=each.id,
        environment=each.environment,
        version=each.name,
        stage=each.stage,
        created_at=each.created_at,
        by=each.by,
        change=each.change,
        approvals=each.approvals,
        live_at=each.live_at,
        left_at=each.left_at,
        went_back=each.went_back,
        backup=each.backup,
    )


def version_view(each: Version, history: tuple[Deployment, ...]) -> VersionView:
    def at(stage: Stage) -> tuple[str, ...]:
        return tuple(
            dict.fromkeys(found.environment for found in history if found.version == each.id and found.stage is stage)
        )

    names = {field.name for field in msgspec.structs.fields(VersionView)} - {"built", "live", "delivered"}
    return VersionView(
        **{name: getattr(each, name) for name in names},
        built=each.built is not None and each.built != each.release,
        live=at(Stage.LIVE),
        delivered=at(Stage.DELIVERED),
    )
