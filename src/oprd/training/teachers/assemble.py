"""The teachers of a run made ready: models obtained, checked with the student, placed, paired."""

from contextlib import nullcontext
from functools import partial
from typing import Any, cast

from torch import nn
from transformers import PreTrainedTokenizerBase

from oprd.calibration.models import FitModels
from oprd.calibration.processes import check_heads_stand_whole
from oprd.calibration.teacher_prompts import own_prompts, reads_otherwise
from oprd.core.layers import measures
from oprd.models.aligned import Aligned
from oprd.models.bind import check_pair
from oprd.models.end_tokens import EndTokens, stop_at_either
from oprd.models.heads import lm_head
from oprd.models.identity import model_facts
from oprd.models.matching import layers_read
from oprd.models.own_tokens import OwnTokens
from oprd.models.reader import Reader
from oprd.models.reference import Reference, check_lineage
from oprd.models.teacher import Teacher
from oprd.models.tokenizers import check_tokenizers
from oprd.prompts.lengths import context_limits
from oprd.serving.reader import ServedReader
from oprd.settings.own_tokens import no_own_tokens
from oprd.settings.serving import SERVER
from oprd.training.bridges import check_can_fit, obtain_spaces
from oprd.training.calibration import obtain_pairs
from oprd.training.plan import Plan
from oprd.training.teachers.obtain import Shared, obtain_reference, obtain_teacher
from oprd.training.teachers.place import place
from oprd.training.teachers.source import teacher_tokenizer
from oprd.training.teachers.team import Given, Member, Team


def obtain(
    team: Team, trainer: Any, tokenizer: PreTrainedTokenizerBase | None, reference: Given
) -> dict[str, Any]:
    """Obtain all, and check that the settings of every stage fit student and teachers.

    Args:
        team: as it is named.
        trainer: TRL's, whose student is there.
        tokenizer: the teachers', where it is given.
        reference: what an extrapolation goes on from, where it is given.

    Returns:
        by which a resumed run knows them.
    """
    args, student = trainer.args, trainer.student
    identity: dict[str, Any] = {}
    shard = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    if shard and args.teacher_offload:
        raise ValueError(
            "teacher_offload='cpu' moves whole models, which FSDP and DeepSpeed keep in "
            "pieces: leave it out, and let fsdp_config or the DeepSpeed configuration offload."
        )
    if shard and args.teacher_prefix is not None:
        raise ValueError(
            "teacher_prefix lets the teacher write by itself, and FSDP and DeepSpeed keep its "
            "weights in pieces: leave it out."
        )
    if shard and args.leave_ended:
        raise ValueError(
            "leave_ended=True lets each process stop writing and go on by itself, and FSDP and "
            "DeepSpeed keep weights in pieces, which all gather together: leave it out."
        )
    timed = partial(trainer.timed, "teacher")
    options = {"autocast": trainer.accelerator.autocast, "timed": timed}
    shared = Shared.of([member.source for member in team.values()])
    beyond, names = None, {}
    for name, member in team.items():
        own, source = member.args, member.source
        revision, served = own.teacher_model_revision, None
        if own.teacher_source == SERVER:
            served = ServedReader.connect(source.model, own, timed)
            model, active = served.model, None
        else:
            model, active = obtain_teacher(
                student, source, own, shard=shard, name=name, shared=shared
            )
        apart = active is not None and model is not student
        # Two of one source are one model, which is called as the first of them.
        called = names.setdefault((source, revision), name)
        member.facts = source.facts(model, revision, called)
        if served is not None:
            member.facts["teacher"]["weights"] = served.weights
        of_student = model is student or source.own is not None
        theirs = None
        member.same_meaning = of_student and tokenizer is None
        if not member.same_meaning:
            theirs = tokenizer or teacher_tokenizer(source, own)
        if own.reads_own_tokens:
            both = (student, model), (trainer.tokenizer, theirs)
            member.own = OwnTokens.of(*both, cast(Any, own.teacher_special_tokens))
        elif not member.same_meaning:
            member.same_meaning = check_tokenizers(
                trainer.tokenizer, theirs, model, no_own=no_own_tokens(own)
            )
        others = (model, theirs) if member.own is None else (None, None)
        member.ends = EndTokens.of(student, others[0], trainer.tokenizer, others[1])
        if args.joins_ends and member.same_meaning:
            stop_at_either(trainer, member.ends)
        if args.extrapolates:
            if beyond is None:
                beyond = obtain_reference(student, reference, args, trainer.tokenizer)
                said = str(reference or args.reference_model)
                facts = model_facts(beyond[0], said, own=beyond[1] is not None)
                identity["reference"] = facts
            check_lineage(student, model, beyond[0], bridged=own.bridged)
        # A teacher that moves reads again.
        keep = args.keep_teacher_states and source.own != "ema"
        reader = served or Reader(model, active, apart=apart, **options)
        member.teacher = Teacher(reader, keep=keep, name=name)
    if beyond is not None:
        reader = Reader(*beyond, **options)
        for member in team.values():
            member.teacher.reference = Reference(reader, args.extrapolation)
    several = {name: member.facts["teacher"] for name, member in team.items()}
    return identity | ({"teachers": several} if team.routes else team.first.facts)


