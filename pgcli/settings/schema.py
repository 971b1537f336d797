"""The settings of `pg`: their names, types and bounds. Their values stand in `conf/`.

Plain dataclasses that know neither Hydra nor OmegaConf, so every floor may read them.
No field has a default: a default has one home, and that is the YAML.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum, auto
from functools import cache
from pathlib import Path
from typing import Any, Optional, Union, get_args, get_origin, get_type_hints

from pgcli.errors import ConfigError, one_of
from pgcli.settings.registry import OWN, is_own, named_in

HUGE = 2**63  # no whole number is larger
EXACT = "exact"  # V and Q by dynamic programming
NONE = "none"  # the baseline that subtracts nothing, the importance weights that are 1
ALL = "all"  # every iteration that a run has saved
BEST = "best"  # the iteration, each seed's own, that did best when it was evaluated


# OmegaConf reads an Enum by the NAME of its member. What is open to more: see `registry`.
# `async` is a keyword.
Engine = Enum("Engine", "auto compiled native sync async envpool workers ray")
ELSEWHERE = ("workers", "ray")  # engines that play whole batches in other processes


class Activation(Enum):
    """Of hidden layers."""

    tanh = auto()
    relu = auto()
    elu = auto()


class Init(Enum):
    """How a policy's parameters begin."""

    orthogonal = auto()
    zeros = auto()


class Target(Enum):
    """What critics are regressed on."""

    monte_carlo = auto()
    td_lambda = auto()
    expected_sarsa = auto()


class ActionValue(Enum):
    """How Q is made."""

    action_input = auto()
    outputs = auto()
    dueling = auto()
    compatible = auto()


class Collect(Enum):
    """What a batch is made of."""

    episodes = auto()
    steps = auto()


class Schedule(Enum):
    """Of a learning rate or an entropy coefficient over the run's budget."""

    constant = auto()
    linear = auto()
    cosine = auto()


class Device(Enum):
    """Where torch computes."""

    cpu = "cpu"
    cuda = "cuda"
    auto = "auto"


class Acting(Enum):
    """How a policy acts when it is evaluated: its likeliest action, or one that it draws."""

    greedy = auto()
    sampled = auto()


class VideoFormat(Enum):
    """Of the video of an episode."""

    gif = auto()
    mp4 = auto()


class VideoEpisode(Enum):
    """Which of the greedy episodes a video shows, by its return."""

    median = auto()
    best = auto()
    worst = auto()


class ExportFormat(Enum):
    """Of a policy that is to be used without pg."""

    onnx = auto()
    pt2 = auto()
    safetensors = auto()


class When(Enum):
    """Which iterations a claim is about."""

    first = auto()
    last = auto()
    whole = auto()


class Effect(Enum):
    """How a claim compares two figures."""

    ratio = auto()
    difference = auto()


PACKAGE = Path(__file__).resolve().parent.parent

# Updates of a run that is given neither iterations nor total_steps: its YAML says null for both.
ITERATIONS = 100


def within(
    *,
    gt: float | None = None,
    ge: float | None = None,
    lt: float | None = None,
    le: float | None = None,
) -> dict[str, float | None]:
    """Metadata of a field: its number, or each number of its list, must lie within these bounds."""
    return {"gt": gt, "ge": ge, "lt": lt, "le": le}


def naming(files: str, besides: str = "") -> dict[str, Any]:
    """Metadata of a field that names a part which these files of the package register."""
    sources = (path for path in sorted(PACKAGE.glob(files)) if path.name != besides)
    return {"registered": tuple(sources)}


class Role(Enum):
    """What a setting is to a run; one without a role is part of what the run IS."""

    BUDGET = "how long it goes on"
    BOOKKEEPING = "what is kept and shown of it"
    REPETITION = "which of many alike it is"
    MACHINE = "where it is computed"


