"""Sums behind their solutions."""

from jinja2 import Template

from lab import shown, sums


def test_every_second_problem_of_training_stands_behind_its_solution():
    plain, behind = shown.examples("train", 2, seed=1)
    first, second = sums.examples("train", 2, seed=1)
    assert plain == first
    assert behind == (f"{second[1]};{second[0]}", second[1])


def test_held_out_problems_stand_behind_the_solution_that_a_teacher_is_shown():
    problem, (prompt, solution) = shown.prompts()[0], sums.examples("test", 250, seed=0)[0]
    assert problem["prompt"] == Template(shown.TEMPLATE).render(solution=solution, prompt=prompt)
    assert problem["answer"] == sums.prompts()[0]["answer"]
