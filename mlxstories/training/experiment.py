"""A training run from its parts: new, resumed, and finished with its result and samples."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlxstories.backend import kernels, memory
from mlxstories.data.counts import baselines
from mlxstories.data.dataset import DataConfig, Dataset, load_dataset
from mlxstories.distributed import ALONE, Group
from mlxstories.distributed.follower import FollowerRun
from mlxstories.errors import StoriesError
from mlxstories.generation.decoding import Generated, generate
from mlxstories.generation.sampling import SamplingConfig
from mlxstories.model import MlxLmConfig, ModelConfig, Transformer, build_model, parameter_count, read_config
from mlxstories.runs import checkpoints
from mlxstories.runs.checkpoint_state import Checkpoint
from mlxstories.runs.directory import Run, write_json, write_text
from mlxstories.storage.serialize import from_dict, to_dict
from mlxstories.training.config import TrainingConfig, require_alone
from mlxstories.training.evaluation import Evaluation, Evaluator
from mlxstories.training.memory import require_for_training
from mlxstories.training.phases import PHASE_1, Phase
from mlxstories.training.trainer import Trainer

SAMPLES = 3
MOST_COUNTED = 20_000_000  # tokens whose pairs are counted in memory
Report = Callable[[dict], None]


def new_model(config: ModelConfig | MlxLmConfig, seed: int) -> Transformer:
    """A randomly initialised model; the same configuration and seed give the same weights.

    Raises:
        StoriesError: its weights do not fit into memory.
    """
    model = planned_model(config, seed)
    mx.eval(model.parameters())
    return model


def planned_model(config: ModelConfig | MlxLmConfig, seed: int) -> Transformer:
    """A model whose weights have not been drawn yet."""
    mx.random.seed(seed)
    model = build_model(config)
    count = parameter_count(model)
    memory.require(4 * count, f"a model of {count:,} parameters", "take a smaller one")
    return model


def train(
    path: Path,
    dataset: Dataset,
    model_config: ModelConfig | MlxLmConfig,
    phase: Phase = PHASE_1,
    training: TrainingConfig = TrainingConfig(),  # noqa: B008  (frozen)
    report: Report = lambda record: None,
) -> dict[str, Any] | None:
    """A whole training, from random weights to result and samples in the run directory ``path``.

    Returns:
        What `finish` writes, or None when a signal stopped it; `resume` goes on then.

    Raises:
        NotFinite: the loss or a gradient is not finite; checkpoints written before stay.
        StoriesError: as `start`, or the run directory cannot be written.
    """
    trainer = start(path, dataset, model_config, phase, training, report)
    with trainer.run.locked():
        evaluation = trainer.train()
        return None if evaluation is None else finish(trainer, evaluation)


def start(
    path: Path,
    dataset: Dataset,
    model_config: ModelConfig | MlxLmConfig,
    phase: Phase,
    training: TrainingConfig,
    report: Report,
    group: Group = ALONE,
    command: str | None = None,
    weights: Any = None,
    begun: dict[str, Any] | None = None,
) -> Trainer:
    """Create the run directory ``path`` and a trainer at step 0; ``command`` is the one typed, for the record.

    ``weights``, a tree of those of ``model_config``, are trained on instead of random ones; ``begun`` says for the
    record where they are from. They are saved as step 0, so that a run resumed before its first checkpoint has them.

    Every process of ``group`` calls it with the same; the directory is made when all are ready to train.

    Raises:
        StoriesError: what was given cannot be trained, or not by so many processes; or it is not the same on all.
    """
    recipe = {
        "model": to_dict(model_config),
        "phase": to_dict(phase),
        "data": to_dict(dataset.config),
        "training": to_dict(training),
    }
    group.require_equal({**recipe, "fingerprint of the stories": dataset.fingerprint})
    run = Run(path) if group.leads else FollowerRun(path, recipe)
    trainer = group.together(lambda: _trainer(model_config, phase, dataset, training, run, report, group))
    config = {
        **recipe,
        "seed": training.seed,
        "fingerprint": dataset.fingerprint,
        "floor": dataset.floor and {"nats": dataset.floor.nats, "accuracy": dataset.floor.accuracy},
        "parameters": parameter_count(trainer.model),
        "command": command,
        "versions": {
            "mlxstories": version("mlxstories"),
            "mlx": version("mlx"),
            "python": platform.python_version(),
        },
    }
    if weights is not None:
        trainer.model.update(weights)
        config["begun"] = begun
    first = None if weights is None else trainer.save_in
    group.together(lambda: Run.create(path, config, dataset.tokenizer, first) if group.leads else None)
    return trainer


def _trainer(
    model_config: ModelConfig | MlxLmConfig,
    phase: Phase,
    dataset: Dataset,
    training: TrainingConfig,
    run: Run,
    report: Report,
    group: Group,
) -> Trainer:
    """At step 0, with new weights."""
    if training.max_repairs:
        require_alone(group.size)
    rows = training.share(group.size)
    kernels.try_compiling()
    model = planned_model(model_config, training.seed)
    trainer = Trainer(model, phase, dataset, training, run, report, group=group)
    require_for_training(model, trainer.optimizer.state, rows, getattr(mx, training.dtype))
    mx.eval(model.parameters())
    return trainer


def resume(run: Run, report: Report, group: Group = ALONE) -> Trainer:
    """A trainer at the run's last checkpoint, or at step 0 if it ended before the first one.

    The number of processes may have changed; where there are several, ``run`` is of `open_run`.

    Raises:
        StoriesError: the run has finished, is damaged, in use by another process, or its data is no longer what it
            was trained on.
    """
    trainer = group.together(lambda: _trainer(*recipe_of(run), run, report, group))

    def last() -> Checkpoint | None:
        checkpoint = run.checkpoint("last") if run.saved() else None
        done = checkpoint and trainer.has_finished(trainer.progress_of(checkpoint))
        if done and run.file("result.json").is_file():
            raise StoriesError(
                f"{run.path} has finished after {checkpoint.step} updates: nothing to resume. --from {run.path} begins "
                "a new run with its weights."
            )
        return checkpoint

    with run.locked():
        trainer.resume(group.together(last))
    return trainer


def recipe_of(run: Run) -> tuple[ModelConfig | MlxLmConfig, Phase, Dataset, TrainingConfig]:
    """What a run was started with: model, phase, stories, length and batches."""
    config = run.config
    if "data" not in config:
        raise StoriesError(
            f"{run.path} was imported without a recipe, so there is no training to go on with."
        )
    training = config.get("training")
    if isinstance(training, dict) and "every" in training:
        training.setdefault("save_every", training.pop("every"))  # its name until 0.1
    parts = {
        name: from_dict(cls, config.get(name), f"{run.path}/config.json, {name}")
        for name, cls in {
            "phase": Phase,
            "data": DataConfig,
            "training": TrainingConfig,
        }.items()
    }
    tokenizer = run.tokenizer()
    try:
        dataset = load_dataset(parts["data"], tokenizer)
    except StoriesError as error:
        raise StoriesError(
            f"{run.path} needs the stories that it was started with: {error}. Put them back where they were, and call "
            "this from the folder where it was started."
        ) from error
    if dataset.fingerprint != config.get("fingerprint"):
        raise StoriesError(
            f"the data found here is not what {run.path} was started with: put that back, or begin a new run with its "
            f"weights: mlxstories train --from {run.path}, and --data."
        )
    shape = read_config(config.get("model"), f"{run.path}/config.json, model")
    return shape, parts["phase"], dataset, parts["training"]


def finish(trainer: Trainer, evaluation: Evaluation) -> dict[str, Any]:
    """Write ``result.json`` and ``samples.txt``, and return the result.

    Figures and samples are of the weights with the lowest validation loss; ``evaluation`` is that of the last ones.
    """
    run, dataset, progress = trainer.run, trainer.dataset, trainer.progress
    floor, model, last = dataset.floor, trainer.model, trainer.model.parameters()
    best = run.checkpoint("best")
    measured = evaluation
    if best.step != progress.step:
        checkpoints.restore(best, model)
        measured = Evaluator(model)(dataset.val, floor)
    decoder = model.config.arch == "decoder"
    result = {
        **dataclasses.asdict(measured),
        "bits_per_character": dataset.bits_per_character(measured.loss) if decoder else None,
        "best_step": best.step,
        "cooldown": progress.cooldown and dataclasses.asdict(progress.cooldown),
        "last": {"loss": evaluation.loss, "accuracy": evaluation.accuracy},
        "floor": floor and floor.nats,
        "ceiling": floor and floor.accuracy,
        "baselines": None if floor or not decoder else _baselines(dataset),
        "steps": progress.step,
        "trained_tokens": progress.tokens,
        "epochs": progress.step / trainer.updates_per_epoch,
        "seconds": progress.seconds,
        "repairs": trainer.repairs,
        "extra_updates": progress.extra_updates,
        "seed": trainer.config.seed,
        "parameters": parameter_count(model),
        "samples": [],
    }
    if decoder:
        told = tell(model, SAMPLES, seed=trainer.config.seed, end=dataset.tokenizer.end)
        result["samples"] = [dataset.tokenizer.decode(story.tokens) for story in told]
        write_text(run.path / "samples.txt", "\n<|endoftext|>\n".join(result["samples"]) + "\n")
    write_json(run.path / "result.json", result)
    model.update(last)
    return result


def _baselines(dataset: Dataset) -> dict[str, float] | None:
    """What counts alone reach on the held-out stories; None where there is too much text to count."""
    if dataset.train.targets > MOST_COUNTED:
        return None
    return baselines(dataset.train, dataset.val, dataset.tokenizer.vocab_size)


def tell(model: Transformer, count: int, *, seed: int, end: int) -> list[Generated]:
    """Stories from the model as it is, at temperature 0.8."""
    return generate(
        model,
        [[]] * count,
        max_tokens=model.config.context - 1,
        sampling=SamplingConfig(temperature=0.8),
        seed=seed,
        end=end,
    )
