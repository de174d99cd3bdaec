"""ruby: a Rack application with Sinatra out of Debian, met by its Gemfile; rubygems.org is not needed."""

from __future__ import annotations

from pathlib import Path

import pytest
from modkit import ModuleSite, ModuleSites, base_of, round_trip

from instance import Instance
from instancekit import directory

APP = """
require "sinatra/base"
class Shop < Sinatra::Base
  set :host_authorization, permitted_hosts: []
  get("/") do
    notes = File.join(ENV["DATA_DIR"], "notes")
    "WORD|#{File.exist?(notes) ? File.read(notes) : ""}|#{ENV["RACK_ENV"]}"
  end
end
run Shop
"""
GEMFILE = 'source "https://rubygems.org"\ngem "sinatra"\ngem "puma"\n'


@pytest.mark.turn
def test_sinatra_from_delivery_to_restore(site: ModuleSites, tmp_path: Path) -> None:
    it = site("ruby", content={"config.ru": APP.replace("WORD", "one"), "Gemfile": GEMFILE}, gems="sinatra")
    it.run("/bin/sh", "-c", "printf remember > /data/files/notes")

    def check() -> None:
        assert it.get("/").text == "one|remember|production"

    round_trip(it, check)
    place = directory(tmp_path, {"config.ru": APP.replace("WORD", "two"), "Gemfile": GEMFILE})
    it.cli("update", "--from", str(place))
    assert it.get("/").text.startswith("two|")


def test_found_by_itself(alveole: Instance, site: ModuleSites, tmp_path: Path) -> None:
    place = directory(
        tmp_path, {"config.ru": 'run ->(env) { [200, {"Content-Type" => "text/plain"}, ["plain rack"]] }\n'}
    )
    with base_of(alveole, "found-ruby", ["--from", str(place), "--defaults"]):
        done = alveole.cli("site", "create", "found-ruby", "--from", str(place), "--defaults", seconds=1500)
    it = ModuleSite(alveole, "found-ruby")
    site.made.append(it)
    assert "ruby: config.ru" in done.err
    assert it.get("/").text == "plain rack"
