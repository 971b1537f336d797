"""What a run's figures are called: the columns of metrics.csv and TensorBoard's tags."""

RECENT = 100  # episodes in the running mean return

KEYS = ("iteration", "seed", "env_steps")  # of a row

RETURN, LENGTH = "rollout/ep_rew_mean", "rollout/ep_len_mean"
EPISODES = "rollout/episodes"
DISCARDED = "rollout/discarded"
RECENT_RETURN = f"rollout/return_{RECENT}"  # at the end
NORM, NORM_SQ = "gradient/norm", "gradient/norm_sq_unbiased"
TRACE_COV, VARIANCE = "gradient/trace_cov", "gradient/variance"
SNR, NOISE_SCALE = "gradient/snr", "gradient/noise_scale"
EXACT_J, EXACT_NORM, EXACT_COS = "exact/objective", "exact/gradient_norm", "exact/cos_gradient"
ENTROPY, KL = "policy/entropy", "policy/kl"
ENTROPY_COEF = "policy/entropy_coef"  # where it is scheduled
BEHAVIOUR_KL = "importance/kl"
MAX_WEIGHT, CLAMPED = "importance/max_weight", "importance/clamped"
SCORE, SCORE_ERROR = "score/norm", "score/standard_error"
LEARNING_RATE = "optimizer/lr"  # where the rule steps by one
FPS = "time/fps"
# Of evaluations along the way; the iterations between have none.
EVAL_RETURN, EVAL_LENGTH = "eval/ep_rew_mean", "eval/ep_len_mean"
EVAL_SUCCESS = "eval/success_rate"  # where the environment's info tells it
EVALUATED = (EVAL_RETURN, EVAL_LENGTH, EVAL_SUCCESS)


def ess(prefix: str) -> str:
    """Of the effective sample size of ρ_{0:t} over so many steps."""
    return f"importance/ess_{prefix}"


def info(name: str, way: str | None) -> str:
    """Of an entry of info: of its mean over steps, or what `env.info` makes of it otherwise."""
    return f"info/{name}" if way is None else f"info/{name}/{way}"


def callback(name: str) -> str:
    """Of what a callback gives."""
    return f"callback/{name}"


def update(name: str) -> str:
    """Of what an update rule tells of its step."""
    return f"update/{name}"


def loss(critic: str) -> str:
    """Of a critic's mean squared error, before it is fitted."""
    return f"{critic}/loss"


def explained_variance(critic: str) -> str:
    """Of how much of its targets' variance it tells, before it is fitted."""
    return f"{critic}/explained_variance"
