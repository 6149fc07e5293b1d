"""Finished runs of the lab that nobody made."""

import json

# Of `lab.pairs.PAIRS` in tests that ask for `tiny_pair`.
TINY_PAIR = "tiny"
DIAGNOSTICS = ("policy_gradient_loss", "reverse_kl", "student_entropy", "teacher_entropy")


def scores(reported, tuning=None):
    """Figures of a model that solves so much; by default the same of both kinds of problems."""
    shares = {"reported": reported, "tuning": reported if tuning is None else tuning}
    return {
        part: {
            "accuracy": share,
            "best": 1.0,
            "distinct_4": 0.5,
            "length": 9.0,
            "problems": [share, share],
        }
        for part, share in shares.items()
    }


def finish(run, *accuracies, tuning=None, rate_found=None, machine=None):
    """Leave what a run leaves that was evaluated so at its beginning, middle and end."""
    run.folder.mkdir(parents=True)
    steps = [0, run.steps // 2, run.steps]
    lines = []
    for step, value in zip(steps, accuracies, strict=True):
        lines.append({"step": step, f"eval/lab.sums/avg@{run.samples['curve']}": value})
        logged = {f"diagnostics/{name}": value for name in DIAGNOSTICS}
        lines.append({"step": step, "rep_cosine": value, "completions/mean_length": 9, **logged})
    parts = {"rollout": 1.0, "teacher": 0.4, "student": 0.6}
    took = {"step_time": 2.0, **{f"seconds/{part}": value for part, value in parts.items()}}
    lines += [{"step": step, **took} for step in range(1, run.steps + 1)]
    (run.folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    made_with = {"versions": {"oprd": "0"}}
    if rate_found:
        made_with["learning_rate_test"] = {"learning_rate": rate_found}
    if machine:
        made_with["machine"] = machine
    (run.folder / "run.json").write_text(json.dumps(made_with))
    (run.folder / "scores.json").write_text(json.dumps(scores(accuracies[-1], tuning)))
