"""SELMTrainer: TRL's DPOTrainer plus the optimism term.

The preference loss and its metrics are the parent's own code, applied to the outputs of our
forward, so every `loss_type` of TRL works. The parts of TRL 1.16 that are used or overridden:
`_prepare_dataset`, `_set_signature_columns_if_needed`, `get_train_dataloader`, `get_batch_samples`,
`_prepare_inputs`, `_precompute_ref_logps`, `compute_ref_log_probs`, `_compute_loss`,
`training_step`, `log`, `_save_checkpoint`, `_metrics`, `loss_weights`, `aux_loss_enabled`.
"""

import math
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import DPOTrainer
from trl.models import prepare_deepspeed

from selm import progress
from selm.model.finite import (
    all_finite,
    diverged,
    in_optimizer,
    overflowed,
    require_finite_reference,
)
from selm.model.probe import make_chat
from selm.training.choice import choose, decide
from selm.training.config import SELMConfig
from selm.training.examples import ROLES, length, tokenize
from selm.training.forward import (
    METRICS_OF_LOGITS,
    PAIR_KEYS,
    Batch,
    SELMCollator,
    check_router,
    explored_logps,
    forward,
    pair_part,
)
from selm.training.objective import Term
from selm.training.order import MicroBatches
from selm.training.reference import Columns, ReferenceCache
from selm.training.self_check import self_check
from selm.training.shared_prefix import prepare

SFT = "sft"  # the one loss of TRL that is a mean over tokens
REF_COLUMNS = ("ref_chosen_logps", "ref_rejected_logps", "ref_explored_logps")


