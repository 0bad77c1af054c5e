"""The names of the tags that runs and registered models have in MLflow, for both sides."""

# Of runs: what the job is and how it stands.
JOB = "ddpmctl.job_id"
KIND = "ddpmctl.kind"
NAME = "ddpmctl.name"
STATE = "ddpmctl.state"
REASON = "ddpmctl.reason"
ATTEMPT = "ddpmctl.attempt"
GROUP = "ddpmctl.group"
GROUP_STEP = "ddpmctl.group_step"
BEST = "ddpmctl.best"

# Of runs: what fixes the bits of what they made, and where it came from.
CODE_SHA256 = "ddpmctl.code_sha256"
DEVICE = "ddpmctl.device"
PRECISION = "ddpmctl.precision"
COMPILED = "ddpmctl.compiled"
KERNELS = "ddpmctl.kernels"
NETWORK = "ddpmctl.network"  # of another package
NUM_WORKERS = "ddpmctl.num_workers"
INIT = "ddpmctl.init"
DESCENT = "ddpmctl.descent"
MODEL = "ddpmctl.model"
COMMIT_SHA256 = "ddpmctl.commit_sha256"
SET_SHA256 = "ddpmctl.set_sha256"

# Of registered models, too: their checkpoint, the training steps in it, and its hash.
COMMIT = "ddpmctl.commit"
TRAINING_STEP = "ddpmctl.step"
SHA256 = "ddpmctl.sha256"
