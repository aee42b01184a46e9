"""Mistakes in options and configuration files."""

from collections.abc import Iterator

from soak.case import Case
from soak.world import fit

# Tuner to its options, each with values that are no good.
NUMBERS: dict[str, dict[str, tuple[str, ...]]] = {
    "soft": {
        "model.prompt_length": ("0", "-1", "400", "2.5", ".nan", "ten"),
        "model.perplexity_weight": ("2", "-0.1", ".nan", "nan", "null"),
        "model.optimizer.lr": ("-1", ".nan", ".inf", "fast"),
        "model.optimizer.weight_decay": ("-1",),
        "model.lr_scheduler.warmup_steps": ("-1",),
        "model.lr_scheduler.total_steps": ("0", "-5"),
        "model.lr_scheduler.final_fraction": ("-1", "2", ".nan"),
        "model.init.top": ("0", "-5"),
        "model.seed": ("-1", "1.5", "99999999999999999999"),
        "data.batch_size": ("0", "-4", "many", "null"),
        "data.val_batch_size": ("0",),
        "data.max_tokens": ("0", "5"),
        "data.num_workers": ("-1",),
        "data.train_rows": ("0",),
        "data.validation_rows": ("-1",),
        "data.shots": ("0", "1000"),
        "data.split": ("nan,nan,nan", "0.5,0.5", "1,1,1"),
        "data.seed": ("-1", "99999999999999999999"),
        "trainer.max_steps": ("-5", "x"),
        "trainer.max_epochs": ("-3",),
        "trainer.max_time": ("soon",),
        "trainer.val_check_interval": ("x", "0", "-1", ".nan"),
        "trainer.limit_val_batches": ("-3", "2.5", ".nan"),
        "trainer.limit_train_batches": ("-1", ".nan"),
        "trainer.accumulate_grad_batches": ("0", "-1"),
        "trainer.gradient_clip_val": ("-1", ".nan"),
        "trainer.log_every_n_steps": ("-1",),
        "trainer.precision": ("8-bit",),
        "trainer.num_nodes": ("0",),
        "faithfulness.every_n_validations": ("0", "-1"),
        "faithfulness.max_batches": ("0", "-1"),
        "scrutability.every_n_validations": ("0",),
        "prompt_text.neighbours": ("0", "-1"),
        "lm.text_cache": ("-1", ".nan"),
        "seed_everything": ("-1", "x", "99999999999999999999"),
    },
    "bounded": {"model.epsilon": ("-1", ".nan", "near")},
    "pez": {"model.langevin_beta": ("[1.0, 0.1]", "[0, 0]", "[1.0]")},
    "rlprompt": {
        "model.prompt_length": ("0",),
        "model.alpha": ("2", ".nan"),
        "model.prompts_per_step": ("0", "1"),
        "model.candidates": ("-1",),
        "model.kl_weight": ("-1", ".nan"),
        "model.entropy_weight": (".inf",),
        "model.target_rate": ("2",),
        "model.policy.top_k": ("0",),
        "model.policy.mlp_size": ("-1",),
        "model.policy.logit_bias": (".nan",),
        "model.reward.right": (".nan", "-1"),
    },
    "guided_search": {
        "model.candidates": ("0",),
        "model.beam": ("0",),
        "model.race": ("[8, 4]", "[0]"),
        "model.keep": ("0", ".nan"),
        "model.contenders": ("-1",),
        "model.min_length": ("20",),
        "model.max_length": ("0", "300"),
        "model.edits.temperature": ("0", ".nan", ".inf"),
        "model.edits.model_top_k": ("0",),
        "model.edits.proposals": ("1.5",),
        "model.edits.insert": ("-1", ".inf"),
        "model.keep_near_weight": ("-1", ".nan"),
        "model.floors": ("{grammar: .nan}", "{beauty: 1}", "{repetition: 0}", "{filler: 0.5}"),
    },
}


def cases() -> Iterator[Case]:
    """All of them."""
    yield from _numbers()
    yield from _configurations()
    yield from _names()
    yield from _contradictions()
    yield from _prompts()


def _numbers() -> Iterator[Case]:
    for tuner, options in NUMBERS.items():
        for option, values in options.items():
            for value in values:
                yield Case(
                    "number",
                    f"{tuner}: --{option} {value}",
                    fit(f"--{option}={value}", tuner=tuner),
                )


