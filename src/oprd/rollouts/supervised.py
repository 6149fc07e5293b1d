"""What the student writes: which update on it is made, what came back, what is supervised."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from datasets import Dataset, IterableDataset
from torch import Tensor

from oprd.core.reduction import Reduction
from oprd.evaluation.stated import holds_answer
from oprd.log import get_logger
from oprd.models.batch import MULTIMODAL_KEYS, READS, SHARES
from oprd.models.own_tokens import Met, OwnTokens, add_responses
from oprd.models.rollout_engine import check_completions, check_ids
from oprd.models.views import add_prompts
from oprd.prompts.lengths import check_prompt_lengths, prompt_problem
from oprd.prompts.routes import Routes
from oprd.prompts.teacher import TeacherPrompts
from oprd.rollouts.ahead import Window
from oprd.rollouts.counts import BatchCounts, count, select
from oprd.rollouts.curriculum import Curriculum
from oprd.rollouts.origins import SUMS, Origins
from oprd.settings.run import OPRDConfig

Write = Callable[[list[list[int]]], list[list[int]]]
Tokenize = Callable[[list], list[list[int]]]
Decode = Callable[[list[list[int]]], list[str]]

logger = get_logger(__name__)


class Rollouts:
    """The rollouts of a run, from the prompts that are asked to the counts of a batch.

    Args:
        args: of the run.
        vocabularies: rows of the student's embedding and of the teacher's.
        contexts: the longest sequence that each model reads, by the model's name.
        ends: the tokens that end a response, of which the first stands in for an empty one.
        limit: most tokens of a response.
        teacher_prompts: by teacher, what it reads in the place of rows' prompts, where it does.
        routes: which of several teachers a row has; None for one.
        decode: makes text of responses, to see whether they hold an answer.
        own_tokens: by teacher, how it reads responses in tokens of its own, where it does.

    Attributes:
        write: writes in the engine's place while the student trains, if it is set: given prompts
            as token ids, it returns responses as token ids.
        select: adds the supervised `positions` to a generation batch.
        tokens: real tokens of the last training batch, over all processes.
        window: which rollouts, and which update on them, a micro-step is about.
        origins: the rollouts as they were written.
        curriculum: which prompts come again, where some do.
    """

    def __init__(
        self,
        args: OPRDConfig,
        vocabularies: tuple[int, int],
        contexts: Mapping[str, int],
        ends: Sequence[int],
        limit: int | None,
        teacher_prompts: Mapping[str, TeacherPrompts] | None = None,
        routes: Routes | None = None,
        decode: Decode | None = None,
        own_tokens: Mapping[str, OwnTokens] | None = None,
    ) -> None:
        self.write: Write | None = None
        self.select: Callable[[dict[str, Any], OPRDConfig], None] = select
        self.tokens = 0.0
        self.window = Window(
            args.gradient_accumulation_steps, args.updates_per_rollout, args.rollouts_ahead
        )
        self._args, self._ends, self._limit = args, tuple(ends), limit
        self._vocabularies, self._contexts = vocabularies, contexts
        self._teacher_prompts, self._routes = teacher_prompts or {}, routes
        self._decode, self._own_tokens = decode, own_tokens or {}
        self._empty_rows: list[int] = []
        self.origins = Origins(args)
        self.curriculum: Curriculum | None = None

    def fitting(self, dataset: Any, name: str, tokenize: Tokenize) -> Any:
        """A dataset with its prompts' lengths checked, where it has a length.

        Raises:
            ValueError: a prompt leaves no room for a response; see `check_prompt_lengths`.
        """
        if not isinstance(dataset, Dataset):
            return dataset
        drop, contexts, limit = self._args.long_prompts == "drop", self._contexts, self._limit
        columns = dataset.column_names
        own = {n: made for n, made in self._teacher_prompts.items() if made.differ(columns)}
        needs = any(made.say_otherwise(columns) for made in own.values())
        if self._args.remove_unused_columns and (needs or self._routes is not None):
            raise ValueError(
                "remove_unused_columns=True takes away what the teacher's prompts are made of, and "
                "who teaches a row: leave it out."
            )
        if self._routes is not None:
            self._routes.check_rows(dataset, name)
        contexts = {n: most for n, most in contexts.items() if n not in map(role, own)}
        dataset = check_prompt_lengths(dataset, tokenize, contexts, limit, drop=drop, name=name)
        for teacher, prompts in own.items():
            teaches = partial(self._teaches, teacher)
            dataset = prompts.fitting(dataset, name, drop=drop, teaches=teaches)
        return dataset

    def check_streamed(self, prompts: list, prompt_ids: list[list[int]]) -> None:
        """Refuse, with a ValueError, streamed prompts that leave no room for a response."""
        for prompt, ids in zip(prompts, prompt_ids, strict=True):
            if problem := prompt_problem(ids, self._contexts, self._limit):
                raise ValueError(f"the prompt {str(prompt)[:60]!r} {problem}")

    def receive(
        self, prompt_ids: list[list[int]], completions: list[list[int]], *, fill: bool = True
    ) -> None:
        """Check what came back, and give an empty completion an end token.

        TRL looks at the last token of every completion. The end token that one without any gets is
        masked out again when positions are selected.

        Args:
            prompt_ids: what was asked.
            completions: what was written, one for each.
            fill: whether to change those that are empty.

        Raises:
            RuntimeError: there are fewer completions than prompts, or more, or one is too long.
        """
        check_completions(prompt_ids, completions, self._limit)
        self._empty_rows = [row for row, ids in enumerate(completions) if fill and not ids]
        for row in self._empty_rows:
            completions[row] = [self._ends[0]]

    @property
    def kept_bytes(self) -> int:
        """Of what a checkpoint keeps of them at most."""
        return sum(own.bytes for own in (self.origins.replay, self.curriculum) if own is not None)

    def forget(self) -> None:
        """Begin anew, without rollouts of earlier steps and what was met."""
        self.origins.forget()
        if self.curriculum is not None:
            self.curriculum.forget()

    def supervise(
        self,
        output: dict[str, Any],
        sum_over_processes: Callable[[Tensor], Tensor],
        rows: Sequence[Mapping[str, Any]] = (),
    ) -> dict[str, float]:
        """Select and count the supervised positions of a whole generation batch.

        Args:
            output: TRL's, to which positions and counts are added, and the teacher's prompts.
            sum_over_processes: of a tensor.
            rows: of the dataset, those that the batch was written for.

        Returns:
            metrics of the batch.

        Raises:
            ValueError: a token is beyond the teacher's embedding, or a prompt is none that the
                teacher can read.
        """
        check_ids(output["completion_ids"], *self._vocabularies)
        output["completion_mask"][self._empty_rows] = 0
        self._add_teacher_prompts(output, rows)
        self.select(output, self._args)
        met = torch.tensor(self._read_own_tokens(output)).float()
        local = count(output, cast(Reduction, self._args.reduction))
        ways, taught = self._ways_to_end(output).to(local), self._route(output, rows).to(local)
        met = torch.cat([met, self.origins.tell(output)])
        summed = sum_over_processes(torch.cat([local, ways, taught, met.to(local)]))
        summed, met = summed.split([len(summed) - len(met), len(met)])
        counts = BatchCounts(*summed[: len(local)].unbind())
        if self._routes is not None:
            output[READS] = (summed[len(local) + len(ways) :] > 0).expand_as(output[SHARES])
        output["supervised_count"], output["response_count"] = counts.positions, counts.responses
        _, _, supervised, empty, self.tokens, sequences = torch.stack(counts).tolist()
        if not supervised:
            logger.warning("No position of this batch is supervised: its loss is zero.")
        stopped, answered = (summed[len(local) :][: len(ways)] / sequences).tolist()
        metrics = {
            "completions/empty_ratio": empty / sequences,
            "completions/unsupervised_ratio": 1 - supervised / sequences,
            "completions/stopped_ratio": stopped,
            "completions/cut_ratio": 1 - stopped - empty / sequences,
        }
        if self._decode is not None:
            metrics["completions/answer_ratio"] = answered
        if self.curriculum is not None and self.origins.trains:
            metrics["curriculum/error_ratio"] = self.curriculum.ratio
        metrics |= self.origins.metrics(output, met[-SUMS:], sequences)
        if self._own_tokens:
            shared, tokens, only_ends = met[:-SUMS].tolist()
            metrics["completions/shared_ratio"] = shared / max(tokens, 1)
            metrics["completions/only_ends_ratio"] = only_ends / sequences
        return metrics

    def _ways_to_end(self, output: Mapping[str, Any]) -> Tensor:
        """[2]: how many responses end in an end token, and how many hold an answer."""
        ids, mask = output["completion_ids"], output["completion_mask"].bool()
        last = ids.gather(1, (mask.sum(dim=1, keepdim=True) - 1).clamp(min=0))[:, 0]
        ends = torch.tensor(self._ends, device=ids.device)
        stopped = torch.isin(last, ends) & mask.any(dim=1)
        texts = (
            self._decode([i[m].tolist() for i, m in zip(ids, mask, strict=True)])
            if self._decode
            else []
        )
        return torch.tensor([float(stopped.sum()), float(sum(map(holds_answer, texts)))])

    def _add_teacher_prompts(
        self, output: dict[str, Any], rows: Sequence[Mapping[str, Any]]
    ) -> None:
        pictures = any(key in output for key in MULTIMODAL_KEYS)
        if pictures and self._routes is not None:
            raise ValueError(
                "the rollouts have pictures, which several teachers cannot share: give one."
            )
        for name, own in self._teacher_prompts.items():
            prompts = own.batch(rows, partial(self._teaches, name), self._ends[0])
            if prompts is None:
                continue
            if pictures:
                raise ValueError(
                    "the rollouts have pictures, and a teacher's own prompts are text: leave "
                    "teacher_prompt and teacher_template out."
                )
            pad = 0 if name in self._own_tokens else self._ends[0]
            # Of a stream whose rows were others' so far it is unknown.
            add_prompts(output, prompts, pad, own.count or 1, name)

    def _read_own_tokens(self, output: dict[str, Any]) -> Met:
        """Let the only teacher read responses in its own tokens, where it does."""
        for name, own in self._own_tokens.items():
            if "tool_mask" in output:
                raise ValueError(
                    "teacher_tokenizer='own': what tools return is written in the student's chat "
                    "template, which the teacher does not have: leave tools out."
                )
            context, cut = self._contexts.get(role(name)), self._args.long_prompts == "drop"
            return add_responses(output, own, context, name, cut=cut)
        return Met(0, 0, 0)

    def _teaches(self, teacher: str, row: Mapping[str, Any]) -> bool:
        return self._routes is None or teacher in self._routes.named(row)

    def _route(self, output: dict[str, Any], rows: Sequence[Mapping[str, Any]]) -> Tensor:
        """[A]: how many sequences each of several teachers has; their shares are added."""
        if self._routes is None:
            return torch.zeros(0)
        shares = [self._routes.shares(row) for row in rows]
        output[SHARES] = torch.tensor(shares, device=output["completion_ids"].device)
        return (output[SHARES] > 0).sum(dim=0)


def role(teacher: str) -> str:
    """What messages call a teacher."""
    return f"teacher {teacher}".rstrip()


def check_source(dataset: Any, args: OPRDConfig, tools: object = None) -> None:
    """Refuse, with a ValueError, prompts that a setting cannot do with."""
    pictures = {"image", "images"} & set(getattr(dataset, "column_names", None) or ())
    for name, none in {"rollouts_ahead": 1, "teacher_prefix": None, "replay": 0}.items():
        if getattr(args, name) != none and (pictures or tools):
            raise ValueError(
                f"{name}={getattr(args, name)} is for responses to text in one go, and "
                f"{'the prompts have pictures' if pictures else 'tools answer in between'}: "
                f"{'set it to 1' if none else 'leave it out'}."
            )
    if args.curriculum and args.remove_unused_columns:
        raise ValueError(
            "curriculum='error' knows prompts by their rows, of which remove_unused_columns=True "
            "takes away what is no column of TRL's: leave it out."
        )
    if not isinstance(dataset, IterableDataset):
        return
    ones = dict.fromkeys(("rollouts_per_prompt", "updates_per_rollout", "rollouts_ahead"), 1)
    none = dict.fromkeys(("curriculum", "data_seed"))
    for name, default in {**ones, **none, "replay": 0, "long_prompts": "error"}.items():
        if getattr(args, name) != default:
            raise ValueError(
                f"{name}={getattr(args, name)!r} needs a dataset with a length, and this one is "
                "streamed."
            )
