"""What findings that compare no methods say of a claim.

Each reading returns whether it holds, and the figures.
"""

from lab.expectations import Found, Reading
from lab.items.cost import entries, times_faster
from lab.methods import MERGED_PURE
from lab.students import UNTOUCHED

# Reported by the paper.
FASTER, MEMORY = 1.44, 0.46
RANK, RANK_COSINE = 4, 0.9
# The slope of log SNR against log δ.
LINEAR = 1.0
# Points, of one student from each specialist on its own task.
NEAR = 3


def rank_curve(found: Found) -> tuple[bool, str]:
    """Fig. 12: whether few directions suffice."""
    cosines = {at["rank"]: at["cosine"] for at in found["curve"]}
    said = ", ".join(f"{rank}: {value:.1%}" for rank, value in cosines.items())
    return cosines[RANK] > RANK_COSINE, said


def rank_falls(found: Found) -> tuple[bool, str]:
    """Fig. 12: whether all directions carry a point less than the best number of them."""
    cosines = {at["rank"]: at["cosine"] for at in found["curve"]}
    best, full = max(cosines, key=lambda rank: cosines[rank]), max(cosines)
    why = f"highest at rank {best}, {cosines[best]:.1%}; at full width {cosines[full]:.1%}"
    return best < full and cosines[full] < cosines[best] - 0.01, why


def rank_advised(found: Found) -> tuple[bool, str]:
    """Theorem 3: whether the rank of the least E(r) is about the one that carries the most.

    That E(r) is least where ρ² crosses 1/2 needs no measurement: it follows from its definition.
    """
    cosines = {at["rank"]: at["cosine"] for at in found["curve"]}
    best, advised = max(cosines, key=lambda rank: cosines[rank]), found["advice"]["rank"]
    why = f"advised {advised}, the cosine is highest at {best} of the ranks measured"
    return best / 2 <= advised <= best * 2, why


def deterministic(found: Found) -> tuple[bool, str]:
    """Theorems 1 and 5: whether drawn tokens change top-1's gradient and no other."""
    points = [*found["training"], *found["line"]]
    others = [v for p in points for v in p["tokens"]["variance_of_others"].values()]
    finite = all(p["tokens"]["snr"] is not None for p in points)
    why = f"largest variance of all but top-1: {max(others, default=0.0):g}, {len(points)} students"
    return finite and not any(others), why


def linear(found: Found) -> tuple[bool, str]:
    """Theorem 6: whether top-1's SNR is proportional to δ."""
    fits = found["slopes"].values()
    why = ", ".join(f"{name} {fit['slope']:.2f}" for name, fit in found["slopes"].items())
    within = all(abs(fit["slope"] - LINEAR) < 2 * fit["error"] for fit in fits)
    return within, f"slope of log SNR against log δ: {why}"


def null_space(found: Found) -> tuple[bool, str]:
    """Theorems 2 and 7: whether OPRD leaves less where the LM head is blind."""
    of = {
        name: sum(seed["unseen"] for seed in found["errors"][name]) / len(found["errors"][name])
        for name in ("OPRD", "reverse KL")
    }
    why = ", ".join(f"{name} {value:.1%}" for name, value in of.items())
    return of["OPRD"] < of["reverse KL"], f"error left there: {why}"


def blind(found: Found) -> tuple[bool, str]:
    """Theorem 8: whether each head's weakest direction is seen as much less as it says.

    Of a head that does not see every direction it is the weakest of those that it sees.
    """
    holds, said = True, []
    for name, head in found["heads"].items():
        seen = [at for at in head["along"] if at["i"] <= head["rank"]]
        first, last = seen[0], seen[-1]
        measured = first["losses"]["reverse KL"] / last["losses"]["reverse KL"]
        told = (first["value"] / last["value"]) ** 2
        holds &= told / 3 < measured < 3 * told
        said.append(f"{name} measured {measured:,.0f}, (σ_1/σ_d)² {told:,.0f}")
    return holds, "; ".join(said)


def ends_part(pair: str) -> Reading:
    """Fig. 8: whether an untouched student's states are further off at the end."""

    def read(found: Found) -> tuple[bool, str]:
        curve = found["curves"][f"{pair}, {UNTOUCHED}"]
        place = max(0, len(curve["k"]) // 4 - 1)
        first, last = (curve[end]["last"][place] for end in ("first_k", "last_k"))
        why = f"first {curve['k'][place]} tokens {first:.1%}, last {last:.1%}"
        return last < first - 0.01, why

    return Reading("the last tokens' cosine is a point below the first ones'", read)


def cost(models: str) -> Reading:
    """An update beside one that forms whole logits, on one of the models."""

    def read(found: Found) -> tuple[bool, str]:
        case = found["cases"][models]
        times, peaks = entries(case["time"]), entries(case["memory"])
        _, faster, _ = times_faster(times["oprd"], times["naive_topk"])
        memory = peaks["oprd"]["transient_bytes"] / peaks["naive_topk"]["transient_bytes"]
        why = f"{faster:.2f} times as fast with {memory:.0%} of the memory"
        return faster >= FASTER and memory <= MEMORY, why

    says = f"{models}: at least {FASTER} times as fast as whole logits, {MEMORY:.0%} of the memory"
    return Reading(says, read)


def merged(found: Found) -> tuple[bool, str]:
    """Whether one student is as good as both specialists, within `NEAR` points."""
    of = found["by_task"]
    tasks = ("sums", "sorting")
    lost = {
        task: 100
        * (
            of[f"the specialist of {task}"][0][task]
            - sum(seed[task] for seed in of[MERGED_PURE]) / len(of[MERGED_PURE])
        )
        for task in tasks
    }
    why = ", ".join(f"{task} {points:.1f} points below it" for task, points in lost.items())
    return max(lost.values()) <= NEAR, why