def _configurations() -> Iterator[Case]:
    files: dict[str, tuple[str | bytes, tuple[str, ...]]] = {
        "misspelt key": ("model: {init_args: {prompt_lenght: 3}}\n", ("prompt_length",)),
        "misspelt block": ("modle: {init_args: {prompt_length: 3}}\n", ("model",)),
        "wrong type": ("data: {init_args: {batch_size: many}}\n", ("batch_size", "many")),
        "unknown class": ("model: {class_path: SoftPromt}\n", ("SoftPrompt",)),
        "bad YAML": ("model: {init_args: [\n", ("YAML",)),
        "tabs in YAML": ("model:\n\tinit_args: {}\n", ("YAML",)),
        "no mapping": ("- model\n- data\n", ("options",)),
        "empty file": ("", ("options",)),
        "binary file": (bytes(range(256)), ("YAML",)),
        "latin-1 file": ("experiment: café\n".encode("latin-1"), ("YAML",)),
        "wrong nesting": ("model: {prompt_length: {init_args: 3}}\n", ()),
        "option outside its block": ("prompt_length: 3\n", ("prompt_length",)),
        "init_args is a list": ("model: {init_args: [3]}\n", ()),
        "code in YAML": ("experiment: !!python/object/apply:os.system ['touch pwned']\n", ()),
        "a key twice": (
            "model: {init_args: {prompt_length: 3}}\nmodel: {init_args: {prompt_length: 4}}\n",
            ("model",),
        ),
        "NaN for a whole number": ("model: {init_args: {prompt_length: .nan}}\n", ()),
        "a study in place of a run": ("study: {name: x}\n", ("study",)),
    }
    for name, (content, says) in files.items():
        args = fit("--config", "mine.yaml")
        yield Case("configuration", name, args, says, {"mine.yaml": content})
    yield Case("configuration", "missing file", fit("--config", "nope.yaml"), ("nope.yaml",))
    yield Case("configuration", "a folder", fit("--config", "<data>"), ("--config",))
    yield Case("configuration", "no value after --config", fit("--config"), ("--config",))
    yield Case("configuration", "nothing at all", ("fit",), ("--config",))
    yield Case("configuration", "no tuner", ("fit", "--config", "configs/task/demo.yaml"))
    yield Case("configuration", "no command", (), ("fit",))
    yield Case("configuration", "unknown command", ("tune",), ("fit",))
    yield Case("configuration", "command after options", ("--seed_everything", "3", "fit"))
    yield Case(
        "configuration",
        "an argument without an option",
        fit("stray"),
        ("stray",),
    )


def _names() -> Iterator[Case]:
    given: dict[str, tuple[str, ...]] = {
        "misspelt option": ("--model.prompt_lenght", "3"),
        "option of another tuner": ("--model.alpha", "0.5"),
        "unknown tuner": ("--model", "SoftPromt"),
        "unknown task": ("--data", "Emotions"),
        "a tuner that is no tuner": ("--model", "torch.nn.Linear"),
        "unknown optimizer": ("--model.optimizer", "torch.optim.Adamm"),
        "option of another optimizer": ("--model.optimizer.momentum", "0.9"),
        "unknown initialiser": ("--model.init", "FromNothing"),
        "unknown schedule": ("--model.lr_scheduler", "Cosine"),
        "unknown projection": ("--model.projection", "hamming"),
        "no projection": ("--model.projection", "null"),
        "unknown precision": ("--trainer.precision", "7"),
        "unknown strategy": ("--trainer.strategy", "dpp"),
        "unknown accelerator": ("--trainer.accelerator", "abacus"),
        "unknown profiler": ("--trainer.profiler", "fast"),
        "unknown callback": ("--trainer.callbacks", "Nope"),
        "unknown logger": ("--trainer.logger", "Nope"),
        "unknown type of weights": ("--lm.dtype", "int8"),
        "unknown kernel": ("--lm.attn_implementation", "fast"),
        "unknown metric to choose by": ("--checkpoint.monitor", "val/acuracy"),
        "unknown mode": ("--checkpoint.mode", "most"),
        "unknown measure": ("--scrutability.panel", "[beauty]"),
        "unknown positions": ("--faithfulness.positions", "all"),
        "a class for a number": ("--model.prompt_length", "{class_path: x}"),
        "an experiment outside the log folder": ("--experiment", "../../outside"),
        "an experiment with an absolute path": ("--experiment", "<here>/outside"),
    }
    for name, options in given.items():
        yield Case("name", name, fit(*options))
    yield Case("name", "unknown loss", fit("--model.loss=ppo", tuner="rlprompt"), ("soft_q",))
    yield Case("name", "unknown start", fit("--model.policy.start=x", tuner="rlprompt"), ("zero",))
    yield Case("name", "unknown filter", fit("--model.filters.x=1", tuner="guided_search"))


