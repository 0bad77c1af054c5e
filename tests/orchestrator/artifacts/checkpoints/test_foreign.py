"""Models of diffusers as checkpoints of the store, and back."""

from pathlib import Path

import pytest
import torch

from ddpm.training.checkpoint import load_model
from orchestrator.artifacts.checkpoints.foreign import (
    drop_imported,
    export_folder,
    import_folder,
    imported_models,
)
from orchestrator.artifacts.checkpoints.references import hold_model
from orchestrator.artifacts.checkpoints.resolve import fetch_model, resolve_model
from orchestrator.client.garbage import collect_garbage
from orchestrator.errors import BadInputError, JobNotFoundError
from orchestrator.specs.sections import ModelRef
from tests.support.fakes import MemoryStore
from tests.support.foreign_models import CLASS_NAMES, write_small_folder


class _S3(MemoryStore):
    """Has addresses as job files name them."""

    uri = "s3://bucket/prefix"


def test_an_imported_folder_is_a_checkpoint_that_is_drawn_from_and_goes_out_again(
    tmp_path: Path,
) -> None:
    """The same path as that of a trained one, to the bit and with its classes."""
    store, folder = _S3(), write_small_folder(tmp_path, num_classes=3)
    model = import_folder(store, folder)
    assert import_folder(store, folder) == model
    assert list(imported_models(store)) == [model]
    ref = ModelRef(checkpoint=model.checkpoint)
    resolved = resolve_model(store, ref)
    network, info = load_model(fetch_model(store, resolved).folder, weights=resolved.weights)
    assert info.fixed["class_names"] == list(CLASS_NAMES)
    own, _ = load_model(tmp_path / "own")
    assert all(
        torch.equal(a, b) for a, b in zip(own.parameters(), network.parameters(), strict=True)
    )
    export_folder(store, ref, tmp_path / "again")
    name = Path("unet") / "diffusion_pytorch_model.safetensors"
    assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_a_folder_that_holds_something_is_not_written_into(tmp_path: Path) -> None:
    """A typo in --output must not mix two models."""
    store, folder = _S3(), write_small_folder(tmp_path)
    ref = ModelRef(checkpoint=import_folder(store, folder).checkpoint)
    with pytest.raises(BadInputError, match="holds something already"):
        export_folder(store, ref, folder)


def test_a_name_means_one_model(tmp_path: Path) -> None:
    """Whoever draws from a name by its address must get what was there yesterday."""
    store = _S3()
    import_folder(store, write_small_folder(tmp_path / "a"), name="cats")
    with pytest.raises(BadInputError, match="another model already"):
        import_folder(store, write_small_folder(tmp_path / "b", norm_eps=1e-5), name="cats")


def test_an_imported_model_goes_when_no_job_needs_it(tmp_path: Path) -> None:
    """And `gc` leaves it alone, though no job made it."""
    store = _S3()
    model = import_folder(store, write_small_folder(tmp_path))
    resolved = resolve_model(store, ModelRef(checkpoint=model.checkpoint))
    hold_model(store, resolved, "cats-samples")
    collect_garbage(store)
    with pytest.raises(BadInputError, match="needed by cats-samples"):
        drop_imported(store, model.name)
    store.delete(next(i.key for i in store.list_objects("") if "/references/" in i.key))
    drop_imported(store, model.name)
    assert list(store.list_objects("jobs/")) == []
    with pytest.raises(JobNotFoundError):
        drop_imported(store, model.name)
