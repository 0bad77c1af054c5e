"""Evaluations that have ended, in a store, without images or a fleet."""

import json
from typing import Any

import numpy as np

from orchestrator.artifacts.images import encode_png
from orchestrator.specs.evaluate import EvaluateJob, SetRef
from orchestrator.store.keys import JobPaths
from tests.support.fakes import MemoryStore


def put_evaluation(store: MemoryStore, job_id: str, samples: str, kid: float) -> None:
    """Put an evaluation that has ended."""
    spec = EvaluateJob(
        kind="evaluate", name=job_id, of=SetRef(job=samples), against=SetRef(job="t")
    )
    store.put(JobPaths(job_id).spec, spec.model_dump_json().encode())
    score: dict[str, Any] = {"value": kid, "spread": 0.001, "floor": 0.0, "floor_spread": 0.002}
    score |= {"floor_images": 50, "num_samples": 90, "num_reference": 90, "k": None}
    shares = {**score, "value": 0.9, "floor": 0.95, "k": 5}
    result = {
        "format_version": 1,
        "of": {"job_id": samples},
        "against": {"name": "<digits>"},
        "extractor": {"name": "pixels"},
        "scores": {"kid-pixels": score, "precision-pixels": shares, "coverage-pixels": shares},
        "memorisation": {"authentic_share": 0.7},
        "classes": {
            "names": ["zero", "one"],
            "shares": [0.625, 0.375],
            "real_shares": [0.5, 0.5],
            "accuracy": 0.9,
            "num_held_out": 30,
            "k": 5,
        },
        "speed": {"mean_images_per_s": 100.0},
    }
    store.put(JobPaths(job_id).evaluation, json.dumps(result).encode())
    png = encode_png(np.zeros((4, 4, 1), np.uint8))
    store.put(f"{JobPaths(job_id).folder}evaluation-nearest.png", png)
    store.put(f"{JobPaths(samples).samples}grid.png", png)
