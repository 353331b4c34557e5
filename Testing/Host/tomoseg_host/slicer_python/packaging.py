"""``slicer.packaging``: asking for Python packages.

The host never installs anything: requirements that are met pass, others raise, so that a test sees
what a module asks for (`requested`).
"""

import importlib.metadata
import logging
import re

from packaging.requirements import Requirement

#: Everything that modules asked to install, in order.
requested: list[str] = []


def _requirements(requirements: object) -> list[Requirement]:
    if isinstance(requirements, str | Requirement):
        requirements = [requirements]
    return [each if isinstance(each, Requirement) else Requirement(each) for each in requirements]


def load_requirements(path: object) -> list[Requirement]:
    """The requirements of a text file."""
    with open(path, encoding="utf-8") as lines:
        texts = [re.sub(r"(^|\s)#.*$", "", line).strip() for line in lines]
    return [Requirement(text) for text in texts if text and not text.startswith("-")]


def load_pyproject_dependencies(path: object) -> list[Requirement]:
    """The dependencies of a ``pyproject.toml``."""
    import tomllib

    with open(path, "rb") as file:
        project = tomllib.load(file).get("project", {})
    return [Requirement(text) for text in project.get("dependencies", [])]


def pip_check(requirements: object) -> bool:
    """Whether all requirements are met."""
    for requirement in _requirements(requirements):
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            return False
        if not requirement.specifier.contains(version, prereleases=True):
            return False
    return True


def pip_ensure(requirements: object, *_: object, **__: object) -> bool:
    """Nothing where the requirements are met; otherwise what `pip_install` does."""
    if not pip_check(requirements):
        pip_install(requirements)
    return True


def pip_install(requirements: object, *_: object, **__: object) -> None:
    """Note what was asked for, and refuse."""
    texts = (
        [requirements] if isinstance(requirements, str) else [str(each) for each in requirements]
    )
    requested.extend(texts)
    logging.info("The host was asked to install %s", ", ".join(texts))
    raise RuntimeError(f"the host installs nothing; asked for: {', '.join(texts)}")


def pip_uninstall(requirements: object, *_: object, **__: object) -> None:
    """Refuse."""
    raise RuntimeError(f"the host uninstalls nothing; asked for: {requirements}")


def isPipInstallInProgress() -> bool:  # noqa: N802
    """Never."""
    return False
