"""fit, validate, test and predict: Lightning's command line with every part of a run in place."""

import importlib
import pkgutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException

import lightning_prompts.tasks
import lightning_prompts.tuners
from lightning_prompts.callbacks import Baselines, Faithfulness, PromptText, Scrutability
from lightning_prompts.callbacks.base import callback_of
from lightning_prompts.callbacks.finite_numbers import FiniteNumbers
from lightning_prompts.callbacks.progress import StepProgress
from lightning_prompts.callbacks.rendered import Rendered
from lightning_prompts.cli import completion, outcome
from lightning_prompts.cli.commands import DESCRIPTION, RUNS, command_of
from lightning_prompts.cli.option_values import Option, options_of, refuse_nulls, refuse_numbers
from lightning_prompts.cli.parser import (
    LINKED,
    PromptParser,
    default_config,
    find_configs,
    flat_names,
    given_options,
    refuse_linked,
)
from lightning_prompts.cli.rendezvous import check_rendezvous
from lightning_prompts.cli.trainer_parts import refuse_parts
from lightning_prompts.cli.unusable import refuse_unusable
from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.lightning_internals import number_logged_steps
from lightning_prompts.files.stages import Stage
from lightning_prompts.files.text import PROGRAM
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.report.board import PromptFigures
from lightning_prompts.runs.best_prompt import BestPrompt, restore_prompt
from lightning_prompts.runs.checkpoint_io import use_whole_checkpoints
from lightning_prompts.runs.folder import choose_run_folder, require_writable
from lightning_prompts.runs.last_prompt import LastPrompt
from lightning_prompts.runs.lock import run_locked
from lightning_prompts.runs.other_callbacks import welcome
from lightning_prompts.runs.predictions import Predictions
from lightning_prompts.runs.prompt_list import PromptList
from lightning_prompts.runs.requeue import Requeue, requeue_job
from lightning_prompts.runs.results_of_test import Tested
from lightning_prompts.runs.resume_check import SameRun, refuse_other_run
from lightning_prompts.runs.save_config import SaveConfig
from lightning_prompts.tasks.base import PromptTask
from lightning_prompts.tuners.base import PromptTuner

# Sections of a configuration, at its top level: a YAML's own `trainer.callbacks` cannot lose them.
SECTIONS: dict[str, type[Callback]] = {
    "scrutability": Scrutability,
    "faithfulness": Faithfulness,
    "prompt_text": PromptText,
    "baselines": Baselines,
    "checkpoint": BestPrompt,
}
PREDICTIONS_SECTION = "predictions"  # of `predict` alone

# What the trainer raises for options that do not go together, or not on this machine.
UNFIT = (ValueError, TypeError, MisconfigurationException, ImportError)