def since(before: Any, bounds: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Metadata of a field that older runs do not know: the value by which they did as they did."""
    return {**(bounds or {}), "before": before}


def role(which: Role, bounds: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Metadata of a field that has this role."""
    return {**(bounds or {}), "role": which}


@dataclass
class EnvConfig:
    """The environment and how it is stepped."""

    id: str  # any Gymnasium id, `module:Id` and `namespace/Id` included
    kwargs: dict[str, Any]  # handed to the environment's constructor
    reward_shift: float  # added to every reward
    max_episode_steps: Optional[int] = field(
        metadata=within(ge=1)
    )  # null: the environment's own limit
    engine: Engine
    num_envs: Optional[int] = field(
        metadata=within(ge=1)
    )  # side by side, per seed; null: chosen by the engine
    # Entries of info to log: `name`, or `name@mean`, `@end`, `@sum`.
    info: list[str] = field(metadata=since([]))
    # Around each copy, the first innermost: `module:name`, or {wrapper: module:name, argument: x}.
    wrappers: list[Any] = field(metadata=since([]))
    # Processes of engine=workers or ray; null: as many as there are cores, in ray's cluster.
    workers: Optional[int] = field(metadata=since(None, role(Role.BOOKKEEPING, within(ge=1))))


@dataclass
class EstimatorConfig:
    """The orthogonal switches of the gradient estimator."""

    # These three: registered names, `module:name` from a module of one's own.
    phi: str = field(metadata=naming("estimators/phi.py"))
    baseline: str = field(metadata=naming("estimators/baselines.py"))
    importance: str = field(metadata=naming("estimators/importance.py"))
    gamma: float = field(metadata=within(ge=0, le=1))
    lam: float = field(metadata=within(ge=0, le=1))  # λ of GAE
    discount_state: bool  # weight step t by γ^t: the exact gradient of the discounted objective
    normalize: bool  # standardise Φ over the batch (biased)
    # Rewards over the running deviation of the discounted return, of earlier batches.
    scale_rewards: bool = field(metadata=since(False))
    # The step is along ∇J itself, by the model; what is sampled is only measured.
    exact: bool = field(metadata=since(False))
    bootstrap: bool  # at a time limit, continue with V(final_obs) where Φ uses V
    n: int = field(metadata=within(ge=1))  # of phi=n_step
    constant: float  # of baseline=constant
    self_normalize: bool  # importance weights over their batch mean at the same t
    clip_ratio: Optional[float] = field(metadata=within(gt=0))  # upper limit of importance weights

    @property
    def weighted(self) -> bool:
        """Whether it has importance weights."""
        return self.importance != NONE


@dataclass
class ComparedEstimator(EstimatorConfig):
    """An estimator of `pg compare`, whose V may be wrong on purpose."""

    value_error: float = field(metadata=within(ge=0))  # deviation of what is added to V


@dataclass
class BehaviourConfig:
    """The policy that collects, made from the one that learns; on-policy where nothing differs."""

    temperature: float = field(metadata=within(gt=0))  # logits (or 1/variance) divided by this
    epsilon: float = field(metadata=within(ge=0, lt=1))  # discrete actions: uniform so often
    checkpoint: Optional[str]  # run directory whose policy it is made from instead
    iteration: Optional[int] = field(metadata=within(ge=1))  # of that run; null: the newest

    @property
    def differs(self) -> bool:
        """Whether it is another policy than the one that learns."""
        return self.changes or self.checkpoint is not None

    @property
    def changes(self) -> bool:
        """Whether it is tempered or mixed."""
        return self.temperature != 1 or self.epsilon != 0


@dataclass
class InitConfig:
    """The run whose policy, critics and normalisers a new one begins with; its own seeds' each."""

    checkpoint: Optional[str] = field(metadata=since(None))  # run directory; null: fresh ones
    # Of that run; null: the newest.
    iteration: Optional[int] = field(metadata=since(None, within(ge=1)))


@dataclass
class PolicyConfig:
    """The policy network; no hidden layer makes it linear."""

    # Inputs less their running mean, over their running deviation, cut to ± clip_obs (null: not).
    normalize_obs: bool = field(metadata=since(False))
    clip_obs: Optional[float] = field(metadata=since(10.0, within(gt=0)))
    hidden: list[int] = field(metadata=within(ge=1))
    activation: Activation
    init: Init
    output_gain: float = field(
        metadata=within(ge=0)
    )  # of the last layer's orthogonal initialisation
    bias: bool
    log_std: float = field(metadata=within(ge=-20, le=2))  # where a Gaussian policy starts
    squash: bool = field(metadata=since(False))  # tanh of a Gaussian, where both bounds are finite
    state_std: bool = field(metadata=since(False))  # the network gives log σ too
    min_std: Optional[float] = field(metadata=since(None, within(gt=0)))  # floor of σ
    max_std: Optional[float] = field(metadata=since(None, within(gt=0)))  # its ceiling
    entropy_coef: float = field(
        metadata=within(ge=0)
    )  # entropy bonus, outside the measured estimate
    entropy_schedule: Schedule = field(metadata=since("constant"))  # of it, over the run's budget

    @property
    def gaussian(self) -> dict[str, bool | float | None]:
        """What makes a Gaussian policy another than the plain one, by its key."""
        given = {name: getattr(self, name) for name in ("squash", "state_std", *BOUNDS)}
        return {f"policy.{name}": x for name, x in given.items() if x not in (False, None)}


BOUNDS = ("min_std", "max_std")


@dataclass
class CriticConfig:
    """The critics and their regression."""

    # V: a network, linear in features, with Q by dynamic programming, or `module:name`
    kind: str = field(metadata=naming("policies/critics.py"))
    hidden: list[int] = field(metadata=within(ge=1))
    activation: Activation
    lr: float = field(metadata=within(gt=0, le=1e6))
    epochs: int = field(metadata=within(ge=1))  # passes over the batch per fit
    minibatches: int = field(metadata=within(ge=1))  # gradient steps per pass
    target: Target
    # λ of td_lambda and expected_sarsa targets; null: that of the estimator
    lam: Optional[float] = field(metadata=since(None, within(ge=0, le=1)))
    time_input: bool  # the value of a finite horizon depends on t: append t/T to the observation
    # Q: a network of state and action, one output per action, or V plus an advantage: a network of
    # its own, or ψᵀw
    q: ActionValue = field(metadata=since("action_input"))
    # ψᵀw: added to the diagonal of the Fisher matrix of one step
    ridge: float = field(metadata=since(0.01, within(ge=0)))
    # PPO's ε: an output counts this near to what it was before the fit, in standard deviations of
    # the targets; null: off
    clip: Optional[float] = field(metadata=since(None, within(gt=0)))


@dataclass
class OptimizerConfig:
    """What is done with the gradient."""

    name: str = field(metadata=naming("updates/optimizers.py"))  # or `module:name`
    lr: float = field(metadata=within(gt=0, le=1e6))
    schedule: Schedule  # of lr, over the run's budget
    clip_norm: Optional[float] = field(
        metadata=within(gt=0)
    )  # applied after the measurement; null: off
    momentum: Optional[float] = field(metadata=within(ge=0, lt=1))  # sgd, rmsprop
    weight_decay: Optional[float] = field(metadata=within(ge=0))
    # adam, adamw: of the moments' averages, and beside the root; null: 0.9 and 0.999, 1e-8
    betas: Optional[list[float]] = field(metadata=since(None, within(ge=0, lt=1)))
    eps: Optional[float] = field(metadata=since(None, within(gt=0)))


class FisherKind(Enum):
    """Over which actions the Fisher matrix is averaged at the batch's states."""

    exact = auto()
    sampled = auto()


class StepLength(Enum):
    """How long a natural step is."""

    delta = auto()
    lr = auto()


class Minibatch(Enum):
    """What a minibatch is made of."""

    episodes = auto()
    steps = auto()


@dataclass
class UpdateConfig:
    """What is done with an estimate; null: the rule has no such setting."""

    # A registered name, or `module:name`.
    name: str = field(metadata=since("ascent", naming("updates/*.py", besides="optimizers.py")))
    # Mean KL(old‖new) per state in nats that a step may come to.
    delta: Optional[float] = field(metadata=since(None, within(gt=0)))
    step: Optional[StepLength] = field(metadata=since(None))
    fisher: Optional[FisherKind] = field(metadata=since(None))
    # Added to the diagonal of F, per step.
    damping: Optional[float] = field(metadata=since(None, within(ge=0)))
    cg_iterations: Optional[int] = field(metadata=since(None, within(ge=1)))
    # Of the residual's norm, relative.
    cg_tolerance: Optional[float] = field(metadata=since(None, within(ge=0, lt=1)))
    # How many shorter steps are tried, each shorter by this factor.
    backtracks: Optional[int] = field(metadata=since(None, within(ge=0)))
    shrink: Optional[float] = field(metadata=since(None, within(gt=0, lt=1)))
    # Passes over the batch, steps in each.
    epochs: Optional[int] = field(metadata=since(None, within(ge=1)))
    minibatches: Optional[int] = field(metadata=since(None, within(ge=1)))
    minibatch_of: Optional[Minibatch] = field(metadata=since(None))
    # ε: ratios count between 1 ± ε.
    clip: Optional[float] = field(metadata=since(None, within(gt=0)))
    # No further pass beyond it.
    target_kl: Optional[float] = field(metadata=since(None, within(gt=0)))
    # Standardise the weights of each minibatch (biased).
    normalize: Optional[bool] = field(metadata=since(None))


@dataclass
class GradientConfig:
    """How the gradient's noise is measured."""

    measure: bool  # the variance of every estimate
    smoothing: float = field(
        metadata=within(ge=0, lt=1)
    )  # of numerator and denominator of SNR and noise scale
    memory_mb: int = field(metadata=within(ge=1))  # above N·P·itemsize, trajectories are grouped
    score: bool  # the mean score, whose expectation is zero, with its standard error


@dataclass
class CheckpointConfig:
    """When to save."""

    every: int = field(metadata=within(ge=1))  # iterations; the last one is always saved
    keep: Optional[int] = field(metadata=within(ge=1))  # newest to keep; null: all


@dataclass
class EvaluationConfig:
    """Evaluations along the way, on episodes of their own."""

    # Iterations, and at the end; null: none.
    every: Optional[int] = field(metadata=since(None, within(ge=1)))
    episodes: int = field(metadata=since(10, within(ge=1)))  # of each seed
    acting: Acting = field(metadata=since("greedy"))


@dataclass
class LogConfig:
    """What the terminal and TensorBoard show."""

    interval: float = field(
        metadata=within(gt=0)
    )  # seconds between lines where there is no terminal
    # With several seeds: a TensorBoard run for each, beside that of their mean and band.
    seeds: bool = field(metadata=since(True))
    # `module:name` of what is told every row of metrics.csv too; null: none
    recorder: Optional[str] = field(metadata=since(None))
    wandb: Optional[str]  # project at Weights & Biases that gets the records too; null: none


@dataclass
class ClaimConfig:
    """A statement about two settings of a sweep; `pg report` says whether the data bear it out.

    An item of a list: what it does not say has its default here, for no YAML could hold it.
    """

    says: str
    figure: str  # return, area (under the return's curve, per step) or a column of metrics.csv
    of: dict[str, Any]  # settings, or options of groups, that tell the first runs from others
    against: dict[str, Any]  # and the second
    when: When = When.last  # the first iteration, the last tenth of them, or their mean
    against_when: Optional[When] = None  # null: as `when`
    effect: Effect = Effect.ratio  # of the first to the second, or their difference
    at_least: Optional[float] = None
    at_most: Optional[float] = None


@dataclass
class TrainConfig:
    """Everything that `pg train` is told."""

    # Of each seed by itself; whichever ends first. Both null: ITERATIONS.
    iterations: Optional[int] = field(metadata=role(Role.BUDGET, within(ge=1)))
    total_steps: Optional[int] = field(
        metadata=role(Role.BUDGET, within(ge=1))
    )  # simulated environment steps
    batch_size: int = field(metadata=within(ge=1))  # whole episodes per seed
    batch_steps: Optional[int] = field(
        metadata=within(ge=1)
    )  # instead: whole episodes until so many steps
    # Whole episodes, or `horizon` steps of each of env.num_envs slots, which play on.
    collect: Collect = field(metadata=since("episodes"))
    horizon: int = field(metadata=since(128, within(ge=1)))
    seed: int = field(metadata=role(Role.REPETITION, within(ge=0, lt=2**63)))
    # agents that train side by side: seed, seed + 1, ...
    seeds: int = field(metadata=role(Role.REPETITION, within(ge=1)))
    updates_per_batch: int = field(metadata=within(ge=1))  # more than one: off-policy reuse
    device: Device = field(metadata=role(Role.MACHINE))
    resume: Optional[str] = field(metadata=role(Role.BOOKKEEPING))  # run directory to continue
    # `module:name` of a function that is called after each iteration; null: none
    callback: Optional[str] = field(metadata=since(None, role(Role.BOOKKEEPING)))
    claims: list[ClaimConfig] = field(metadata=role(Role.BOOKKEEPING))  # for pg report
    env: EnvConfig
    estimator: EstimatorConfig
    behaviour: BehaviourConfig
    init: InitConfig
    policy: PolicyConfig
    critic: CriticConfig
    optimizer: OptimizerConfig
    update: UpdateConfig
    gradient: GradientConfig
    checkpoint: CheckpointConfig = field(metadata=role(Role.BOOKKEEPING))
    eval: EvaluationConfig = field(metadata=role(Role.BOOKKEEPING))
    log: LogConfig = field(metadata=role(Role.BOOKKEEPING))

    @property
    def off_policy(self) -> bool:
        """Whether any update uses data of another policy than its own."""
        return self.updates_per_batch > 1 or self.behaviour.differs


@dataclass
class ComparedBehaviour(BehaviourConfig):
    """Who collects, where estimators are compared."""

    kl: list[float] = field(metadata=within(gt=0))  # mean KL(behaviour‖policy) of perturbed copies


@dataclass
class CompareConfig:
    """Everything that `pg compare` is told."""

    estimators: list[str]  # presets, or module:name of a Φ of your own; none: all that fit
    reference: Optional[str]  # whose variance is the unit; null: the first
    episodes: int = field(metadata=within(ge=8))
    batch_size: int = field(metadata=within(ge=2))  # episodes of one update
    fit_episodes: int = field(metadata=within(ge=1))  # that learned critics are fitted on
    checkpoint: Optional[str]  # run directory whose policy is looked at; null: a fresh one
    iteration: Any  # of that run: a number, several, ALL or BEST; null: the newest
    seeds: int = field(metadata=within(ge=1))  # policies, from `seed` on
    exact: Optional[bool]  # from the model; null: where that takes no longer than minutes
    parts: bool  # of the variance, by what is revealed
    resamples: int = field(metadata=within(ge=100, le=10**6))  # of the bootstrap
    level: float = field(metadata=within(gt=0, lt=1))  # of confidence
    sizes: list[int] = field(metadata=within(ge=1))  # batch sizes to study
    pictures: bool
    updates: list[str]  # presets of update rules, or module:name; none: their steps are not taken
    along: Optional[str]  # one of them, along whose step return and surrogate are told
    scales: list[float] = field(metadata=within(gt=0))  # of that step
    update: dict[str, Any]  # settings of those that have them
    seed: int = field(metadata=within(ge=0, lt=2**63))
    env: EnvConfig
    estimator: dict[str, Any]  # what all estimators share
    behaviour: ComparedBehaviour
    policy: PolicyConfig
    critic: CriticConfig
    optimizer: OptimizerConfig  # of update rules that step by one
    log: LogConfig

    @property
    def gamma(self) -> float:
        """γ of the objective that all estimators share; of several, the largest."""
        gamma = self.estimator["gamma"]
        return float(max(gamma) if isinstance(gamma, list) else gamma)

    @property
    def several(self) -> bool:
        """Whether it looks at more policies than one."""
        return self.seeds > 1 or self.iteration == ALL or isinstance(self.iteration, list)

    @property
    def off_policy(self) -> bool:
        """Whether another policy than the one that is looked at collects."""
        return (
            self.behaviour.differs
            or bool(self.behaviour.kl)
            or (self.behaviour.iteration is not None)
        )


@dataclass
class EvaluatedEnvConfig:
    """Where a policy is evaluated; null: as it was trained."""

    id: Optional[str]  # with the same spaces
    kwargs: dict[str, Any]  # beside those of the run, where the id is the same
    max_episode_steps: Optional[int] = field(metadata=within(ge=1))
    engine: Optional[Engine]
    num_envs: Optional[int] = field(metadata=within(ge=1))  # side by side, per seed
    info: Optional[list[str]]  # entries of info to tell


@dataclass
class EvalConfig:
    """Everything that `pg eval` is told."""

    checkpoint: Optional[str]  # run directory, or one with runs below it, such as a sweep's
    iteration: Any  # of each run: a number or BEST; null: the newest
    episodes: int = field(metadata=within(ge=2))  # of each seed, greedy and sampled
    level: float = field(metadata=within(gt=0, lt=1))  # of confidence
    video: Optional[VideoFormat]  # of one greedy episode of each run
    video_episode: VideoEpisode
    export: Optional[ExportFormat]  # of each seed's policy
    seed: int = field(metadata=within(ge=0, lt=2**40))  # another one has other episodes
    env: EvaluatedEnvConfig
    log: LogConfig


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """Every setting by its dotted key; an Enum by its name."""
    settings: dict[str, Any] = {}
    for f in fields(config):
        value = getattr(config, f.name)
        if is_dataclass(value):
            settings |= flat(value, f"{prefix}{f.name}.")
        else:
            settings[prefix + f.name] = value.name if isinstance(value, Enum) else value
    return settings


@cache
def before(schema: type, prefix: str = "") -> dict[str, Any]:
    """What runs that do not know a setting had in its place, by its dotted key: see `since`."""
    kinds = get_type_hints(schema)
    earlier: dict[str, Any] = {}
    for f in fields(schema):
        if is_dataclass(kinds[f.name]):
            earlier |= before(kinds[f.name], f"{prefix}{f.name}.")
        elif "before" in f.metadata:
            earlier[prefix + f.name] = f.metadata["before"]
    return earlier


def role_of(key: str) -> Role | None:
    """The role of a setting of `pg train`, by its dotted key: its own, or its section's."""
    return ROLES.get(key, ROLES.get(key.split(".")[0]))


def _roles(schema: type, prefix: str = "") -> dict[str, Role]:
    kinds = get_type_hints(schema)
    found: dict[str, Role] = {}
    for f in fields(schema):
        if "role" in f.metadata:
            found[prefix + f.name] = f.metadata["role"]
        elif is_dataclass(kinds[f.name]):
            found |= _roles(kinds[f.name], f"{prefix}{f.name}.")
    return found


ROLES: dict[str, Role] = _roles(TrainConfig)


def having(*roles: Role) -> tuple[str, ...]:
    """The keys, or groups of keys, that have any of these roles."""
    return tuple(name for name, one in ROLES.items() if one in roles)


def check(config: Any, prefix: str = "") -> None:
    """Raise ConfigError for the first number that is not finite or out of its field's bounds.

    Those of lists of dataclasses too: `claims[0].at_least`.
    """
    for f in fields(config):
        key, value = prefix + f.name, getattr(config, f.name)
        if is_dataclass(value):
            check(value, key + ".")
            continue
        if "registered" in f.metadata and not is_own(value):
            names = named_in(f.metadata["registered"])
            if value not in names:
                raise ConfigError(key, value, one_of(value, [*names, OWN]))
        for i, item in enumerate(value if isinstance(value, list) else ()):
            if is_dataclass(item):
                check(item, f"{key}[{i}].")
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, bool) or not isinstance(number, (int, float)):
                continue
            if not _within(number, f.metadata):
                raise ConfigError(key, value, f"must be {_described(f.metadata)}")
            if isinstance(number, int) and number >= HUGE:
                raise ConfigError(key, value, f"must be < {_number(HUGE)}")


