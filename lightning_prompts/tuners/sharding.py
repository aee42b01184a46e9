"""A frozen language model that is larger than one device: each device holds a part of every block.

With FSDP2 (`torch.distributed.fsdp.fully_shard`): a block's weights are gathered for its turn and
given back after it. Weights are frozen, so nothing of them is ever reduced or saved. The prompt is
whole on each device; outside of `fully_shard` nothing averages its gradient, so this does.
"""

from typing import TYPE_CHECKING

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import (
    DeepSpeedStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
    Strategy,
)
from torch import Tensor, nn

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.quantised import is_quantised
from lightning_prompts.tuners.views import PromptViews

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


class ShardedModel(ModelParallelStrategy):
    """Rows and the language model's blocks are divided over all processes, of all nodes.

    A step is what it is under `ddp`: the same prompt, the same checkpoints, which one process can
    load.

    Args:
        process_group_backend: By default nccl for GPUs, gloo for CPUs.
    """

    def __init__(self, process_group_backend: str | None = None) -> None:
        super().__init__(
            save_distributed_checkpoint=False, process_group_backend=process_group_backend
        )

    def setup_environment(self) -> None:
        """Every process has rows of its own, and a part of the model."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        self._tensor_parallel_size = 1
        super().setup_environment()

    def setup(self, trainer: Trainer) -> None:
        """Evaluate without inference mode, whose tensors FSDP2 cannot gather weights beside."""
        for loop in (trainer.validate_loop, trainer.test_loop, trainer.predict_loop):
            loop.inference_mode = False
        trainer.fit_loop.epoch_loop.val_loop.inference_mode = False
        super().setup(trainer)

    def post_backward(self, closure_loss: Tensor) -> None:
        """Average the gradients over the processes, before they are clipped.

        After each backward pass of a step: what was averaged before stays as it is.
        """
        super().post_backward(closure_loss)
        assert self.lightning_module is not None
        for parameter in self.lightning_module.parameters():
            if parameter.grad is not None:
                parameter.grad = self.reduce(parameter.grad, reduce_op="mean")

    # Checkpoints are the prompt's, as without sharding: the model, of which they have no weight, is
    # not gathered.
    restore_checkpoint_after_setup = Strategy.restore_checkpoint_after_setup
    lightning_restore_optimizer = Strategy.lightning_restore_optimizer
    lightning_module_state_dict = Strategy.lightning_module_state_dict
    load_model_state_dict = Strategy.load_model_state_dict
    optimizer_state = Strategy.optimizer_state
    load_optimizer_state_dict = Strategy.load_optimizer_state_dict
    load_checkpoint = Strategy.load_checkpoint


def spread(tuner: PromptViews) -> None:
    """Divide the language model over the processes where the strategy says so; once.

    Raises:
        PromptError: If the strategy is another one that divides models, or the tuner or an option
            does not go with it.
    """
    strategy = tuner.trainer.strategy
    if not isinstance(strategy, ShardedModel):
        if isinstance(strategy, FSDPStrategy | ModelParallelStrategy | DeepSpeedStrategy):
            raise PromptError(
                f"--trainer.strategy {type(strategy).__name__} would divide the prompt as well, or "
                "never average its gradient; take --config configs/trainer/model_parallel.yaml, "
                "which divides the language model alone."
            )
        return
    if not tuner.shards:
        raise PromptError(
            f"{type(tuner).__name__} does not go with a language model that is divided over "
            "devices: its processes score other prompts and rows, and would wait for one another; "
            "take SoftPrompt, PEZ or ManualPrompt, or --trainer.strategy ddp."
        )
    if tuner.lm.compiles:
        raise PromptError(
            "--lm.compile does not go with a language model that is divided over devices; leave "
            "it out."
        )
    if is_quantised(tuner.lm.model):
        raise PromptError(
            "A quantised language model cannot be divided over devices; leave --lm.quantize out, "
            "or take --trainer.strategy ddp."
        )
    if not tuner.lm.is_sharded:
        shard(tuner.lm, strategy.device_mesh["data_parallel"])


def shard(lm: FrozenLM, mesh: "DeviceMesh") -> None:
    """Leave this process, in place, its part of every block; the rest stays whole.

    Embeddings, final norm and head stay whole: they are read by row, and all at once in searches
    for the nearest token.

    Args:
        lm: Whole, on the CPU or on the mesh's device.
        mesh: One dimension: the processes.
    """
    from torch.distributed.fsdp import fully_shard  # no other run needs it

    _ = lm.fingerprint, lm.kin  # of the whole weights, remembered
    model = lm.body
    blocks = blocks_of(model)
    for block in blocks:
        # Said for each: what torch takes for the outermost module would stay gathered.
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    divided = {parameter for block in blocks for parameter in block.parameters()}
    whole = {parameter for parameter in model.parameters() if parameter not in divided}
    # Holds no weight itself: as the root it gathers the next block while one computes.
    fully_shard(model, mesh=mesh, reshard_after_forward=True, ignored_params=whole)
    lm.is_sharded = True


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The model's blocks: of its lists of modules the one with most parameters.

    Raises:
        PromptError: If it has no list of modules.
    """
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise PromptError(
            f"{type(model).__name__} has no list of blocks to divide over devices; use --trainer."
            "strategy ddp."
        )
    sizes = [sum(parameter.numel() for parameter in blocks.parameters()) for blocks in lists]
    return list(lists[sizes.index(max(sizes))])