class PromptCLI(LightningCLI):
    """fit, validate, test and predict for every tuner and task.

    Args:
        args: As on the command line.
        run: False builds everything and runs nothing.
        show: False leaves out the closing table.
        make_lm: Gives the language model of the configuration's `lm` options.
        folder: Of a new run; by default the next version of its experiment.
    """

    model: PromptTuner
    datamodule: PromptTask

    def __init__(
        self,
        args: ArgsType,
        run: bool = True,
        show: bool = True,
        make_lm: Callable[..., FrozenLM] = FrozenLM,
        folder: Path | None = None,
    ) -> None:
        self.given: set[str] = set()
        self.folder = folder
        self.runs, self.shows, self.make_lm = run, show, make_lm
        self.command = command_of(args)
        for package in (lightning_prompts.tuners, lightning_prompts.tasks):
            import_all(package)
        defaults = {"default_config_files": [str(default_config())]}
        commands = {name: {"description": text, **defaults} for name, text in RUNS.items()}
        super().__init__(
            PromptTuner,
            PromptTask,
            args=args,
            parser_class=PromptParser,
            # An abbreviated option would be taken for another one some day.
            parser_kwargs={
                "prog": PROGRAM,
                "description": DESCRIPTION,
                "allow_abbrev": False,
                **commands,
            },
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            save_config_callback=None,  # SaveConfig is added with the other callbacks
        )

    # ---- parsing

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the language model, the sections and --experiment, and link what is said once."""
        parser.add_argument(
            "--experiment",
            type=str | None,
            default=None,
            help="Runs go to logs/EXPERIMENT/version_N; by default <tuner>-<task>.",
        )
        parser.add_class_arguments(FrozenLM, "lm")
        assert isinstance(parser, PromptParser)
        parser.makers = ((lambda _, **options: self.make_lm(**options), FrozenLM, False),)
        for part in ("model", "data"):
            parser.link_arguments("lm", f"{part}.init_args.lm", apply_on="instantiate")
        for name in ("template", "verbalizer"):
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")
        for section, callback in SECTIONS.items():
            parser.add_lightning_class_args(callback, section)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse, refuse what would be ignored, and decide what follows from the rest."""
        configs: list[Path] = []
        if isinstance(args, list):
            args, configs = find_configs(args)
            self.given.update(given_options(args, configs, self.command))
            refuse_linked(self.given)
            self.config = parser.parse_args(args)
        else:
            refuse_unusable("", dict(args or {}))
            self.config = parser.parse_object(args)
            self.given.update(flat_names(dict(args or {})[self.config.subcommand]))
            refuse_linked(self.given)
        command = self.config.subcommand
        config = self.config[command]
        given = config.as_dict()
        options = parsed_options(config)
        refuse_numbers(options)
        refuse_nulls(options, LINKED)
        refuse_parts(given["trainer"])
        parsed = config.clone()
        completion.complete(config, command, self.given, configs, self.folder)
        if not config.trainer.fast_dev_run:
            fix = "choose another with --trainer.logger.save_dir"
            if config.ckpt_path is not None:  # whose run is written to, whatever the loggers say
                fix = "to go on elsewhere, copy the checkpoint and give the copy with --ckpt_path"
            require_writable(completion.place(config), fix)
        self.saved = completion.reusable(parsed, config, self.given)

    def _prepare_subcommand_parser(
        self, klass: type, subcommand: str, **kwargs: Any
    ) -> LightningArgumentParser:
        if self.command not in ("", subcommand):  # most of the time would go into the other three
            return self.init_parser(description=kwargs["description"])
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand == "predict":
            parser.add_lightning_class_args(Predictions, PREDICTIONS_SECTION)
        # The table at the end and predictions.jsonl take their place.
        unwanted = {"validate": "verbose", "test": "verbose", "predict": "return_predictions"}
        if subcommand in unwanted:
            parser.set_defaults({unwanted[subcommand]: False})
        return parser

    def _parse_ckpt_path(self) -> None:
        """The configuration decides: Lightning would overwrite it from the checkpoint."""

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add the callbacks that have no options."""
        configured = self._get(self.config_init, "trainer")
        given = configured.callbacks if isinstance(configured.callbacks, list) else []
        own_bar = any(isinstance(callback, ProgressBar) for callback in given)
        save = SaveConfig(self._parser(self.subcommand), self.saved)
        callbacks: list[Callback] = [save, Tested(), PromptFigures(), PromptList(), LastPrompt()]
        if self.command != "predict":  # where it is a section
            callbacks.append(Predictions())
        callbacks += [FiniteNumbers(), Rendered(), SameRun(self.config[self.subcommand]), Requeue()]
        if configured.enable_progress_bar is not False and not own_bar:
            callbacks.append(StepProgress())
        self.trainer_defaults["callbacks"] = callbacks
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except UNFIT as error:
            raise PromptError(f"--trainer: {str(error).rstrip('.')}.") from error
        check_rendezvous(trainer)
        for precision in (configured.precision, trainer.precision):  # or a plugin's
            completion.refuse_half_on_cpu(precision, trainer.strategy.root_device)
        completion.refuse_own_clocks(configured.val_check_interval, trainer.world_size)
        if not isinstance(trainer.logger, TensorBoardLogger):
            # Others have no folder, or none that can be written to again.
            choose_run_folder(trainer, Path(trainer.default_root_dir))
        use_whole_checkpoints(trainer)
        welcome(trainer)
        return trainer

    # ---- running

    def start(self) -> None:
        """Run what was built with `run=False`."""
        super()._run_subcommand(self.config.subcommand)

    def _run_subcommand(self, subcommand: str) -> None:
        if self.runs:
            super()._run_subcommand(subcommand)

    def fit(self, **kwargs: Any) -> None:
        """Train, take back the best prompt, and show it; also where the run was stopped."""
        with run_locked(self.trainer), outcome.explained(self.trainer):
            self._fit(**kwargs)

    def _fit(self, **kwargs: Any) -> None:
        signum = None
        if kwargs["ckpt_path"]:
            content = completion.read_checkpoint(Path(kwargs["ckpt_path"]))
            config = self.config[self.command]
            refuse_other_run(content, config, self.trainer, self.model, self.datamodule)
        start = self._announce(**kwargs)
        try:
            self.trainer.fit(**kwargs)
        except SIGTERMException:
            signum = callback_of(self.trainer, LastPrompt).stopped_by or signal.SIGTERM
        else:
            outcome.require_steps(self.trainer, self.model, start)
        best = Path(callback_of(self.trainer, BestPrompt).best_model_path)
        if best.is_file():
            restore_prompt(self.model, best)
        if self.shows and self.trainer.is_global_zero:
            stopped = signum is not None
            outcome.fitted(self.trainer, self.model, self.datamodule, start, stopped)
        if signum is not None:
            # Lightning leaves out the end of fit, where TensorBoard gets the best prompt.
            if best.is_file():
                callback_of(self.trainer, PromptText).write_best(self.trainer, self.model)
            if callback_of(self.trainer, Requeue).asked and self.trainer.is_global_zero:
                requeue_job()
            # Lightning kills the first process where another one ends with an error first.
            raise SystemExit(128 + signum if self.trainer.is_global_zero else 0)

    def validate(self, **kwargs: Any) -> None:
        """Measure a prompt on the validation rows."""
        self._evaluate(self.trainer.validate, "val", **kwargs)

    def test(self, **kwargs: Any) -> None:
        """Measure a prompt on the test rows."""
        self._evaluate(self.trainer.test, "test", **kwargs)

    def predict(self, **kwargs: Any) -> None:
        """Write predictions.jsonl, or the file that was asked for."""
        self._announce(**kwargs, ahead=not callback_of(self.trainer, Predictions).streams)
        self.trainer.predict(**kwargs)
        if self.trainer.is_global_zero:
            outcome.predicted(self.trainer, self.datamodule)

    def _announce(self, ckpt_path: str | None, ahead: bool = True, **_: Any) -> int:
        step = outcome.announce(self.trainer, self.model, self.datamodule, ckpt_path)
        if ahead:
            self.datamodule.read_ahead(self.trainer, self.config.subcommand)
        return step

    def _evaluate(self, run: Callable[..., Any], stage: Stage, **kwargs: Any) -> None:
        step = self._announce(**kwargs)
        # Lightning would log the metrics at step 0, in the middle of the run's own curves.
        number_logged_steps(self.trainer, step)
        run(**kwargs)
        if self.shows:
            outcome.evaluated(self.trainer, self.model, self.datamodule, stage)


def parsed_options(config: Namespace) -> list[Option]:
    """All options of a command's configuration, with their types."""
    owners = {"lm": FrozenLM, "trainer": Trainer, PREDICTIONS_SECTION: Predictions, **SECTIONS}
    return list(options_of(config.as_dict(), owners))


def import_all(package: ModuleType) -> None:
    """Import every module of a package, so that its classes are known by their bare names."""
    for found in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{found.name}")