def allowed(schema: type, prefix: str = "") -> dict[str, str]:
    """What each setting may be, in words, by its dotted key: bounds, or names; none: anything."""
    kinds: dict[str, Any] = get_type_hints(schema)
    said: dict[str, str] = {}
    for f in fields(schema):
        kind, key = kinds[f.name], prefix + f.name
        if get_origin(kind) is Union:
            kind = get_args(kind)[0]
        if isinstance(kind, type) and is_dataclass(kind):
            said |= allowed(kind, f"{key}.")
        elif isinstance(kind, type) and issubclass(kind, Enum):
            said[key] = ", ".join(one.name for one in kind)
        elif "registered" in f.metadata:
            said[key] = ", ".join(named_in(f.metadata["registered"]))
        else:
            said[key] = _interval(f.metadata)
    return {key: text for key, text in said.items() if text}


def _interval(bound: Mapping[str, Any]) -> str:
    low, high = (next((k for k in names if bound.get(k) is not None), None)
                 for names in (("gt", "ge"), ("lt", "le")))  # fmt: skip
    if low and high:
        left, right = "(" if low == "gt" else "[", ")" if high == "lt" else "]"
        return f"in {left}{_number(bound[low])}, {_number(bound[high])}{right}"
    return _described(bound).removeprefix("finite").removeprefix(" and ")


