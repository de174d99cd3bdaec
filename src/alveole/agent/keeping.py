"""What the agent does with backups beyond making and restoring them whole: verbs of :mod:`alveole.agent.saving`."""

from __future__ import annotations

from typing import Any

from alveole.actuators.backups import Backups
from alveole.agent import saving
from alveole.agent.agent import Verb
from alveole.config import Settings
from alveole.errors import InvalidInput
from alveole.host.sandbox import Sandbox


def verbs(settings: Settings, sandbox: Sandbox, backups: Backups) -> dict[type, Verb]:
    kept = backups.repository

    # What looks into archives, and what saves the platform, is loaded when somebody asks for it.
    def look(request: Any, files: list[int], say: Any) -> Any:
        from alveole.actuators.browsing import Browser

        browser = Browser(settings, sandbox, backups)
        if isinstance(request, saving.BrowseBackup):
            return browser.browse(request)
        if isinstance(request, saving.FetchBackup):
            return browser.fetch(request, _one(files), say)
        return browser.put_back(request, say)

    def platform(request: saving.SavePlatform, files: list[int], say: Any) -> saving.BackupMade:
        from alveole.actuators.platform_backup import PlatformBackup

        return PlatformBackup(settings, kept).save(request.id, _one(files), say)

    def beside(request: saving.SaveKept, _files: list[int], say: Any) -> saving.KeptSaved:
        from alveole.actuators.kept import Kept

        return Kept(settings, sandbox, kept).save(request, say)

    return {
        saving.PruneBackups: lambda _r, _f, _s: kept.prune(),
        saving.CopyBackup: lambda r, _f, _s: kept.copy(r.id, r.snapshot, r.to),
        saving.TakeBackup: lambda r, f, s: backups.take(r, _one(f), s),
        saving.BrowseBackup: look,
        saving.FetchBackup: look,
        saving.RestoreFile: look,
        saving.PutRepository: lambda r, _f, _s: kept.put(r),
        saving.NewRepositoryKey: lambda r, _f, _s: kept.new_key(r.name),
        saving.ListRepositories: lambda _r, _f, _s: kept.states(),
        saving.CheckRepository: lambda r, _f, _s: kept.check(r.name),
        saving.UseRepository: lambda r, _f, _s: kept.use(r.name),
        saving.ForgetRepository: lambda r, _f, _s: kept.forget(r.name),
        saving.BackupKey: lambda _r, _f, _s: kept.key(),
        saving.SavePlatform: platform,
        saving.SaveKept: beside,
    }


def _one(files: list[int]) -> int:
    if len(files) != 1:
        raise InvalidInput(f"comes with {len(files)} files instead of one", field="request")
    return files[0]
