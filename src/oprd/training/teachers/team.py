"""The teachers of a run, one or several: what goes with each, and how the student meets all."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from oprd.calibration.bridge.check import bridge_facts
from oprd.calibration.pairing import PairedLayers
from oprd.core.bridge import Bridge
from oprd.core.capture import num_layers
from oprd.models.batch import MicroBatch
from oprd.models.end_tokens import EndTokens
from oprd.models.own_tokens import OwnTokens
from oprd.models.parts import Part
from oprd.models.reference import Reference
from oprd.models.scales import measure_mean_squares
from oprd.models.teacher import Teacher
from oprd.prompts.fingerprint import teacher_prompts_facts
from oprd.prompts.routes import Routes
from oprd.prompts.teacher import TeacherPrompts
from oprd.rollouts.supervised import role
from oprd.settings.run import OPRDConfig
from oprd.training.bridges import load_bridges
from oprd.training.plan import Plan
from oprd.training.teachers.source import TeacherSource
from oprd.training.update import Result

Given = str | PreTrainedModel | None


@dataclass
class Member:
    """A teacher, and what goes with it alone.

    Attributes:
        args: of a run with this teacher alone.
        source: where it comes from.
        bridges: that are loaded, see `load_bridges`.
        facts: by which a resumed run knows it.
        same_meaning: whether its token ids are known to mean what the student's do.
        ends: where it and the student stop.
        own: how it reads responses in tokens of its own; None for the student's.
    """

    args: OPRDConfig
    source: TeacherSource
    bridges: dict[str, Bridge | None]
    facts: dict[str, Any] = field(default_factory=dict)
    same_meaning: bool = False
    own: OwnTokens | None = None
    ends: EndTokens = field(init=False)
    teacher: Teacher = field(init=False)
    plan: Plan = field(init=False)
    prompts: TeacherPrompts = field(init=False)
    paired: PairedLayers = field(init=False)

    @classmethod
    def of(cls, args: OPRDConfig, given: Given) -> "Member":
        """One that is named, or there already, and is not loaded; see `TeacherSource.resolve`."""
        return cls(args, TeacherSource.resolve(given, args), load_bridges(args))


class Team(Mapping[str, Member]):
    """The teachers of a run by their names; the only one by "".

    Args:
        args: of the run.
        given: a teacher, or several by name, where they are not in the settings alone.

    Raises:
        ValueError: what is given is not what the settings ask for, or see `TeacherSource.resolve`.
    """

    def __init__(self, args: OPRDConfig, given: Given | Mapping[str, Given]) -> None:
        settings = args.by_teacher()
        named = given if isinstance(given, Mapping) else {"": given}
        if isinstance(given, Mapping) and not args.teachers:
            raise ValueError(
                f"teacher_model gives {', '.join(given)} by name: set teachers, with a name each."
            )
        unknown = [name or "a teacher without a name" for name in named if name not in settings]
        if unknown and given is not None:
            raise ValueError(
                f"teacher_model gives {unknown[0]}, and teachers are {', '.join(settings)}."
            )
        self._members = {n: Member.of(own, named.get(n)) for n, own in settings.items()}
        self._weights = args.teacher_weights
        self.routes = Routes(self._weights) if args.teachers else None

    def __getitem__(self, name: str) -> Member:
        """A member by name."""
        return self._members[name]

    def __iter__(self):
        """Over names."""
        return iter(self._members)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._members)

    @property
    def first(self) -> Member:
        """The only one, or the first."""
        return next(iter(self.values()))

    @property
    def models(self) -> dict[str, nn.Module]:
        """As they are now, by what messages call them."""
        return {role(name): member.teacher.reader.model for name, member in self.items()}

    @property
    def reference(self) -> Reference | None:
        """What an extrapolation goes on from."""
        return self.first.teacher.reference

    @property
    def fits(self) -> bool:
        """Whether a bridge is fitted."""
        return None in self.first.bridges.values()

    @property
    def contexts(self) -> dict[str, int]:
        """The longest sequence that each teacher reads, by what messages call it."""
        return {
            role(name): member.prompts.context
            for name, member in self.items()
            if member.prompts.context is not None
        }

    @property
    def vocabulary(self) -> int:
        """Rows of the smallest of their embeddings, of those that read the student's tokens."""
        models = (m.teacher.reader.model for m in self.values() if m.own is None)
        sizes = (int(model.config.get_text_config().vocab_size) for model in models)
        return min(sizes, default=sys.maxsize)

    @property
    def pairs(self) -> dict[str, list[list[int]]]:
        """By name, the layers of the student and of the teacher that meet."""
        return {name: [list(p) for p in member.teacher.pairs] for name, member in self.items()}

    def pairs_and_depths(self, student: Any) -> dict[str, tuple[Sequence[Any], tuple[int, int]]]:
        """By name, the layer pairs and the depths of student and teacher."""
        depth = num_layers(student)
        return {
            name: (member.teacher.pairs, (depth, num_layers(member.teacher.reader.model)))
            for name, member in self.items()
        }

    def __call__(
        self, student: nn.Module, batch: MicroBatch, place: int, *, diagnose: bool, drift: bool
    ) -> Result:
        """Let all read their parts of a micro-batch, and the student meet them.

        Args:
            student: not wrapped, its weights materialised.
            batch: what it reads, and what is supervised.
            place: the step, from 0.
            diagnose: whether the paper's diagnostics are measured.
            drift: whether drift is.
        """
        meetings = {}
        for number, (name, member) in enumerate(self.items()):
            plan, teacher = member.plan, member.teacher
            update = plan.update(place)
            needs = update.needs(diagnose, drift=drift, step=plan.within(place))
            part = self._part(number, teacher, batch)
            meetings[name] = update.begin(student, part, teacher, needs)
        return self.first.plan.update(place).meet(student, batch, meetings)

    def _part(self, number: int, teacher: Teacher, batch: MicroBatch) -> Part:
        if self.routes is None:
            return Part(batch)
        return Part.of(batch, number, gathers=teacher.reader.gathers)

    @property
    def unmeasured(self) -> bool:
        """Whether the size of a teacher's states is asked for, and not known."""
        return any(
            member.plan.scaled_by_layer - member.teacher.mean_squares.keys()
            for member in self.values()
        )

    def measure(
        self,
        student: nn.Module,
        batches: Iterable[MicroBatch],
        summed: Callable[[Tensor], Tensor],
    ) -> None:
        """Measure it; that of a teacher without a sequence stays unknown.

        Args:
            student: not wrapped, its weights materialised.
            batches: this process's part of a generation batch.
            summed: over processes.
        """
        batches = list(batches)
        for number, member in enumerate(self.values()):
            teacher = member.teacher
            parts = [self._part(number, teacher, batch).batch for batch in batches]
            for bridge in sorted(member.plan.scaled_by_layer - teacher.mean_squares.keys()):
                space = teacher.spaces.get(bridge)
                found = measure_mean_squares(teacher, student, parts, summed, space)
                if found is not None:
                    teacher.mean_squares[bridge] = found

    @property
    def mean_squares(self) -> dict[str, dict[int, float]]:
        """Sizes of teachers' states by the bridge's name, behind that of one of several."""
        return {
            _of(name, bridge): sizes
            for name, member in self.items()
            for bridge, sizes in member.teacher.mean_squares.items()
        }

    def take_up(self, recorded: Mapping[str, dict[int, float]]) -> None:
        """Go on with what a run measured, as `mean_squares` has it."""
        for name, member in self.items():
            member.teacher.mean_squares = {
                bridge: recorded[_of(name, bridge)]
                for bridge in member.plan.scaled_by_layer
                if _of(name, bridge) in recorded
            }

    def groups(self, dataset: Any, args: OPRDConfig) -> list[tuple[str, ...]] | None:
        """What the prompts of an update have in common where it is pure; None elsewhere."""
        if self.routes is None or args.teacher_batches == "mixed":
            return None
        return self.routes.groups(dataset)

    def prompts_facts(self, dataset: Any) -> dict[str, Any]:
        """What they read in the place of the student's prompts, for a resumed run to compare."""
        found = {
            name: teacher_prompts_facts(dataset, member.prompts.differ, member.args.teacher_columns)
            for name, member in self.items()
        }
        if self.routes is None:
            return found[""]
        # What else a teacher's part follows from.
        for name, member in self.items():
            own = member.args
            found[name] |= {
                "weight": self._weights[name],
                "template": own.teacher_template,
                "system_prompt": own.teacher_system_prompt,
                "chat_template_kwargs": own.teacher_chat_template_kwargs,
            }
        return found

    def record(self) -> dict[str, Any]:
        """What the run's record says of them."""
        first = self.first
        if self.routes is None:
            return {
                "teacher": first.source.name,
                "teacher_base": first.source.model if first.source.adapter else None,
                "one_base_serves_both": first.teacher.reader.on_student,
                **first.paired.facts(),
                **bridge_facts(first.teacher.spaces),
            }
        spaces = {k: v for member in self.values() for k, v in member.teacher.spaces.items()}
        pairs = self.pairs
        same = len({str(own) for own in pairs.values()}) == 1
        return {
            "teachers": {name: member.source.name for name, member in self.items()},
            "one_base_serves_both": all(m.teacher.reader.on_student for m in self.values()),
            **({"layer_pairs": next(iter(pairs.values()))} if same else {}),
            **bridge_facts(spaces),
        }


def _of(teacher: str, bridge: str) -> str:
    return f"{teacher}/{bridge}" if teacher else bridge