def _number(x: float) -> str:
    return f"2^{x.bit_length() - 1}" if isinstance(x, int) and x > 2**31 else f"{x:g}"


def _within(number: float, bound: Any) -> bool:
    compare: dict[str, Callable[[float], bool]] = {
        "gt": lambda b: number > b,
        "ge": lambda b: number >= b,
        "lt": lambda b: number < b,
        "le": lambda b: number <= b,
    }
    return math.isfinite(number) and all(
        compare[name](b) for name, b in bound.items() if name in compare and b is not None
    )


def _described(bound: Any) -> str:
    sign = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    limits = [f"{sign[name]} {b}" for name, b in bound.items() if name in sign and b is not None]
    return " and ".join(["finite", *limits])


def budget(iterations: int | None, total_steps: int | None) -> tuple[int | None, int | None]:
    """The limits (iterations, total_steps) of a run that is given these."""
    if iterations is None and total_steps is None:
        return ITERATIONS, None
    return iterations, total_steps


def check_combination(config: Any) -> None:
    """Raise ConfigError for settings that are fine alone and cannot work together."""
    if isinstance(config, (TrainConfig, CompareConfig)):
        _check_gaussian(config.policy, config.behaviour)
    if isinstance(config, TrainConfig):
        _check_training(config)
        check_switches(config.estimator)
    if isinstance(config, CompareConfig):
        _check_comparison(config)
    if isinstance(config, (CompareConfig, EvalConfig)):
        _check_iteration(config.iteration, isinstance(config, CompareConfig))