def _contradictions() -> Iterator[Case]:
    soft: dict[str, tuple[str, ...]] = {
        "shots and train_rows": ("--data.shots=2", "--data.train_rows=4"),
        "an option that another decides": ("--model.template", "{text}{prompt}"),
        "the run's name given twice": ("--trainer.logger.name", "x"),
        "revision of a local model": ("--lm.revision", "v1"),
        "revision of local data": ("--data.data_revision", "v1"),
        "subset of local data": ("--data.subset", "mini"),
        "start without a text": ("--model.init", "FromText", "--model.init.text="),
        "start from a missing prompt": ("--model.init=FromCheckpoint", "--model.init.path=no.ckpt"),
        "start: top_k 0": ("--model.init=FromModel", "--model.init.text=x", "--model.init.top_k=0"),
        "start: temperature 0": (
            *("--model.init=FromModel", "--model.init.text=x"),
            "--model.init.temperature=0",
        ),
        "start: temperature inf": (
            *("--model.init=FromModel", "--model.init.text=x"),
            "--model.init.temperature=.inf",
        ),
        "scorer that is not there": ("--scrutability.scorer", "<here>/nope"),
        "float16 on a CPU": ("--trainer.precision=16-true",),
    }
    for name, options in soft.items():
        yield Case("contradiction", name, fit(*options))
    others: dict[str, tuple[str, tuple[str, ...]]] = {
        "noise without projected steps": (
            "pez",
            ("--model.keep_continuous=true", "--model.langevin_beta=[1.0,0.1]"),
        ),
        "every kind of edit off": (
            "guided_search",
            ("--model.edits.substitute=0", "--model.edits.substitute_two=0"),
        ),
        "a search with accumulated gradients": (
            "guided_search",
            ("--trainer.accumulate_grad_batches=2",),
        ),
        "models that score twice": ("guided_search", ("--model.also_lm=[<lm>, <lm>]",)),
        "a model that is not there beside the tuned one": (
            "guided_search",
            ("--model.also_lm=<here>/nope",),
        ),
        "the tuned model again": ("guided_search", ("--model.also_lm=<lm>",)),
        "a prompt to match that is not there": ("guided_search", ("--model.match=no.ckpt",)),
        "a meaning of no words": ("guided_search", ("--model.keep_near=",)),
        "a start below its floors": ("guided_search", ("--model.floors={real_words: 1}",)),
        "an empty written prompt": ("manual", ("--model.text=",)),
        "a policy that is not there": ("rlprompt", ("--model.policy.lm=<here>/nope",)),
        "a policy's text too long": ("rlprompt", ("--model.policy.source_text=" + "x" * 300,)),
        "style transfer without classifiers": (
            "rlprompt",
            ("--model.reward=StyleTransfer", "--model.reward.style=<here>/nope"),
        ),
    }
    for name, (tuner, options) in others.items():
        yield Case("contradiction", name, fit(*options, tuner=tuner))


def _prompts() -> Iterator[Case]:
    """Commands that are given prompts, texts or models in place of a tuner."""
    given: dict[str, tuple[tuple[str, ...], str]] = {
        "measure: nothing": (("measure",), "which prompts"),
        "transfer: no model": (("transfer", "a text"), "--lm.name"),
        "inspect: nothing": (("inspect",), "which prompt"),
        "inspect: two prompts": (("inspect", "a", "b"), "2 prompts"),
        "inspect: no rows": (("inspect", "a", "--rows", "0"), "at least 1"),
        "inspect: an unknown measure": (("inspect", "a", "--panel", "beauty"), "beauty"),
        "inspect: a run that is not there": (("inspect", "./nope"), "./nope"),
        "inspect: no task": (("inspect", "a"), "--data"),
        "validity: no model": (("validity",), "--lm.name"),
        "validity: a model that is not there": (("validity", "--lm.name=./nope"), "./nope"),
        "validity: an unknown measure": (
            ("validity", "--lm.name=<lm>", "--measures", "gramar"),
            "grammar",
        ),
        "validity: no file": (("validity", "--lm.name=<lm>", "--learned=no.yaml"), "no.yaml"),
    }
    for name, (args, says) in given.items():
        yield Case("prompts", name, args, (says,))
