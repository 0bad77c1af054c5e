"""What other tools call the fields of job files: the hint that a newcomer needs."""

from collections.abc import Iterator

_NAMES = {
    "training.learning_rate": "lr base_lr max_lr peak_lr",
    "training.global_batch_size": "batch_size batch train_batch_size per_device_train_batch_size",
    "training.num_steps": "steps max_steps train_steps num_train_steps max_train_steps iterations "
    "num_iterations n_iter total_steps epochs num_epochs max_epochs n_epochs train_epochs "
    "num_train_epochs total_kimg",
    "training.lr_warmup_steps": "warmup warmup_steps lr_warmup num_warmup_steps",
    "training.ema_decay": "ema ema_rate ema_beta use_ema",
    "training.precision": "mixed_precision dtype fp16 bf16 amp half autocast",
    "training.grad_clip_norm": "grad_clip clip_grad gradient_clip gradient_clip_val max_grad_norm",
    "training.horizontal_flip": "flip hflip random_flip augment augmentation",
    "training.optimizer": "optim opt",
    "training.weight_decay": "wd adam_weight_decay",
    "training.compile": "torch_compile",
    "training.seed": "random_seed",
    "diffusion.num_timesteps": "timesteps num_train_timesteps diffusion_steps noise_steps T",
    "diffusion.betas": "beta_schedule noise_schedule schedule",
    "diffusion.prediction": "prediction_type predict objective parameterization",
    "diffusion.variance": "sigma learn_sigma variance_type",
    "diffusion.loss": "loss_type loss_weighting",
    "model.channels": "base_channels model_channels num_channels dim ch width unet_dim",
    "model.channel_multipliers": "channel_mult channel_mults ch_mult dim_mults block_out_channels",
    "model.num_res_blocks": "layers_per_block num_blocks n_res_blocks res_blocks",
    "model.attention_resolutions": "attn_resolutions attn attention",
    "model.num_heads": "heads attention_heads n_heads",
    "dataset.source": "data data_dir data_path dataset_path train_data_dir dataset_name path",
    "dataset.holdout_fraction": "holdout val_split validation_split test_size val_fraction",
    "sampling.num_steps": "sampling_steps num_inference_steps timestep_respacing ddim_steps nfe "
    "inference_steps steps",
    "sampling.microbatch_size": "batch_size batch",
    "sampling.method": "sampler scheduler",
    "sampling.eta": "ddim_eta",
    "sampling.clip_denoised": "clip clip_sample",
    "sampling.seed": "random_seed",
    "model.job": "from train_job training",
    "model.checkpoint": "ckpt checkpoint_path resume",
    "num_samples": "n_samples samples num_images n number",
    "shard_size": "images_per_shard",
    "checkpoints.every_steps": "save_every save_interval save_steps checkpoint_every "
    "checkpointing_steps checkpoint_interval",
    "checkpoints.keep": "save_total_limit checkpoints_total_limit max_to_keep",
    "tracking.log_every_steps": "log_every log_interval logging_steps",
    "tracking.sample_every_steps": "sample_every sample_interval validation_steps",
    "tracking.experiment": "project experiment_name wandb_project mlflow_experiment",
    "resources.num_workers": "workers nodes num_nodes world_size replicas nproc n_workers",
    "resources.gpus_per_worker": "gpus num_gpus n_gpus devices gpu",
    "resources.cpus_per_worker": "cpus num_cpus n_cpus",
    "max_runtime_s": "timeout timeout_s max_runtime time_limit walltime",
    "name": "job_name id title",
}
_EPOCHS = frozenset({"epochs", "num_epochs", "max_epochs", "n_epochs", "train_epochs",
                     "num_train_epochs"})  # fmt: skip
_SIZE = frozenset({"image_size", "resolution", "img_size", "size", "image_shape", "in_channels"})


def _places(key: str) -> Iterator[str]:
    lowered = key.lower().replace("-", "_")
    yield from (place for place, names in _NAMES.items() if lowered in names.lower().split())


def place_of(key: str, known: frozenset[str]) -> str | None:
    """Return the field, as a way with dots, that other tools call so; None for none.

    Args:
        key: The name that was written.
        known: The fields that there are.
    """
    return next((place for place in _places(key) if place in known), None)


def remark_on(key: str) -> str | None:
    """Return what to know of a name that is no field here under another name."""
    lowered = key.lower().replace("-", "_")
    if lowered in _EPOCHS:
        return "training.num_steps counts optimizer steps: epochs x images / global_batch_size"
    return "images keep the size that they have" if lowered in _SIZE else None