def _check_iteration(iteration: Any, several: bool) -> None:
    def is_number(x: Any) -> bool:
        return isinstance(x, int) and not isinstance(x, bool) and x >= 1

    if several and isinstance(iteration, list):
        if not (
            iteration and all(map(is_number, iteration)) and iteration == sorted(set(iteration))
        ):
            raise ConfigError("iteration", iteration, "must be whole numbers >= 1 that grow")
        return
    words = (BEST, ALL) if several else (BEST,)
    if not (is_number(iteration) or iteration is None or iteration in words):
        allowed = f"must be a whole number >= 1, {', '.join(words)} or null"
        raise ConfigError("iteration", iteration, allowed)


def _check_gaussian(policy: PolicyConfig, behaviour: BehaviourConfig) -> None:
    low, high, std = policy.min_std, policy.max_std, math.exp(policy.log_std)
    if low is not None and high is not None and low >= high:
        raise ConfigError("policy.min_std", low, f"must be < policy.max_std={high}")
    if (low is not None and low >= std) or (high is not None and high <= std):
        allowed = f"must start σ strictly between its bounds, and exp of it is {std:.3g}"
        raise ConfigError("policy.log_std", policy.log_std, allowed)
    if behaviour.temperature != 1 and (low is not None or high is not None):
        allowed = "only 1 with policy.min_std or policy.max_std, which would bound σ no more"
        raise ConfigError("behaviour.temperature", behaviour.temperature, allowed)
    if policy.state_std and not policy.bias:
        allowed = "needs policy.bias=true, where σ starts: only false"
        raise ConfigError("policy.state_std", True, allowed)


