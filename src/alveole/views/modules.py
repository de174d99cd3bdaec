"""What is shown of modules, their questions and a site's answers; as :mod:`alveole.views`."""

from __future__ import annotations

from alveole.errors import Problem
from alveole.model.site import Answer
from alveole.views import FileChange, View


class ConfigurePlan(View, frozen=True, kw_only=True):
    """What configuring a site anew would do."""

    site: str
    version: int
    modules: dict[str, str]
    """Changed ones only: ``added``, ``removed`` or ``changed``."""
    answers: tuple[AnswerChange, ...]
    files: tuple[FileChange, ...]
    restarts: tuple[str, ...]
    """Processes that start anew because a file of theirs changed."""
    instance: str = ""
    """Why the whole site starts anew instead; empty: it does not."""
    refused: tuple[str, ...] = ()
    """Files in the way."""
    base: str = ""
    """The new base, when it is another."""


class AnswerChange(View, frozen=True, kw_only=True):
    module: str
    question: str
    before: Answer = None
    after: Answer = None


class AnswersView(View, frozen=True, kw_only=True):
    """The answers of a site of modules. Passwords are ``***`` unless they were asked for."""

    site: str
    modules: tuple[str, ...]
    answers: dict[str, dict[str, Answer]]
    given: dict[str, tuple[str, ...]]


class TextView(View, frozen=True, kw_only=True):
    en: str
    fr: str


class ChoiceView(View, frozen=True, kw_only=True):
    value: str
    title: TextView


class QuestionView(View, frozen=True, kw_only=True):
    module: str
    """Empty: a question that is asked once for all modules."""
    name: str
    type: str
    title: TextView
    description: TextView | None = None
    default: Answer = None
    """The answer so far, or what is taken when nobody gives one; never of a password, which is made up then."""
    shown: str = ""
    """The same for a person: ``64M``, ``yes``."""
    required: bool = True
    secret: bool = False
    choices: tuple[ChoiceView, ...] = ()
    min: int | None = None
    max: int | None = None
    pattern: str = ""
    pattern_says: TextView | None = None
    when: str = ""
    """The condition under which it is asked."""
    answered: bool = False
    must: bool = False
    """There is no going on without an answer."""
    problem: str = ""
    """Why the answer, or the default, cannot be taken."""


class QuestionsView(View, frozen=True, kw_only=True):
    """The questions of these modules, in order; those not ``answered`` are still to be asked."""

    modules: tuple[str, ...]
    """Those asked for and those they need, in order of need."""
    questions: tuple[QuestionView, ...]
    problems: tuple[Problem, ...] = ()
    """What is wrong with the answers given so far."""
    plan: str = ""
    """The least plan they need."""


class DetectedView(View, frozen=True, kw_only=True):
    """What runs a content. No ``modules``: it is served as it is."""

    modules: tuple[str, ...]
    why: TextView
    answers: dict[str, Answer] = {}  # noqa: RUF012  a struct's default, copied for each
    """By ``module.question``."""


class ModuleView(View, frozen=True, kw_only=True):
    name: str
    title: TextView
    description: TextView
    category: str
    icon: str
    version: str
    digest: str
    origin: str
    """``alveole``, the directory of one's own modules, or the name of an added source."""
    aliases: tuple[str, ...] = ()
    least_plan: str = ""
    sites: int = 0
    """How many sites have it."""


class ModuleDetail(ModuleView, frozen=True, kw_only=True):
    packages: tuple[str, ...] = ()
    optional_packages: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    """``"apache | nginx"``: one of them."""
    optional: tuple[str, ...] = ()
    """Modules it works with when they are there too."""
    provides: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    update: str = ""
    questions: tuple[QuestionView, ...] = ()
    processes: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    content: bool = False
    """Whether it brings content of its own."""
    example: str = ""
    """A command that makes a site of it."""


class SourceView(View, frozen=True, kw_only=True):
    """Modules that were added from elsewhere."""

    name: str
    source: str
    pin: str
    """A commit id, or the digest of the archive."""
    signer: str
    """Who signed it, as the allowed-signers file names them."""
    modules: tuple[str, ...]
    added_at: float
    added_by: str
    problem: str = ""
