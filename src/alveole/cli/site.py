"""``alveole site``: the group alone; each of its commands is imported when it is used."""

from __future__ import annotations

import click

from alveole.cli.verbs import Tree


@click.group(
    "site",
    cls=Tree,
    lazy={
        "create": ("alveole.cli.create:create", "Create a site and start it."),
        "list": ("alveole.cli.show:list_", "List all sites, by name."),
        "show": ("alveole.cli.show:show", "Show one site: state, addresses, limits, promises."),
        "start": ("alveole.cli.states:start", "Start a stopped site and wait until it answers."),
        "stop": ("alveole.cli.states:stop", "Stop a site; its names answer 503."),
        "restart": ("alveole.cli.states:restart", "Start a running site anew."),
        "sleep": ("alveole.cli.states:sleep", "Let a site sleep until somebody visits it."),
        "update": ("alveole.cli.create:update", "Give a site new content; no request fails."),
        "work": ("alveole.cli.work:work", "Show what was changed by SFTP."),
        "files": ("alveole.cli.files:group", "Files of a site: list, read, send, move, delete."),
        "publish": ("alveole.cli.work:publish", "Make a release of what was changed by SFTP."),
        "set": ("alveole.cli.create:set_", "Change a site's configuration."),
        "domain": ("alveole.cli.domain:group", "Domains of a site: add, claim, prove, remove."),
        "configure": ("alveole.cli.configure:configure", "Give a site of modules other answers or modules."),
        "answers": ("alveole.cli.configure:show_answers", "Show the answers of a site of modules."),
        "rename": ("alveole.cli.states:rename", "Give a site another name."),
        "share": ("alveole.cli.team:share", "Let a person or a team look at a site, or work on it."),
        "give": ("alveole.cli.team:give", "Give a site to another person or team."),
        "move": ("alveole.cli.node:move", "Bring a site with its data to another machine."),
        "confirm": ("alveole.cli.node:confirm", "Remove the copies that moves have left."),
        "export": ("alveole.cli.carry:export", "Write a site into one signed file."),
        "import": ("alveole.cli.carry:import_", "Make a site of such a file."),
        "destroy": ("alveole.cli.states:destroy", "Destroy a stopped site for good."),
        "promises": ("alveole.cli.incident:promises", "Show what is promised, and how it is kept."),
        "logs": ("alveole.cli.logs:logs", "Show or follow what a site prints."),
        "exec": ("alveole.cli.execute:exec_", "Run a program inside a site."),
    },
)
def group() -> None:
    """Create, change, look into and destroy sites."""