def check_switches(est: EstimatorConfig) -> None:
    """Raise ConfigError for switches of an estimator that contradict each other.

    What its parts say of each other is another matter: `estimators.estimator.check_estimator`.
    """
    if est.normalize and est.weighted:
        allowed = "its mean would go in without its importance weight: only false"
        raise ConfigError("estimator.normalize", True, allowed)
    for key, given in (("self_normalize", est.self_normalize), ("clip_ratio", est.clip_ratio)):
        if given not in (False, None) and not est.weighted:
            raise ConfigError(f"estimator.{key}", given, "needs an estimator.importance")


def _check_training(config: TrainConfig) -> None:
    for i, claim in enumerate(config.claims):
        if claim.at_least is None and claim.at_most is None:
            raise ConfigError(f"claims[{i}]", claim.says, "needs at_least or at_most")
    critic = config.critic
    if config.batch_steps is not None and config.env.engine.name in ELSEWHERE:
        allowed = "with batch_steps a slot stops by what others have played: auto, sync"
        raise ConfigError("env.engine", config.env.engine, allowed)
    if config.collect is Collect.steps:
        _check_parts(config)
    if critic.lam is not None and critic.target is Target.monte_carlo:
        allowed = "only with critic.target=td_lambda or expected_sarsa: null"
        raise ConfigError("critic.lam", critic.lam, allowed)
    if config.critic.kind == EXACT:
        raise ConfigError("critic.kind", "exact", "only pg compare has exact critics: mlp, linear")
    for key, source in (("behaviour", config.behaviour), ("init", config.init)):
        if source.iteration is not None and source.checkpoint is None:
            raise ConfigError(f"{key}.iteration", source.iteration, f"needs {key}.checkpoint")


