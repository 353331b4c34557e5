"""Jobs about models: importing one into the user's store, and looking whether one is sound.

A model may come from anybody. Reading it in a process of its own keeps a hostile or huge one away
from the program that asks, which need not have torch either.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from TomoSegLib.errors import TomoSegError
from TomoSegLib.jobs.document import ImportModelJob, VerifyModelJob
from TomoSegLib.jobs.events import ResultEvent
from TomoSegLib.jobs.report import Reporter
from TomoSegLib.jobs.scratch import Scratch
from TomoSegLib.models.folder import (
    ModelFolder,
    model_hash,
    put_in_place,
    refuse_existing,
    unwritable,
)
from TomoSegLib.models.importing import import_model
from TomoSegLib.models.locations import user_models_folder
from TomoSegLib.models.verification import check_model


class StoreScratch(Scratch):
    """The working folder of an import, in the user's store: the worker moves the model in place.

    So a job that is cancelled leaves the store as it was, whatever it was doing.

    Raises:
        TomoSegError: ``model-unwritable``.
    """

    def __init__(self, replace: bool) -> None:
        self._replace = replace
        try:
            super().__init__(user_models_folder(), ())
        except TomoSegError as error:
            raise TomoSegError("model-unwritable", error.message, error.hint) from None

    def commit(self) -> None:
        """Give the imported model its name; there is none if it was there already.

        Raises:
            TomoSegError: ``model-exists``, ``model-unwritable``.
        """
        for new in list(self.results.iterdir()):
            folder = self.output / new.name
            refuse_existing(folder, self._replace)  # another import may have been quicker
            try:
                self.output.mkdir(parents=True, exist_ok=True)
                put_in_place(new, folder)
            except OSError as error:
                raise unwritable(folder, error) from None
        self.discard()


def import_into(work: Path, job: ImportModelJob, report: Reporter) -> ResultEvent:
    """Leave the checked model in a working folder, under the name that it gets in the store.

    Returns:
        The event with the place that the model gets, and ``name``, ``version``, ``hash``,
        ``folder`` and ``card``.

    Raises:
        TomoSegError: From `import_model`.
    """
    with report.stage("import"):
        model = import_model(job.source, replace=job.replace, work=work)
    return ResultEvent(
        str(model.path), {**_facts(model), "card": model.card.model_dump(mode="json")}
    )


def verify(job: VerifyModelJob, report: Reporter) -> ResultEvent:
    """Look at everything that can be wrong with a model.

    Returns:
        The event with ``ok``, ``checks`` (each with ``what``, ``ok``, ``why``, ``code`` and
        ``hint``, see `TomoSegLib.models.verification.Check`) and, where its card is valid,
        ``name``, ``version``, ``hash`` and ``folder``.

    Raises:
        TomoSegError: ``model-unknown``.
    """
    with report.stage("verify", 0) as progress:
        model, checks = check_model(job.model, progress)
    return ResultEvent(
        data={
            **({} if model is None else _facts(model)),
            "ok": all(check.ok for check in checks),
            "checks": [dataclasses.asdict(check) for check in checks],
        }
    )


def _facts(model: ModelFolder) -> dict[str, str]:
    return {
        "name": model.name,
        "version": model.card.version,
        "hash": model_hash(model),
        "folder": str(model.path),
    }
