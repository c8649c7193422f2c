"""Fills the store of a project with the answers that the endpoint would give, and asks nothing.

To ask 100,000 times takes a quarter of an hour and measures nothing; what is measured is the run
after it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from behaviour import Behaviour

from pytest_mirsafety.images import ImageLimits, ImageReader
from pytest_mirsafety.planning import prepare
from pytest_mirsafety.records import Completion, Instance, Request
from pytest_mirsafety.run_plan import RunOptions, RunPlan
from pytest_mirsafety.store import SQLiteStore

_AT_ONCE: Final = 1000


def fill(project: Path, model: str, behaviour: Behaviour) -> None:
    """Store the answers that a run of this project would ask for.

    Raises:
        RunError: the project's configuration or its data are wrong.
    """
    plan = prepare(RunOptions(model=model), project, os.environ)
    with SQLiteStore.open(plan.store) as store:
        images = ImageReader(ImageLimits(), store)
        for start in range(0, len(plan.instances), _AT_ONCE):
            some = plan.instances[start : start + _AT_ONCE]
            requests = [_request(plan, images, instance) for instance in some]
            store.put_all([(r, _completion(behaviour.answer(r.prompt))) for r in requests])


def _request(plan: RunPlan, images: ImageReader, instance: Instance) -> Request:
    backend = plan.backend
    return Request(
        model=backend.identity,
        prompt=instance.prompt,
        images=tuple(images.inspect(ref).sha256 for ref in instance.images),
        system=backend.system,
        decoding=backend.decoding,
    )


def _completion(text: str) -> Completion:
    return Completion(text, "stop", input_tokens=11, output_tokens=7, created=time.time())