class SELMTrainer(DPOTrainer):
    """Minimises L_DPO + alpha * beta * (log pi(y|x) - log ref(y|x)), eq. 3.2 of arXiv 2405.19332,
    or another term of `selm.training.objective` in place of the second.

    Args:
        model: the policy; its present weights are the reference, unless `ref_model` is given.
        train_dataset: a `selm.data.schemas.PreferenceRow` each, or already tokenised by
            `selm.training.examples.tokenize`.
        processing_class: a tokenizer with a chat template.
        reference_cache: where the reference's log-probs are saved for a repeated training.

    Logged beside DPO's metrics: `loss/dpo` and `loss/optimism`, and if the term reads the explored
    response, `rewards/explored` and `logps/explored`.
    """

    args: SELMConfig

    def __init__(
        self,
        model: PreTrainedModel,
        args: SELMConfig,
        train_dataset: Dataset,
        processing_class: PreTrainedTokenizerBase,
        reference_cache: ReferenceCache | None = None,
        **kwargs: Any,
    ) -> None:
        chat = make_chat(processing_class)
        self.reference_cache = reference_cache
        self._loss_of_step = torch.zeros(())
        check_router(args, model.config)
        train_dataset = self._prepare_dataset(train_dataset, processing_class, args, "train")
        self.shared, why = self._choose(args, model, train_dataset, chat.tokenizer.pad_token_id)
        if self.shared:
            for each in (model, kwargs.get("ref_model")):
                if each is not None:
                    prepare(each)
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            processing_class=chat.tokenizer,
            data_collator=SELMCollator(chat.tokenizer.pad_token_id, shared=self.shared),
            **kwargs,
        )
        path = "shared" if self.shared else "padded"
        self.accelerator.print(f"forward: {path} ({why})")
        self.ref_model = None  # its log-probs are in the dataset now
        self._weights = tuple(self.loss_weights)

    def _choose(
        self, args: SELMConfig, model: PreTrainedModel, rows: Dataset, pad_token_id: int
    ) -> tuple[bool, str]:
        """Whether to take the shared path, which a self-check on this device may refuse, and why.

        Raises:
            UserError: the recipe asks for `shared`, and it cannot be taken.
        """
        shared, why = choose(args, model)
        if not shared:
            return shared, why
        why_not, found = self_check(model, args, rows, pad_token_id)
        if why_not is None:
            return shared, f"{why}; self-check: {found}"
        shared, why = decide(args.forward, f"the self-check of shared failed: {why_not}")
        PartialState().print(f"WARNING: {why}; training takes the padded path, which is slower")
        return shared, why

    def _prepare_dataset(
        self, dataset: Dataset, processing_class: Any, args: SELMConfig, dataset_name: str
    ) -> Dataset:
        """Tokenize through `chat`, not as TRL does: the prompt is what generation got."""
        if "prompt_ids" in dataset.column_names:
            return dataset
        rows, _ = tokenize(
            dataset, make_chat(processing_class), args.max_length, args.reads_explored
        )
        if not rows:
            raise ValueError(f"{dataset_name}: no row fits into max_length={args.max_length}")
        return Dataset.from_list(rows)

    def _set_signature_columns_if_needed(self) -> None:
        """The collator reads all columns."""
        if self._signature_columns is None:
            self._signature_columns = self.train_dataset.column_names

    def _prepare_inputs(self, inputs: Batch) -> Batch:
        """Reference log-probs stay in fp32: under DeepSpeed the parent rounds all floats to bf16,
        which moves a log-prob of -300 by up to 1."""
        reference = {key: inputs[key].to(self.args.device) for key in REF_COLUMNS if key in inputs}
        return super()._prepare_inputs(inputs) | reference

    def get_train_dataloader(self) -> DataLoader:
        """Puts rows of similar length together within a step, unless the order is not random."""
        arguments = self.args
        if arguments.train_sampling_strategy != "random":
            return super().get_train_dataloader()
        num_batches = arguments.gradient_accumulation_steps
        micro_batches = MicroBatches(
            [length(row) for row in self.train_dataset],
            rows=arguments.rows_per_step or self._train_batch_size * num_batches,
            num_batches=num_batches,
            processes=arguments.world_size,
            seed=arguments.seed if arguments.data_seed is None else arguments.data_seed,
            by_tokens=arguments.rows_per_step is not None,
        )
        loader = DataLoader(
            self.train_dataset,
            batch_sampler=micro_batches,
            collate_fn=self.data_collator,
            num_workers=arguments.dataloader_num_workers,
            pin_memory=arguments.dataloader_pin_memory,
        )
        return self.accelerator.prepare(loader)

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        """Add the reference's log-probs of all three responses, one column each."""

        def compute() -> Columns:
            columns = self._reference_log_probs(dataset, batch_size)
            require_finite_reference(columns)
            return columns

        cache = self.reference_cache
        columns = compute() if cache is None else cache.get(dataset, compute)
        for key, column in columns.items():
            dataset = dataset.add_column(key, column)
        return dataset

    def _reference_log_probs(self, dataset: Dataset, batch_size: int) -> Columns:
        loader = DataLoader(dataset, batch_size=batch_size, collate_fn=self.data_collator)
        model = self.ref_model or self.model
        if self.ref_model is None and self.is_deepspeed_enabled:
            model = prepare_deepspeed(self.model, self.accelerator)
        gathered: list[list[torch.Tensor]] = [[], [], []]
        batches = self.accelerator.prepare(loader)
        for batch in progress.each(batches, len(batches), "reference log-probs", "batch"):
            logps = self.compute_ref_log_probs(model, batch)
            for column, values in zip(
                gathered, self.accelerator.gather_for_metrics(logps), strict=True
            ):
                column.append(values.float().cpu())
        return {
            key: torch.cat(column).tolist()
            for key, column in zip(REF_COLUMNS, gathered, strict=True)
        }

    def compute_ref_log_probs(
        self, model: PreTrainedModel, inputs: Batch
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """log ref of chosen, rejected and explored, each (B,)."""
        role = inputs["explored_role"]
        sequences = {key: inputs[key] for key in PAIR_KEYS}
        # The parent returns its 2B + E sums in two halves.
        halves = super().compute_ref_log_probs(lambda **_: forward(model, inputs), sequences)
        logps = torch.cat(halves)
        rows = len(role)
        return logps[:rows], logps[rows : 2 * rows], explored_logps(logps, role)

    def _compute_loss(self, model: Any, inputs: Batch, return_outputs: bool) -> Any:
        """The parent's loss on the pair, plus the optimism term on the response that it reads."""
        output = forward(model, inputs, self.aux_loss_enabled)
        self.loss_weights = self._weights_of(inputs)
        pair_inputs, pair_output = pair_part(inputs, output)
        loss = super()._compute_loss(lambda **_: pair_output, pair_inputs, return_outputs=False)
        if self.shared:
            for key in METRICS_OF_LOGITS:
                self._metrics["train" if self.model.training else "eval"].pop(key)
        term = self.args.term
        if term is not None:
            loss = loss + self._optimism(term, loss.detach(), output.log_probs.sum(dim=1), inputs)
        if self.args.rows_per_step is not None and self.model.training:
            loss = loss * self._weigh(len(inputs["explored_role"]))
        return (loss, pair_output) if return_outputs else loss

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """A step's micro-batches; for `sft` each has its share of the chosen tokens.

        The share is relative to the mean over all micro-batches of all processes, which is 1.
        """
        batches, num_items = super().get_batch_samples(*args, **kwargs)
        if SFT in self.loss_types:
            chosen = [each["completion_mask"][: len(each["explored_role"]), 1:] for each in batches]
            counts = torch.stack([mask.sum() for mask in chosen]).float()
            mean = self.accelerator.gather(counts.to(self.args.device)).mean().cpu()
            for batch, share in zip(batches, (counts.cpu() / mean).tolist(), strict=True):
                batch["sft_share"] = share
        return batches, num_items

    def _weights_of(self, inputs: Batch) -> list[float]:
        """The losses' weights in this micro-batch: the weight of `sft` follows its chosen tokens.

        So the loss, a mean over tokens, is the mean over all tokens of the step, however the step
        is split. `_weigh` later multiplies by the share of rows, so that share is divided out here.
        """
        share = inputs.get("sft_share", 1.0)
        if self.args.rows_per_step is not None and "sft_share" in inputs:
            share /= self._row_share(len(inputs["explored_role"]))
        return [
            weight * share if kind == SFT else weight
            for kind, weight in zip(self.loss_types, self._weights, strict=True)
        ]

    def _row_share(self, rows: int) -> float:
        return rows * self.args.gradient_accumulation_steps / self.args.rows_per_step

    def _weigh(self, rows: int) -> float:
        """A micro-batch's rows divided by their mean number; multiplies its metrics by that, too.

        The Trainer takes the mean over micro-batches, so loss and metrics become means over rows.
        """
        weight = self._row_share(rows)
        for key, values in self._metrics["train"].items():
            if key != "num_tokens":  # a running count
                values[-1] *= weight
        return weight

    def _optimism(
        self, term: Term, dpo_loss: torch.Tensor, logps: torch.Tensor, inputs: Batch
    ) -> torch.Tensor:
        """The batch's mean optimism term; its parts go to the metrics."""
        role = inputs["explored_role"]
        if term.reads != "explored":
            role = torch.full_like(role, ROLES[term.reads])
        read, reference = explored_logps(logps, role), inputs[f"ref_{term.reads}_logps"]
        optimism = term.loss(read, reference, self.args.alpha, self.beta).mean()
        parts = {"loss/dpo": dpo_loss, "loss/optimism": optimism.detach()}
        if term.reads == "explored":  # TRL logs these of the chosen and the rejected ones
            parts["rewards/explored"] = self.beta * (read.detach() - reference)
            parts["logps/explored"] = read.detach()
        mode = "train" if self.model.training else "eval"
        for key, value in parts.items():
            self._metrics[mode][key].append(self.accelerator.gather(value).mean().item())
        return optimism

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """As in the parent, but a loss that is not finite ends the training in every process."""
        loss = super().training_step(*args, **kwargs)
        self._loss_of_step = self._loss_of_step.to(loss.device) + loss.detach()
        if self.accelerator.sync_gradients:  # the step's last micro-batch
            if not self._everywhere(all_finite([self._loss_of_step])):
                step, rate = self.state.global_step + 1, self._get_learning_rate()
                raise overflowed("the loss") if step == 1 else diverged("the loss", step, rate)
            self._loss_of_step = torch.zeros(())
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As in the parent, but a gradient that is not finite also ends the training.

        DeepSpeed would skip the step of such a gradient, and then all further steps. With fp16 such
        skips are normal, because they find the scale of the loss.
        """
        if "loss" in logs and not self.args.fp16:
            norm = logs.get("grad_norm") or 0.0  # DeepSpeed writes -1 if it is not finite
            taken = not self.accelerator.optimizer_step_was_skipped
            if not self._everywhere(taken and math.isfinite(norm) and norm >= 0):
                step = self.state.global_step
                raise diverged("the gradient", step, logs["learning_rate"])
        super().log(logs, start_time)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """As in the parent, but a state that is not finite is not saved and ends the training."""
        held = (*self.model.parameters(), *in_optimizer(self.optimizer.state))
        if not self._everywhere(all_finite(held)):
            step, rate = self.state.global_step, self._get_learning_rate()
            raise diverged("a weight or the optimizer's state", step, rate)
        super()._save_checkpoint(model, trial)

    def _everywhere(self, finite: bool) -> bool:
        """Whether this holds in all processes, so that all of them continue or all of them end."""
        return bool(self.accelerator.gather(torch.tensor([finite], device=self.args.device)).all())