def _check_parts(config: TrainConfig) -> None:
    """What goes with parts of episodes."""
    if config.batch_steps is not None:
        allowed = "collect=steps takes horizon steps of each of env.num_envs: only null"
        raise ConfigError("batch_steps", config.batch_steps, allowed)
    if config.critic.target is Target.monte_carlo:
        allowed = "collect=steps has no whole returns: td_lambda, expected_sarsa"
        raise ConfigError("critic.target", config.critic.target, allowed)
    if config.update.minibatch_of is Minibatch.episodes:
        allowed = "collect=steps has no whole episodes: only steps"
        raise ConfigError("update.minibatch_of", config.update.minibatch_of, allowed)
    if config.env.engine.name not in ("auto", "compiled", "sync", *ELSEWHERE):
        allowed = "collect=steps stops single slots: auto, compiled, sync, workers, ray"
        raise ConfigError("env.engine", config.env.engine, allowed)


def _check_comparison(config: CompareConfig) -> None:
    if config.parts and config.exact is False:
        raise ConfigError("parts", True, "they are exact figures: only false with exact=false")
    if config.estimator.get("scale_rewards"):
        allowed = "there are no earlier batches to scale by: only false"
        raise ConfigError("estimator.scale_rewards", True, allowed)
    if config.estimator.get("exact"):
        allowed = "estimates are compared with ∇J, and it is none: only false"
        raise ConfigError("estimator.exact", True, allowed)
    if config.critic.lam is not None:
        allowed = "critics are fitted on whole returns here: null"
        raise ConfigError("critic.lam", config.critic.lam, allowed)
    if config.episodes % config.batch_size or config.episodes < 4 * config.batch_size:
        allowed = f"must be a multiple of batch_size={config.batch_size}, 4 times it or more"
        raise ConfigError("episodes", config.episodes, allowed)
    if config.critic.target is not Target.monte_carlo:
        allowed = "critics are fitted on whole returns here: monte_carlo"
        raise ConfigError("critic.target", config.critic.target.name, allowed)
    if len(set(config.updates)) < len(config.updates):
        raise ConfigError("updates", config.updates, "each of them once")
    if config.seeds > 1 and config.iteration == BEST:
        allowed = "each seed has its own: a number, several or all with more seeds than one"
        raise ConfigError("iteration", BEST, allowed)
    if config.updates and config.several:
        allowed = "steps are looked at from one policy: only [] with several"
        raise ConfigError("updates", config.updates, allowed)
    if config.along is not None and config.along not in config.updates:
        raise ConfigError("along", config.along, one_of(config.along, config.updates))
    if config.updates and config.behaviour.kl:
        allowed = "steps are taken from the data of one behaviour: only []"
        raise ConfigError("behaviour.kl", config.behaviour.kl, allowed)
    source = config.behaviour.checkpoint or config.checkpoint
    if config.behaviour.iteration is not None and source is None:
        allowed = "needs a behaviour.checkpoint or a checkpoint"
        raise ConfigError("behaviour.iteration", config.behaviour.iteration, allowed)
    if config.iteration is not None and config.checkpoint is None:
        raise ConfigError("iteration", config.iteration, "needs a checkpoint")