def check(team: Team, trainer: Any) -> None:
    """Check the settings of every stage, and every teacher's prompts, before anything is read.

    Args:
        team: whose models are there.
        trainer: see `obtain`.
    """
    args, student = trainer.args, trainer.student
    objectives = [o for member in team.values() for o in member.args.objectives()]
    heads = args.measures_drift or any(o.reads_heads for o in objectives)
    if heads:
        check_heads_stand_whole(trainer.accelerator)
    heads |= any(o.fits_heads for o in objectives)
    template = {"tools": trainer.tools or None, "chat_template": trainer.chat_template}
    template |= cast(dict[str, Any], trainer.chat_template_kwargs)
    columns = getattr(trainer.train_dataset, "column_names", None) or ()
    # The last one's are all: whoever came before has left its own with the student.
    ends = list(team.values())[-1].ends.joined
    for member in team.values():
        own, model = member.args, member.teacher.reader.model
        # Refuses what needs no measuring before anything else is done.
        layers = layers_read(
            student, model, own.layer_spec, own.layer_pairing, compares=own.compares_states
        )
        member.plan = Plan.of(
            own,
            student,
            model,
            same_meaning=member.same_meaning,
            ends=ends if own.joins_ends and member.same_meaning else (),
            aligned=_aligned(member, student),
            autocast=trainer.accelerator.autocast,
        )
        context = context_limits(student, model).get("teacher")
        theirs = None if member.own is None else member.own.tokenizer
        member.prompts = own_prompts(trainer.tokenizer, template, own, context, theirs)
        check_pair(
            student,
            member.teacher.reader,
            (str(student.config.name_or_path), member.source.name),
            layers,
            heads=heads,
            bridged=own.bridged,
            same_view=not reads_otherwise(member.prompts, columns, own),
        )


def _aligned(member: Member, student: Any) -> Aligned | None:
    """How distributions are compared with those of a teacher that reads its own tokens."""
    if member.own is None or all(o.output is None for o in member.args.objectives()):
        return None
    heads = lm_head(student), lm_head(member.teacher.reader.model)
    return member.own.aligned((heads[0].vocab_size, heads[1].vocab_size))


def settle(team: Team, trainer: Any, tokenizer: PreTrainedTokenizerBase | None) -> nn.Module | None:
    """Place all, pair their layers with the student's, and obtain their bridges.

    Args:
        team: whose models are there.
        trainer: see `obtain`.
        tokenizer: likewise.

    Returns:
        the first of them, as it was wrapped.
    """
    args, accelerator = trainer.args, trainer.accelerator
    if args.only_looks:
        for member in team.values():
            member.bridges = {n: there for n, there in member.bridges.items() if there is not None}
    every = {name: _fit_models(member, trainer, tokenizer) for name, member in team.items()}
    # Before the teachers have their places: then weights may be in pieces on several devices.
    for name, member in team.items():
        if member.bridges or measures(member.args.layer_pairing):
            every[name].identify()
    readers = [member.teacher.reader for member in team.values()]
    readers += [team.reference.reader] if team.reference else []
    wrappers = place(
        readers, accelerator, trainer._forward_redirection, waits=bool(args.teacher_offload)
    )
    for name, member in team.items():
        # One after the other: all of them may be too much for the device.
        with member.teacher.reader.there():
            _calibrate(member, every[name], trainer, fits=team.fits)
    return wrappers[0]


def _fit_models(
    member: Member, trainer: Any, tokenizer: PreTrainedTokenizerBase | None
) -> FitModels:
    """The student and a teacher, as they are read before the first step."""
    reader = member.teacher.reader
    active = reader.active
    return FitModels(
        trainer.student,
        reader.model,
        trainer.tokenizer,
        tokenizer if member.own is None else member.own.tokenizer,
        member.own,
        member.prompts.own_options,
        reader.weights,
        nullcontext if active is None else partial(active, reader.model),
    )


def _calibrate(member: Member, models: FitModels, trainer: Any, *, fits: bool) -> None:
    """Pair a teacher's layers with the student's, and obtain its bridges."""
    accelerator, teacher = trainer.accelerator, member.teacher
    member.paired = obtain_pairs(
        models,
        member.args,
        trainer.train_dataset,
        accelerator,
        fits=fits,
        teacher_active=models.teacher_active,
    )
    teacher.pairs = member.paired.pairs
    if accelerator.is_main_process:
        member.paired.show()
    check_can_fit(member.bridges, accelerator)
    teacher.spaces = obtain_spaces(
        member.bridges,
        models,
        teacher.pairs,
        member.args,
        trainer.train_dataset,
        accelerator.device,
    )
