"""Finished runs of the lab that nobody made."""

import json

DIAGNOSTICS = ("policy_gradient_loss", "reverse_kl", "student_entropy", "teacher_entropy")


def finish(run, *accuracies):
    """Leave what a run leaves that was evaluated so at its beginning, middle and end."""
    run.folder.mkdir(parents=True)
    steps = [0, run.steps // 2, run.steps]
    lines = []
    for step, value in zip(steps, accuracies, strict=True):
        lines.append({"step": step, "eval/lab.sums/avg@2": value})
        logged = {f"diagnostics/{name}": value for name in DIAGNOSTICS}
        lines.append({"step": step, "rep_cosine": value, "completions/mean_length": 9, **logged})
    (run.folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (run.folder / "finished").touch()
